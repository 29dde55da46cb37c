"""D that passes gradients on and keeps none, in forward and in what backward runs again of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..ops._common import transformed


def through(D: nn.Module, logits: Callable[[Tensor], Tensor], fake: Tensor) -> Tensor:
    """``logits(fake)``, which calls D, with gradient to fake and none to D's parameters.

    Activation checkpointing calls parts of D again in the backward pass, where the parameters have to be
    without gradient as well: hence a graph of its own, whose backward runs within `frozen` too.
    """
    with frozen(D):
        if torch.compiler.is_compiling() or transformed() or not fake.requires_grad:
            return logits(fake)
        x = fake.detach().requires_grad_()
        y = logits(x)
    return _Joined.apply(D, (y, x), fake) if y.requires_grad else y


class frozen:
    """D's parameters without gradient for a while; those that are no leaves (as under
    torch.func.functional_call) have stand-ins."""

    def __init__(self, D: nn.Module) -> None:
        held = [(m._parameters, name, p) for m in D.modules() for name, p in m._parameters.items()]
        held = [(own, name, p) for own, name, p in held if p is not None and p.requires_grad]
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
    def forward(ctx, D, graph, *outer):
        ctx.D, (ctx.y, *ctx.inner) = D, graph
        ctx.save_for_backward(*outer)
        return ctx.y.detach()

    @staticmethod
    def backward(ctx, grad):
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
        with frozen(D):
            # Reentrant checkpointing knows backward() only, the rest has no other leaf's gradient to touch.
            if torch.autograd._is_checkpoint_valid():
                y.backward(grad, retain_graph=True)
                grads = [x.grad for x in inner]
                for x in inner:
                    x.grad = None
            else:
                grads = torch.autograd.grad(y, inner, grad, retain_graph=True, allow_unused=True)
        return None, None, *grads


def _differentiable(D, y, inner, outer, grad):
    """The gradients of y by ``inner``, to be differentiated by ``outer`` and by grad."""
    seed = grad.detach().requires_grad_()
    with frozen(D):
        grads = torch.autograd.grad(y, inner, seed, create_graph=True, allow_unused=True)
    return [
        g if g is None or not g.requires_grad else _Joined.apply(D, (g, *inner, seed), *outer, grad)
        for g in grads
    ]
