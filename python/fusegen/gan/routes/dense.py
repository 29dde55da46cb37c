"""Dense layers with activations and dropout: the whole step in one fused call, or layer by layer in torch's
operators where those measured faster."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ... import _backend
from ..._choice import step_name
from ...ops.discriminator import MlpOptions, mlp_discriminator_step
from ...ops.route import plain
from .. import checks, masks
from ..chain import Chain
from ..request import Request, StepOutput
from . import autograd


class Plan(NamedTuple):
    """faster: why torch's operators run the step, "" where the fused call does."""

    request: Request
    chain: Chain
    layers: tuple[nn.Linear, ...]
    faster: str


def fits(request: Request) -> Plan | str:
    """Raises ValueError for samples of other features than the first layer's."""
    chain, x = request.chain, request.fake
    if isinstance(chain, str):
        return chain
    if chain.convolves:
        return ""
    if chain.norms or any(chain.flattens):
        name = next((type(norm).__name__ for norm in chain.norms.values()), "Flatten")
        return f"{name} in a D without convolutions; there the fused step has Linear, activations, Dropout"
    if x.is_cuda:
        why = _backend.why_torch("discriminator_step", x, step=True)
        if why:
            return why
    elif not x.is_cpu:
        return f"no fused step for device {x.device.type!r}"
    if request.dim != 0 or (x.dim() != 2 and not chain.flattens):
        return "a Linear gets samples of more than one dim; the fused step needs [N, features]"
    layers: tuple[nn.Linear, ...] = chain.layers  # type: ignore[assignment]
    if any(m.in_features == 0 for m in layers):
        return "a dense layer reads no features"
    first = layers[0].in_features
    if math.prod(x.shape[1:]) != first:
        of = "a sample" if request.pac == 1 else f"of {request.pac} packed samples"
        raise ValueError(
            f"real, fake: expected {first} features {of}, as D's first layer has, got {list(x.shape[1:])}"
        )
    return Plan(request, chain, layers, _faster_on_torch(request, chain, layers))


def run(plan: Plan) -> StepOutput:
    if plan.faster:
        return autograd.run(autograd.Plan(plan.request._replace(reason=plan.faster), plan.chain))
    return _fused(plan)


def _fused(plan: Plan) -> StepOutput:
    request, objective, fake = plan.request, plan.request.objective, _flat(plan.request.fake)
    real = None if request.real is None else _flat(request.real)
    mixed = None if request.mixed is None else _flat(request.mixed)
    weights: list[Tensor] = [m.weight for m in plan.layers]
    biases: list[Tensor | None] = [m.bias for m in plan.layers]
    if objective.generator:  # gradients go to fake alone, and where it asks for none, backward has to say so
        weights = [W.detach() for W in weights]
        biases = [b if b is None else b.detach() for b in biases]
    dtype = _backend.autocast_dtype(fake)
    if dtype is None:
        checks.parameters(fake, weights, biases, "dense layer")
    else:
        fake, *weights = (_cast(t, dtype) for t in (fake, *weights))
        real, mixed, *biases = (t if t is None else _cast(t, dtype) for t in (real, mixed, *biases))
    target, penalties = 1.0 - objective.smoothing, objective.weights
    near = objective.near_real, objective.near_fake
    counted = (objective.counted or 0) * math.prod(request.fake.shape[2:])
    options = MlpOptions(objective.loss, objective.generator, target, *penalties, *near, counted)
    chain = plan.chain
    key = masks.draw_key(request.generator) if chain.drops else None
    loss, scalars, logits = mlp_discriminator_step(
        real, fake, mixed, weights, biases, slopes=chain.slopes[:-1], options=options,
        activations=chain.activations[:-1] if chain.smooth else (),
        dropouts=chain.dropouts if chain.drops else (),
        key=key,
    )  # fmt: skip
    nr, penalty = 0 if real is None else len(real), scalars[1].to(loss.dtype)
    r, f = objective.own(logits[:nr] if nr else None, logits[nr:])
    why = f"dense layers with {'smooth' if chain.smooth else 'piecewise linear'} activations"
    return StepOutput(loss, r, f, penalty, "fused_mlp", why, _scalars=scalars[2:], key=key)


def _flat(x: Tensor) -> Tensor:
    return x if x.dim() == 2 else x.flatten(1)


def _cast(t: Tensor, dtype: torch.dtype) -> Tensor:
    return t if t.dtype == torch.float64 else t.to(dtype)


def _faster_on_torch(request: Request, chain: Chain, layers: tuple[nn.Linear, ...]) -> str:
    """Why "auto" leaves this step to torch, both halves in one pass through autograd; "" where it does not.

    Only a discriminator's step of plain tensors and a plain chain on the CPU, called eagerly: the others were
    not measured, and some autograd cannot do (a penalty in torch.compile, in a torch.func transform).
    """
    real, fake, objective = request.real, request.fake, request.objective
    if objective.generator or real is None or chain.beyond or _backend.get_backend() != "auto":
        return ""
    if objective.counted is not None:  # of which the layers alone know nothing
        return ""
    if not fake.is_cpu or torch.compiler.is_compiling():
        return ""
    asked = objective.penalties
    name = step_name("none" if not asked else "gp" if asked[0] == "gp" else "r1")
    if len(asked) > 1 or name not in _backend.cpu_cells():
        return ""
    size, half = sum(m.in_features * m.out_features for m in layers), (len(real) + len(fake) + 1) // 2
    rule = _backend.cpu_rule(name, len(layers), size, half, 1, dtype=fake.dtype, train=True)
    # A parametrised weight is read once in a fused step, but at each call of D in autograd's.
    if rule is None or any(type(m) is not nn.Linear for m in layers):
        return ""
    weights, biases = [m.weight for m in layers], [m.bias for m in layers]
    tensors = [t for t in (real, fake, *weights, *biases) if t is not None]
    if not _backend.needs_grad(*weights) or not plain(tensors) or _backend.autocast_dtype(fake) is not None:
        return ""
    checks.parameters(fake, weights, biases, "dense layer")
    return (
        f"PyTorch measured faster at this size ({rule.source}); set_backend('fused') runs the kernels anyway"
    )
