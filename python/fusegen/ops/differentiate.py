"""The gradient of an op: its autograd function, which runs the op's own backward kernel, or its formula where
that has to be differentiable again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _backend
from . import route

_NOTHING = torch.empty(0, device="cpu")
BATCHED_OR_TANGENT = "batched gradients or forward-mode differentiation"


Witness = tuple[Tensor, int]  # of an output that may be changed in place: see alias_with_own_version
# Of the forward pass of a call with gradients: the outputs, what backward needs beside the arguments, and a
# witness of the first of that, where it is an output.
Forward = tuple[Sequence[Tensor], Sequence[Tensor], Witness | None]


class Differentiable(ABC):
    """An op with a gradient. ``static`` are the arguments of a call that are no tensors, ``tensors`` the
    others, flat and in the op's order; ``direct``: whether the dispatcher is left out."""

    name: str
    outputs: int  # how many it gives; ``differentiable`` of them, the first ones, have a gradient
    differentiable: int
    direct: Any  # the passes of a direct call, on the CPU
    direct_cuda: Any

    def directly(self, x: Tensor) -> Any:
        """The passes of a direct call on x's device."""
        return self.direct_cuda if x.is_cuda else self.direct

    @abstractmethod
    def forward(self, direct: bool, static: tuple[Any, ...], tensors: Sequence[Tensor | None]) -> Forward: ...

    def run_again(
        self, direct: bool, static: tuple[Any, ...], tensors: Sequence[Tensor | None], kept: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """What was kept, its changed output computed again; of an op whose ``forward`` gives a witness."""
        raise NotImplementedError

    @abstractmethod
    def backward(
        self,
        direct: bool,
        static: tuple[Any, ...],
        tensors: Sequence[Tensor | None],
        kept: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> Sequence[Tensor]:
        """The gradients wanted, one bool for each of ``tensors``."""

    @abstractmethod
    def formula(self, static: tuple[Any, ...], tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """The outputs that have a gradient, in differentiable torch."""

    def possible(self, static: tuple[Any, ...], need: list[bool]) -> list[bool]:
        """``need``, without the tensors that the op has no gradient for."""
        return need


def autograd_function(op: Differentiable) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``apply(direct, static, *tensors)`` of the op's autograd function, for calls that the dispatcher sees
    and for direct ones."""

    one = op.outputs == 1

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, direct: bool, static: tuple[Any, ...], *tensors: Tensor | None) -> Any:
            outputs, kept, ctx.witness = op.forward(direct, static, tensors)
            ctx.static, ctx.kept = static, len(kept)
            ctx.save_for_backward(*kept, *tensors)
            if one:
                return outputs[0]
            ctx.set_materialize_grads(False)
            if op.differentiable < op.outputs:
                ctx.mark_non_differentiable(*outputs[op.differentiable :])
            return tuple(outputs)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            saved = ctx.saved_tensors
            kept, tensors = saved[: ctx.kept], saved[ctx.kept :]
            if op.differentiable < op.outputs:
                grads = grads[: op.differentiable]
            wanted = op.possible(ctx.static, asked_for(ctx, tensors))
            if not any(wanted) or (grads[0] is None and all(g is None for g in grads)):
                return (None,) * (2 + len(tensors))
            way = route.of_backward(grads, tensors)
            if torch.is_grad_enabled() or way in (route.REFERENCE, route.MAPPED):
                got = _formula_gradient(op, ctx.static, tensors, grads, wanted)
            else:
                direct = way == route.DIRECT
                if ctx.witness is not None and ctx.witness[0]._version != ctx.witness[1]:
                    _backend.note(f"{op.name} whose output was changed in place: it runs again for backward")
                    kept = op.run_again(direct, ctx.static, tensors, kept)
                got = op.backward(direct, ctx.static, tensors, kept, grads, wanted)
            it = iter(got)
            return (None, None, *[next(it) if w else None for w in wanted])

    Function.__name__ = Function.__qualname__ = f"fusegen_{op.name}"
    # Python's part of Function.apply only looks for torch.func transforms, which a direct call has none of.
    return Function.apply, super(torch.autograd.Function, Function).apply


def alias_with_own_version(y: Tensor) -> tuple[Tensor, Witness]:
    """An alias of y with a version counter of its own, to be saved without a copy; and a witness, a tensor
    without elements on y's counter, with the count now. Where y is changed in place, as torch.nn allows it,
    autograd does not raise: the witness's count has moved."""
    witness = y.detach()
    if type(y) is Tensor and not y.is_meta:  # else there is no memory to let go of
        witness.data = _NOTHING  # keeps the counter
    return y.data, (witness, witness._version)


def asked_for(ctx: Any, tensors: Sequence[Tensor | None]) -> list[bool]:
    """Which of ``tensors``, the last arguments of ``apply``, this very backward is asked to give a gradient
    for.

    ``ctx.needs_input_grad`` only tells what requires grad; asking the engine saves the weight gradients when
    ``torch.autograd.grad(loss, x)`` wants x alone.
    """
    need = list(ctx.needs_input_grad[-len(tensors) :])
    if torch.compiler.is_compiling():
        return need
    nodes = iter(ctx.next_functions)
    for i, t in enumerate(tensors):
        if t is None:
            continue
        node = next(nodes)[0]
        if need[i]:
            try:
                need[i] = torch._C._will_engine_execute_node(node)
            except RuntimeError:  # raised for a leaf that torch.autograd.grad captures: it is asked for
                need[i] = True
    return need


def _formula_gradient(
    op: Differentiable,
    static: tuple[Any, ...],
    tensors: Sequence[Tensor | None],
    grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> Sequence[Tensor]:
    """The wanted gradients of the op's formula: what backward does under create_graph=True, where they are
    differentiable again, and where ``grads`` are batched or carry tangents, which kernels do not see.

    Each wanted input is replaced by an alias first: where one input was computed from another, the derivative
    must be the partial one.
    """
    again = torch.is_grad_enabled()
    why = "create_graph=True" if again else BATCHED_OR_TANGENT
    _backend.note(f"{op.name} under {why}: the differentiable reference formula runs")
    with torch.enable_grad():
        alias = [t.view_as(t) if w and t is not None else t for t, w in zip(tensors, wanted, strict=True)]
        outputs = op.formula(static, alias)
    given = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None]
    return torch.autograd.grad(
        [o for o, _ in given],
        [t for t, w in zip(alias, wanted, strict=True) if w and t is not None],
        [g for _, g in given],
        create_graph=again,
        materialize_grads=True,
    )
