"""Penalties of discriminators that are no chains of piecewise linear maps (norms, smooth activations,
residual blocks, minibatch statistics, a projection), in closed form: four sweeps through a program of
operators in torch's kernels take the place of a second backward.

A sum of logits ties nothing together that D does not: where D takes statistics of a group, the adjoint of the
sum of its logits is what autograd differentiates, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _backend
from ...ops.route import transformed
from .. import logits
from ..logits import as_logits
from ..objective import GROUPS, Objective
from ..operators import program
from ..operators.operator import Second
from ..operators.program import Program
from ..request import Request, StepOutput, output
from . import passes
from .passes import Forward, Pass

# Multiply-adds of a step's forward pass below which "auto" leaves it to autograd, whose operators are called
# from C++: where a penalty looks at one of the halves alone, of which autograd goes through both, and else.
# With statistics of a batch sweeps were no faster at any size (docs/gan.md has the ratios).
FEWEST_OF_ONE_HALF, FEWEST = 10_000_000, 50_000_000


class Plan(NamedTuple):
    request: Request
    step: Sweeps


def fits(request: Request) -> Plan | str:
    objective, fake = request.objective, request.fake
    if not objective.penalties or request.real is None or _backend.get_backend() == "torch":
        return ""
    if not isinstance(request.chain, str) and not request.chain.norms and not request.chain.convolves:
        return ""  # the dense route has said why not
    if request.dim != 0 or fake.dim() < 2:
        return ""
    if torch.compiler.is_compiling() or transformed():
        return f"{request.reason}; the penalty's closed form does not run inside torch.compile or torch.func"
    if _backend.autocast_dtype(fake) is not None:
        return f"{request.reason}; the penalty's closed form does not run under autocast"
    order = sorted(range(3), key=lambda group: not objective.penalised[group])
    found = program.parse(request.network, request.labels_of(order))
    if isinstance(found, str):
        return f"{request.reason}; {found}"
    if found.ties_samples and objective.approximate:
        return (
            "an approximate penalty's noisy samples need statistics of their own, which the closed form lacks"
        )
    if why := _faster_on_torch(request, found):
        return f"{request.reason}; {why}"
    counts = tuple(n for n in (request.counts[group] for group in order) if n)
    if 1 in counts and any(found.norms()):
        return "a batch norm gets a single sample; it needs a larger batch"
    return Plan(request, Sweeps(found, tuple(order), request.counts, objective))


def _faster_on_torch(request: Request, found: Program) -> str:
    """Why "auto" leaves a step to autograd, "" where it does not."""
    if _backend.get_backend() != "auto":
        return ""
    if not request.fake.is_cpu:
        return f"the penalty's closed form was not measured on {request.fake.device.type}"
    if found.ties_samples:
        return "with BatchNorm or MinibatchStd autograd measured as fast as a closed form of the penalty"
    penalised = request.objective.penalised
    alone = penalised in ((True, False, False), (False, True, False))
    size = found.size * sum(request.counts)
    if size < (FEWEST_OF_ONE_HALF if alone else FEWEST):
        return "at this size autograd measured faster than a closed form of the penalty"
    return ""


def run(plan: Plan) -> StepOutput:
    request, step = plan.request, plan.step
    tensors = *request.samples, *step.program.parameters()
    try:
        value, penalty, z, norms, *statistics = passes.run(step, tensors)
    except (RuntimeError, ValueError) as error:
        logits.name_mismatch(request.D, request.fake, error)
        raise
    step.track(statistics)
    nr, asked = request.counts[0], [g for g in range(3) if request.objective.penalised[g]]
    return output(
        request.objective,
        value,
        z[:nr],
        z[nr:],
        penalty=penalty,
        norms={f"norm_{GROUPS[g]}": norm for g, norm in zip(asked, norms, strict=True)},
        path="closed_form",
        reason=f"{request.reason}; so the penalty runs in closed form, in torch's operators",
    )


@dataclass(frozen=True)
class Sweeps(Pass):
    """tensors: real, fake, mixed, and the program's parameters. order: in which the groups lie, those that a
    penalty looks at first. counts: of real, fake and mixed samples. Outputs: loss, penalty, the logits of
    real and fake samples, the mean lengths of the input gradients that a penalty looks at, and the statistics
    of the batch norms."""

    program: Program
    order: tuple[int, ...]
    counts: tuple[int, int, int]
    objective: Objective

    @property
    def _groups(self) -> tuple[int, ...]:
        return tuple(n for n in (self.counts[group] for group in self.order) if n)

    @property
    def _penalised(self) -> tuple[int, int]:
        """How many rows and how many groups a penalty looks at."""
        asked = [n for n, asks in zip(self.counts, self.objective.penalised, strict=True) if asks]
        return sum(asked), len(asked)

    def _joined(self, tensors: Sequence[Any]) -> Tensor:
        return torch.cat([tensors[group] for group in self.order if tensors[group] is not None])

    def _apart(self, rows: Tensor) -> list[Tensor]:
        """Of all rows, those of real, of fake and of mixed samples."""
        parts = rows.split([self.counts[group] for group in self.order])
        return [parts[self.order.index(group)] for group in range(3)]

    def forward(self, tensors: Sequence[Any]) -> Forward:
        p = tensors[3:]
        x = self._joined(tensors)
        points = self.program.forward(x, p, self._groups)
        last = points[-1].y
        z = as_logits(last, len(x))
        r, f, _ = self._apart(z)
        value, s = passes.loss_and_derivative(self.objective, torch.cat((r, f)), len(r))
        count, groups = self._penalised
        here = self.program.first(points, count, groups)
        all_rows = not self.program.bends
        seed = torch.full_like(last if all_rows else last[:count], len(z) / last.numel())
        adjoints = self.program.adjoints(seed, points if all_rows else here, p, here)
        v = adjoints[0]
        if self.objective.counted is not None:
            v = v.clone()
            v[:, self.objective.counted :] = 0
        penalty, factors, norms = self.objective.exact_penalty(self.counts, *_lengths(v))
        statistics = self.program.statistics(points)
        outputs = value + penalty, penalty, torch.cat((r, f)), norms, *statistics
        return outputs, (s, v, factors, x, *adjoints[1:], *self.program.flat(points))

    def backward(
        self, grad: Tensor, tensors: Sequence[Any], kept: Sequence[Tensor], need: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        s, v, factors, x, *rest = kept
        p, n = tensors[3:], len(self.program.instructions)
        points = self.program.points(x, rest[n:], self._groups)
        count, groups = self._penalised
        here = self.program.first(points, count, groups)
        direction = (grad * factors).reshape(-1, *[1] * (v.dim() - 1)) * v
        tangents = self.program.tangents(direction, here, p)
        second = [
            Second(u[:count], tangents[i.sources[0]], at)
            for u, i, at in zip(rest[:n], self.program.instructions, here, strict=True)
        ]
        by_rows, wanted = any(need[:2]), need[3:]
        s = self._spread(grad * s)
        if self.program.bends:
            last = points[-1].y
            seed = (s * (len(s) / last.numel())).reshape(-1, *[1] * (last.dim() - 1)).expand_as(last)
            rows, own = self.program.gradients(
                seed.contiguous(), points, second, p, rows=by_rows, wanted=wanted
            )
        else:
            rows, own = self.program.scaled_gradients(
                s, rest[:n], points, second, p, rows=by_rows, wanted=wanted
            )
        dx: list[Tensor | None] = [None, None]
        if rows is not None:
            parts = self._apart(rows)
            dx = [parts[group] if need[group] else None for group in range(2)]
        return *dx, None, *own

    def _spread(self, s: Tensor) -> Tensor:
        """Of the loss's derivative by the logits of real and fake samples, that by all rows'."""
        nr, _, nm = self.counts
        of = [s[:nr], s[nr:], s.new_zeros(nm)]
        return torch.cat([of[group] for group in self.order])

    def formula(self, tensors: Sequence[Any]) -> Tensor:
        p = tensors[3:]
        x = self._joined(tensors)
        points = self.program.forward(x, p, self._groups)
        last = points[-1].y
        r, f, _ = self._apart(as_logits(last, len(x)))
        count, groups = self._penalised
        seed = torch.full_like(last[:count].detach(), len(x) / last.numel())
        here = self.program.first(points, count, groups)
        v = self.program.adjoints(seed, here, p, here)[0]
        lengths = _lengths(v[:, : self.objective.counted])
        return self.objective.of(r, f) + self.objective.exact_penalty(self.counts, *lengths)[0]

    def track(self, statistics: Sequence[Tensor]) -> None:
        """Moves the running statistics of batch norms, real first, as passes of their own would."""
        if not statistics:
            return
        groups = [group for group in self.order if self.counts[group]]
        for group in range(3):
            if group in groups:
                at = groups.index(group)
                for k, operator in enumerate(self.program.norms()):
                    operator.track(statistics[2 * k][at], statistics[2 * k + 1][at])


def _lengths(v: Tensor) -> tuple[Tensor, Tensor]:
    """||v||^2 and ||v|| of each row."""
    v = v.flatten(1)
    return v.square().sum(1), torch.linalg.vector_norm(v, dim=1)
