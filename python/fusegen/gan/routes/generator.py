"""The generator's step of any discriminator, through autograd: D passes gradients on and keeps none, in
forward and in what backward runs again of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...ops.route import transformed
from .. import logits, modules
from ..request import Request, StepOutput, output


def fits(request: Request) -> Request:
    return request


def run(request: Request) -> StepOutput:
    r, f = _through(request)
    path = "recurrent" if modules.has_recurrence(request.D) else "autograd"
    return output(request.objective, request.objective.of(r, f), r, f, path=path, reason=request.reason)


def _through(request: Request) -> tuple[Tensor | None, Tensor]:
    """Logits, the fake samples' with gradient to them and none to D's parameters.

    Activation checkpointing calls parts of D again in the backward pass, where the parameters have to be
    without gradient as well: hence a graph of its own, whose backward runs within `without_grad` too.
    """
    D, fake = request.D, request.fake
    with without_grad(D):
        if torch.compiler.is_compiling() or transformed() or not fake.requires_grad:
            return _logits(request, fake)
        x = fake.detach().requires_grad_()
        r, f = _logits(request, x)
    return r, (_Joined.apply(D, (f, x), fake) if f.requires_grad else f)


def _logits(request: Request, fake: Tensor) -> tuple[Tensor | None, Tensor]:
    if request.real is None:
        return None, logits.of_one(request.D, fake, fake.shape[request.dim], request.labels[1])
    r, f = logits.of_both(request.D, request.real, fake, request.together, request.dim, request.labels)
    return r.detach(), f


class without_grad:
    """D's parameters without gradient for a while; those that are no leaves (as under
    torch.func.functional_call) have stand-ins."""

    def __init__(self, D: nn.Module) -> None:
        held: list[tuple[dict[str, Any], str, nn.Parameter]] = [
            (m._parameters, name, p)
            for m in D.modules()
            for name, p in m._parameters.items()
            if p is not None and p.requires_grad
        ]
        plain = not transformed()  # inside torch.func no tensor's requires_grad can be set
        self._leaves = [p for _, _, p in held if plain and p.is_leaf]
        self._others = [(own, name, p) for own, name, p in held if not (plain and p.is_leaf)]

    def __enter__(self) -> None:
        for p in self._leaves:
            p.requires_grad_(False)
        for own, name, p in self._others:
            own[name] = p.detach()

    def __exit__(self, *_: object) -> None:
        for p in self._leaves:
            p.requires_grad_(True)
        for own, name, p in self._others:
            own[name] = p


class _Joined(torch.autograd.Function):
    """The first of ``graph``, computed from the others, its leaves, as if it was computed from ``outer``. A
    tuple, for autograd is not to see it."""

    @staticmethod
    def forward(ctx: Any, D: nn.Module, graph: tuple[Tensor, ...], *outer: Tensor) -> Tensor:
        ctx.D, (ctx.y, *ctx.inner) = D, graph
        ctx.save_for_backward(*outer)
        y: Tensor = ctx.y.detach()
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        D, y, inner = ctx.D, ctx.y, ctx.inner
        if y is None:
            raise RuntimeError(
                "Trying to backward through the discriminator a second time: what it saved is freed; "
                "specify retain_graph=True the first time"
            )
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.y = None
        if torch.is_grad_enabled():
            return None, None, *_differentiable(D, y, inner, ctx.saved_tensors, grad)
        with without_grad(D):
            # Reentrant checkpointing knows backward() only, the rest has no other leaf's gradient to touch.
            if torch.autograd._is_checkpoint_valid():
                y.backward(grad, retain_graph=True)
                grads = [x.grad for x in inner]
                for x in inner:
                    x.grad = None
            else:
                grads = torch.autograd.grad(y, inner, grad, retain_graph=True, allow_unused=True)
        return None, None, *grads


def _differentiable(
    D: nn.Module, y: Tensor, inner: Sequence[Tensor], outer: Sequence[Tensor], grad: Tensor
) -> list[Tensor | None]:
    """The gradients of y by ``inner``, to be differentiated by ``outer`` and by grad."""
    seed = grad.detach().requires_grad_()
    with without_grad(D):
        grads = torch.autograd.grad(y, inner, seed, create_graph=True, allow_unused=True)
    return [
        g if g is None or not g.requires_grad else _Joined.apply(D, (g, *inner, seed), *outer, grad)
        for g in grads
    ]
