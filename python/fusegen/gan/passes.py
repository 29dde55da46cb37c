"""A step of a chain with convolutions, forward and backward, whose gradient is written by hand: what such
steps share, and the autograd function around them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _backend
from ..ops.route import batched, plain, transformed
from . import chain, checks
from .chain import Map, Parameters
from .layouts import Blocked, Layout
from .objective import Objective
from .request import Request


class Forward(NamedTuple):
    """What a forward pass gives: outputs, the loss first, the only one with a gradient; and what it keeps for
    the backward pass, beside the tensors that it was given."""

    outputs: tuple[Tensor, ...]
    kept: tuple[Tensor, ...]


@dataclass(frozen=True)
class Pass(ABC):
    """How a step goes through its maps. ``tensors`` are its samples and parameters, flat and in one order."""

    maps: tuple[Map, ...]
    layout: Layout
    objective: Objective

    @abstractmethod
    def forward(self, tensors: Sequence[Any]) -> Forward: ...

    @abstractmethod
    def backward(
        self, grad: Tensor, tensors: Sequence[Any], kept: Sequence[Tensor], need: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        """The gradients of the loss, where needed, one for each of ``tensors``."""

    @abstractmethod
    def formula(self, tensors: Sequence[Any]) -> Tensor:
        """The loss in torch's operators, differentiable by every tensor any number of times."""

    def loss_and_derivative(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of the logits of real and fake samples, penalties left out, and its derivative by them."""
        nr = self.layout.counts[0]
        with torch.inference_mode(False), torch.enable_grad():
            z = logits.clone().detach().requires_grad_()
            value = self.objective.of(z[:nr] if nr else None, z[nr:])
            return value.detach(), torch.autograd.grad(value, z)[0]

    def input_gradients(
        self, need: Sequence[bool], tensors: Sequence[Any], by_group: Callable[[int, slice], Tensor]
    ) -> list[Tensor | None]:
        """Those by real and by fake samples, where needed. by_group: (group, where it lies) -> the gradient
        by it, as it lies."""
        dx: list[Tensor | None] = [None, None]
        for group in range(2):
            if need[group]:
                lies = by_group(group, self.layout.part(group))
                dx[group] = self.layout.leave(lies, tensors[group].shape)
        return dx


class _Function(torch.autograd.Function):
    """apply(pass, *tensors) -> the pass's outputs."""

    @staticmethod
    def forward(ctx: Any, step: Pass, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        outputs, kept = step.forward(tensors)
        ctx.step, ctx.given = step, len(tensors)
        ctx.save_for_backward(*tensors, *kept)
        ctx.mark_non_differentiable(*outputs[1:])
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        step: Pass = ctx.step
        saved = ctx.saved_tensors  # once: checkpointing unpacks at each reading
        tensors, kept = saved[: ctx.given], saved[ctx.given :]
        need = ctx.needs_input_grad[1:]
        if grad is None or not any(need):
            return (None,) * (1 + len(tensors))
        if torch.is_grad_enabled() or batched(grad):
            return None, *_formula_gradient(step, tensors, need, grad)
        return None, *step.backward(grad, tensors, kept, need)


def run(step: Pass, tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The outputs of a pass over ``tensors``."""
    outputs: tuple[Tensor, ...] = _Function.apply(step, *tensors)
    return outputs


def _formula_gradient(
    step: Pass, tensors: Sequence[Tensor | None], need: Sequence[bool], grad: Tensor
) -> list[Tensor | None]:
    """The gradients of the pass's formula, where needed: under create_graph=True, where they are
    differentiable again, and of a batch of ``grad`` (``is_grads_batched``), which kernels do not see."""
    again = torch.is_grad_enabled()
    under = "create_graph=True" if again else "is_grads_batched=True"
    _backend.note(f"discriminator_step under {under}: the differentiable formula runs")
    with torch.enable_grad():
        alias = [t.view_as(t) if want and t is not None else t for t, want in zip(tensors, need, strict=True)]
        wanted = [t for t, want in zip(alias, need, strict=True) if want and t is not None]
        value = step.formula(alias)
    found = iter(torch.autograd.grad(value, wanted, grad, create_graph=again, materialize_grads=True))
    return [next(found) if want else None for want in need]


# ---- whether a step is such a pass ------------------------------------------------------------------


def known(request: Request) -> tuple[Map, ...] | str:
    """The maps of a chain with convolutions, or what is in the way; "" where there is no convolution."""
    found, fake = request.chain, request.fake
    if isinstance(found, str):
        return found
    # Torch is faster at batch norms of dense layers; what else they may be, the dense route knows.
    if not found.convolves or request.dim != 0 or fake.dim() < 2:
        return ""
    maps = chain.maps(found, tuple(fake.shape[1:]))
    if not isinstance(maps, str) and _backend.autocast_dtype(fake) is not None:
        return "convolutions under autocast go through autograd"
    return maps


def kernel_layout(request: Request, maps: tuple[Map, ...]) -> Blocked | str:
    """The layout for fusegen's kernels, or why they cannot run."""
    fake = request.fake
    if not fake.is_cpu:
        return f"there are no kernels of convolutions on {fake.device.type}"
    if torch.compiler.is_compiling():
        return "torch.compile sees torch's own convolutions"
    if transformed():
        return "torch.func and forward mode see through torch's operators alone"
    parts = [part for m in maps for part in (m.module, m.norm) if part is not None]
    tensors = [request.real, fake, *(p for part in parts for p in part.parameters())]
    if not plain(t for t in tensors if t is not None):
        return "its tensors are of another kind than plain ones"
    return Blocked.fitting(maps, request.counts, fake.dtype)


def parameters(request: Request, maps: tuple[Map, ...]) -> Parameters | str:
    """What the maps hold, read once; or what is in the way, where a weight is not of its module's size.

    Raises RuntimeError for another dtype or device than the samples'.
    """
    p = chain.parameters(maps)
    for m, W in zip(maps, p.weights, strict=True):
        if W.shape != m.weight_shape:
            return f"{type(m.module).__name__} has a weight of shape {list(W.shape)}"
    checks.parameters(request.fake, p.weights, p.biases, "map")
    checks.parameters(request.fake, p.norm_weights, p.norm_biases, "the norm behind map")
    return p.detached() if request.objective.generator else p
