"""The ways to write a discriminator's step, forward and backward: the fused one, and those of plain torch.

Plain: eager (D called on real, then on fake, as most training scripts do), concatenated (both at once),
compile (concatenated, in torch.compile), and for penalties func (torch.func.grad in place of a second
backward, compiled).
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

import fusegen
from fusegen.gan import discriminator_step
from harness.peer import BaseRunner, NotCompared


def adversarial(r: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    return F.softplus(-r).mean() + F.softplus(f).mean()


class StepRunner(BaseRunner):
    def __init__(self, problem, net: nn.Module):
        self.problem, self.net = problem, net

    def reset(self) -> None:
        self.net.zero_grad(set_to_none=True)

    def drop(self) -> None:
        self.value = None

    def run(self) -> None:
        self.value = self.loss()
        self.value.backward()

    def results(self) -> dict[str, torch.Tensor]:
        return {"loss": self.value.detach()} | {name: p.grad for name, p in self.net.named_parameters()}


class Eager(StepRunner):
    """Two calls of D, and create_graph for a penalty."""

    def penalty(self, real: torch.Tensor, r: torch.Tensor | None) -> torch.Tensor | float:
        problem = self.problem
        if problem.case.penalty == "none":
            return 0.0
        if problem.case.penalty == "r1":
            (v,) = torch.autograd.grad(r.sum(), real, create_graph=True)
            return 5.0 * v.flatten(1).square().sum(1).mean()
        mixed = torch.lerp(problem.real, problem.fake, problem.shares().to(real.dtype)).requires_grad_()
        (v,) = torch.autograd.grad(self.net(mixed).sum(), mixed, create_graph=True)
        return 10.0 * (v.flatten(1).norm(dim=1) - 1).square().mean()

    def loss(self) -> torch.Tensor:
        real = self.problem.real.detach().requires_grad_(self.problem.case.penalty == "r1")
        r, f = self.net(real).flatten(), self.net(self.problem.fake).flatten()
        return adversarial(r, f) + self.penalty(real, r)


class Concatenated(Eager):
    """D called once; only where a batch statistic does not tie the halves together."""

    def loss(self) -> torch.Tensor:
        problem = self.problem
        real = problem.real.detach().requires_grad_(problem.case.penalty == "r1")
        r, f = self.net(torch.cat((real, problem.fake), problem.dim)).flatten().split(problem.case.B)
        return adversarial(r, f) + self.penalty(real, r)


def _compile(step):
    """For this size alone: of one piece of source so many versions are kept, and the next runs eagerly."""
    torch.compiler.reset()
    return torch.compile(step, dynamic=False)


class Functional(StepRunner):
    """The penalty by torch.func.grad over each sample, the whole of it compiled."""

    def __init__(self, problem, net: nn.Module):
        super().__init__(problem, net)
        names = [name for name, _ in net.named_parameters()]

        def step(parameters, real, fake, mixed):
            weights = dict(zip(names, parameters, strict=True))

            def logit(x):
                return torch.func.functional_call(net, weights, (x.unsqueeze(0),)).squeeze()

            r, f = (
                torch.func.functional_call(net, weights, (torch.cat((real, fake)),))
                .flatten()
                .split(len(real))
            )
            v = torch.func.vmap(torch.func.grad(logit))(mixed)
            if problem.case.penalty == "r1":
                return adversarial(r, f) + 5.0 * v.square().sum(1).mean()
            return adversarial(r, f) + 10.0 * (v.norm(dim=1) - 1).square().mean()

        self.step = _compile(step)

    def loss(self) -> torch.Tensor:
        problem = self.problem
        mixed = (
            problem.real
            if problem.case.penalty == "r1"
            else torch.lerp(problem.real, problem.fake, problem.shares())
        )
        return self.step(list(self.net.parameters()), problem.real, problem.fake, mixed)


class Compiled(Concatenated):
    def __init__(self, problem, net: nn.Module):
        super().__init__(problem, net)
        self.step = _compile(lambda x: adversarial(*net(x).flatten().split(problem.case.B)))

    def loss(self) -> torch.Tensor:
        return self.step(torch.cat((self.problem.real, self.problem.fake)))


class Ours(StepRunner):
    backend = "fused"

    def __init__(self, problem, net: nn.Module):
        super().__init__(problem, fusegen.convert(net))
        self.before = fusegen.get_backend()

    def close(self) -> None:
        fusegen.set_backend(self.before)

    def loss(self) -> torch.Tensor:
        problem = self.problem
        fusegen.set_backend(self.backend)
        generator = problem.generator() if problem.case.penalty == "gp" else None  # draws what shares() draws
        out = discriminator_step(self.net, problem.real, problem.fake, generator=generator, **problem.weights)
        self.path = out.path
        return out.loss


class Unpenalised(Ours):
    """The fused step without the case's penalty, read in the same rounds for what the penalty costs: the
    plain case, where its results are checked, is read minutes before."""

    def loss(self) -> torch.Tensor:
        fusegen.set_backend(self.backend)
        return discriminator_step(self.net, self.problem.real, self.problem.fake).loss

    def results(self) -> dict[str, torch.Tensor]:
        return {}


class Auto(Ours):
    backend = "auto"


class Step:
    """A way to write the step, for the cases that it fits."""

    def __init__(self, name: str, runner: type, fits=lambda case: True):
        self.name, self.runner, self.fits = name, runner, fits

    def prepare(self, problem) -> StepRunner:
        if not self.fits(problem.case):
            raise NotCompared
        return self.runner(problem, copy.deepcopy(problem.net))
