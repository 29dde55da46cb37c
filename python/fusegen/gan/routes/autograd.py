"""The discriminator's step of any network, through autograd: penalties by differentiating twice."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import logits, modules
from ..chain import Chain
from ..objective import GROUPS, MIXED, PENALTIES, Objective
from ..request import Request, StepOutput, output


class Plan(NamedTuple):
    """chain: of dense layers, which then run without their modules' calls; None calls D."""

    request: Request
    chain: Chain | None = None


def fits(request: Request) -> Plan:
    return Plan(request)


def run(plan: Plan) -> StepOutput:
    """Raises RuntimeError where there is a penalty but no gradient to be had for it."""
    if plan.request.objective.penalties and torch.compiler.is_compiling():
        # AOTAutograd cannot differentiate twice: the graph breaks; under fullgraph=True dynamo says so.
        why = "a penalty differentiates twice, which is not compiled"
        out: StepOutput = torch.compiler.disable(_step, reason=why)(plan)
        return out
    if plan.request.objective.penalties and modules.is_compiled(plan.request.D):
        # What AOTAutograd compiled has no second derivative.
        why = "a penalty differentiates twice, so D's compiled parts run without torch.compile"
        with torch.compiler.set_stance("force_eager"):
            return _step(plan._replace(request=plan.request._replace(reason=f"{plan.request.reason}; {why}")))
    return _step(plan)


def _step(plan: Plan) -> StepOutput:
    request, objective = plan.request, plan.request.objective
    _check_gradients_on(objective)
    asks_real, asks_fake, asks_mixed = objective.penalised
    real, fake, mixed = request.samples
    if real is None:
        raise ValueError("real: a discriminator's step has real samples, got None")
    real = _with_gradient(real) if asks_real else real
    fake = _with_gradient(fake) if asks_fake else fake
    r, f = _both(plan, real, fake)
    total = objective.of(r, f)
    penalty, norms = total.new_zeros(()), {}
    for group, asks, z, x in ((0, asks_real, r, real), (1, asks_fake, f, fake)):
        if asks:
            v = _input_gradient(z, x, PENALTIES[group], request.dim)
            penalty = penalty + objective.penalty(group, v.square().sum(1))
            norms[f"norm_{GROUPS[group]}"] = v.detach().norm(dim=1).mean()
    if asks_mixed and mixed is not None:
        x = mixed.requires_grad_()
        v = _input_gradient(_one(plan, x), x, PENALTIES[MIXED], request.dim)
        norm = torch.linalg.vector_norm(v, dim=1)  # at v = 0 its derivative is 0
        penalty = penalty + objective.penalty(MIXED, norm)
        norms[f"norm_{GROUPS[MIXED]}"] = norm.detach().mean()
    if norms:
        total = total + penalty
    recurrent = plan.chain is None and modules.has_recurrence(request.D)
    path = "recurrent" if recurrent else "autograd"
    return output(objective, total, r, f, penalty=penalty, norms=norms, path=path, reason=request.reason)


def _check_gradients_on(objective: Objective) -> None:
    name = next(iter(objective.penalties), None)
    if name is not None and not torch.is_grad_enabled():
        raise RuntimeError(
            f"{name}: a penalty is a gradient, but gradients are switched off (torch.no_grad, "
            "torch.inference_mode)"
        )
    if name is not None and torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            f"{name}: a penalty of a D that goes through autograd cannot run inside a torch.func transform, "
            "where no tensor can be made to require a gradient"
        )


def _with_gradient(x: Tensor) -> Tensor:
    """x for a penalty: an alias, so that x itself keeps only the gradients that it asked for."""
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


def _one(plan: Plan, x: Tensor) -> Tensor:
    """Logits [N] of mixed samples, which have their pairs' labels."""
    if plan.chain is not None:
        return _dense(plan.chain, x)
    request = plan.request
    return logits.of_one(request.D, x, x.shape[request.dim], request.mixed_labels)


def _both(plan: Plan, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [Nr] and [Nf]; of dense layers in one pass, as a training script would write it."""
    request = plan.request
    if plan.chain is not None:
        r, f = _dense(plan.chain, torch.cat((real, fake))).split((len(real), len(fake)))
        return r, f
    D, dim, objective = request.D, request.dim, request.objective
    # In one pass samples with noise would have other masks than those without.
    apart = logits.passes_together(D, request.together) is None or modules.drops(D)
    if objective.approximate and apart:
        r_labels, f_labels = request.labels
        r = _beside_noise(D, real, dim, r_labels) if objective.near_real else _alone(D, real, dim, r_labels)
        f = _beside_noise(D, fake, dim, f_labels) if objective.near_fake else _alone(D, fake, dim, f_labels)
        return r, f
    return logits.of_both(D, real, fake, request.together, dim, request.labels)


def _alone(D: nn.Module, x: Tensor, dim: int, labels: Tensor | None) -> Tensor:
    return logits.of_one(D, x, x.shape[dim], labels)


def _beside_noise(D: nn.Module, x: Tensor, dim: int, labels: Tensor | None) -> Tensor:
    """Of samples and behind them the same with noise, each a pass of its own. What D draws, dropout's masks,
    is the same in both: their difference is to be the noise's."""
    plain, noisy = x.chunk(2, dim)
    own, other = (None, None) if labels is None else labels.chunk(2)
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        z = _alone(D, plain, dim, own)
    return torch.cat((z, _alone(D, noisy, dim, other)))


def _dense(chain: Chain, x: Tensor) -> Tensor:
    x = x.flatten(1)
    for m, slope in zip(chain.layers, chain.slopes, strict=True):
        x = F.linear(x, m.weight, m.bias)
        if slope != 1.0:
            x = F.leaky_relu(x, slope) if slope else F.relu(x)
    return x.squeeze(1)


def _input_gradient(z: Tensor, x: Tensor, penalty: str, dim: int) -> Tensor:
    """The gradient [N, features] of each sample's logit by x, differentiable again.

    Raises RuntimeError where D cannot be differentiated by its input.
    """
    if not z.requires_grad:
        raise RuntimeError(
            f"{penalty}: D's logits do not depend on its input in a way that can be differentiated"
        )
    (v,) = torch.autograd.grad(z.sum(), x, create_graph=True, materialize_grads=True)
    return v.movedim(dim, 0).reshape(x.shape[dim], -1)
