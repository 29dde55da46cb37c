"""A step, forward and backward, whose gradient is written by hand: what such steps share, and the autograd
function around them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ... import _backend
from ...ops import differentiate
from ...ops.differentiate import Differentiable, autograd_function
from ...ops.layout import present
from ...ops.route import plain, transformed
from .. import chain, checks
from ..chain import Map, Parameters
from ..layouts import Blocked, Layout
from ..objective import Objective
from ..request import Request

# What a forward pass gives: outputs, the loss first, the only one with a gradient; and what it keeps for the
# backward pass, beside the tensors that it was given.
Forward = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]


class Pass(ABC):
    """How a step goes through D. ``tensors`` are its samples and parameters, flat and in one order."""

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


def loss_and_derivative(objective: Objective, logits: Tensor, nr: int) -> tuple[Tensor, Tensor]:
    """The loss of the logits of nr real and of fake samples, exact penalties left out, and its derivative by
    them."""
    with torch.inference_mode(False), torch.enable_grad():
        z = logits.clone().detach().requires_grad_()
        value = objective.of(z[:nr] if nr else None, z[nr:])
        return value.detach(), torch.autograd.grad(value, z)[0]


@dataclass(frozen=True)
class ChainPass(Pass):
    """A pass through the maps of a chain with convolutions."""

    maps: tuple[Map, ...]
    layout: Layout
    objective: Objective

    def loss_and_derivative(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        return loss_and_derivative(self.objective, logits, self.layout.counts[0])

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


class _Step(Differentiable):
    """Any pass, as what has a gradient of its own. ``static``: the pass; ``tensors``: its tensors."""

    name = "discriminator_step"
    outputs = 2  # and what else there is, without gradient
    differentiable = 1

    def forward(
        self, direct: bool, static: tuple[Any, ...], tensors: Sequence[Tensor | None]
    ) -> differentiate.Forward:
        step: Pass = static[0]
        return *step.forward(tensors), None

    def backward(
        self,
        direct: bool,
        static: tuple[Any, ...],
        tensors: Sequence[Tensor | None],
        kept: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> Sequence[Tensor]:
        step: Pass = static[0]
        (grad,) = present(grads)
        return present(step.backward(grad, tensors, kept, wanted))

    def formula(self, static: tuple[Any, ...], tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        step: Pass = static[0]
        return (step.formula(tensors),)


_apply, _ = autograd_function(_Step())


def run(step: Pass, tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The outputs of a pass over ``tensors``."""
    outputs: tuple[Tensor, ...] = _apply(False, (step,), *tensors)
    return outputs


# ---- whether a step is such a pass ------------------------------------------------------------------


def known(request: Request) -> tuple[Map, ...] | str:
    """The maps of a chain with convolutions, or what is in the way; "" where there is no convolution."""
    found, fake = request.chain, request.fake
    if isinstance(found, str):
        return found
    # Torch is faster at batch norms of dense layers; what else they may be, the dense route knows.
    if not found.convolves or request.dim != 0 or fake.dim() < 2:
        return ""
    if found.beyond:
        return f"{found.beyond} beside convolutions, where the fused step runs ReLU and LeakyReLU only"
    maps = chain.maps(found, tuple(fake.shape[1:]))
    if not isinstance(maps, str) and _backend.autocast_dtype(fake) is not None:
        return "under autocast, convolutions go through autograd"
    return maps


def kernel_layout(request: Request, maps: tuple[Map, ...]) -> Blocked | str:
    """The layout for fusegen's kernels, or why they cannot run."""
    fake = request.fake
    if not fake.is_cpu:
        return f"there are no kernels of convolutions on {fake.device.type}"
    if torch.compiler.is_compiling():
        return "inside torch.compile torch's own convolutions run"
    if transformed():
        return "torch.func and forward-mode differentiation need torch's own operators"
    parts = [part for m in maps for part in (m.module, m.norm) if part is not None]
    tensors = [request.real, fake, *(p for part in parts for p in part.parameters())]
    if not plain(t for t in tensors if t is not None):
        return "a tensor is a subclass or a fake one, which the kernels cannot read"
    return Blocked.fitting(maps, request.counts, fake.dtype)


def parameters(request: Request, maps: tuple[Map, ...]) -> Parameters | str:
    """What the maps hold, read once; or what is in the way, where a weight is not of its module's size.

    Raises RuntimeError for another dtype or device than the samples'.
    """
    p = chain.parameters(maps)
    for m, W in zip(maps, p.weights, strict=True):
        if W.shape != m.weight_shape:
            name = type(m.module).__name__
            return f"{name} has a weight of shape {list(W.shape)}, expected {list(m.weight_shape)}"
    checks.parameters(request.fake, p.weights, p.biases, "map")
    checks.parameters(request.fake, p.norm_weights, p.norm_biases, "the norm behind map")
    return p.detached() if request.objective.generator else p
