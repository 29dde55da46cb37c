"""The op inside torch.func's vmap and grad: rules by which the fused kernels run there.

The dim that vmap maps becomes part of the batch. Where the weights are not mapped, but their gradients are,
as in ``vmap(grad(loss), in_dims=(None, 0))``, one backward runs for all samples and the weights' gradients
stay apart: ``groups`` of the batch. Where the weights are mapped too, an ensemble, the kernels run model by
model. What is differentiated twice runs the reference formula.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers

from ... import _backend
from .. import route
from ..differentiate import BATCHED_OR_TANGENT, asked_for
from ..layout import present
from ..spec import Form

_ROWS = 256  # of batches that backward takes at once where vmap maps its gradients alone: jacrev

T = TypeVar("T")
Tensors = Sequence[Tensor | None]
Dims = Sequence[int | None]


class Op(Protocol):
    """What is asked of an op; ``tensors`` are x, h, c, the weights and lengths. As in recurrent.py."""

    name: str
    form: Form
    outputs: int
    keeps_output: bool

    def forward_all(self, direct: bool, relu: bool, tensors: Tensors) -> tuple[Tensor, ...]: ...

    def backward(
        self,
        direct: bool,
        static: tuple[Any, ...],
        tensors: Tensors,
        kept: Sequence[Tensor],
        grads: Tensors,
        wanted: Sequence[bool],
    ) -> Sequence[Tensor]: ...

    def per_group(
        self,
        groups: int,
        relu: bool,
        tensors: Tensors,
        kept: Sequence[Tensor],
        grads: Tensors,
        wanted: Sequence[bool],
    ) -> tuple[Tensor, ...]: ...

    def formula(self, static: tuple[Any, ...], tensors: Tensors) -> tuple[Tensor, ...]: ...


def batch_dims(op: Op) -> tuple[int, int]:
    """Where the batch is: in x, states and outputs; in what is saved for backward."""
    return (1, 2) if op.form.has_lengths else (0, 0)


@dataclass(frozen=True)
class Asked:
    """Of a backward: which of x, h, c and the weights want a gradient; of how many groups the batch is whose
    weights' gradients stay apart, in a dim in front (0: they are added up, and there is no such dim); how
    many tensors are gradients that came in, and how many were kept."""

    op: Op
    relu: bool
    wanted: tuple[bool, ...]
    grads: int
    kept: int
    groups: int = 0

    def split(self, given: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        """(gradients, kept, x and what follows it)."""
        first, second = self.grads, self.grads + self.kept
        return given[:first], given[first:second], given[second:]


class Recurrence(torch.autograd.Function):
    """``apply(op, relu, x, h, c, *weights, lengths)``: the outputs, then what is saved for backward."""

    @staticmethod
    def forward(op: Op, relu: bool, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        return op.forward_all(route.plain(present(tensors)), relu, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        op, ctx.relu, *tensors = inputs
        kept = (*output[:1], *output[op.outputs :]) if op.keeps_output else output[op.outputs :]
        ctx.op, ctx.kept = op, len(kept)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[op.outputs :])
        ctx.save_for_backward(*kept, *tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        op, saved = ctx.op, ctx.saved_tensors
        grads, kept, tensors = grads[: op.outputs], saved[: ctx.kept], saved[ctx.kept :]
        wanted = asked_for(ctx, tensors)
        if not any(wanted) or all(g is None for g in grads):
            return (None,) * (2 + len(tensors))
        asked = Asked(op, ctx.relu, tuple(wanted[:-1]), grads=op.outputs, kept=ctx.kept)
        if route.of_backward(grads, tensors) == route.REFERENCE:
            _backend.note(f"{op.name} under {BATCHED_OR_TANGENT}: the differentiable reference formula runs")
            it = iter(_by_formula(asked, grads, unwrap_dead_wrappers(tensors)))
        else:
            it = iter(Gradient.apply(asked, *grads, *kept, *tensors))
        return (None, None, *[next(it) if w else None for w in wanted])

    @staticmethod
    def vmap(info: Any, in_dims: Dims, op: Op, relu: bool, *tensors: Tensor | None) -> Any:
        n, dims, (at, saved_at) = info.batch_size, in_dims[2:], batch_dims(op)
        if any(d is not None for d in dims[3:-1]):
            return _one_by_one(n, dims, tensors, lambda own: Recurrence.apply(op, relu, *own))
        out = Recurrence.apply(op, relu, *_folded(op, n, dims, tensors))
        where = [at if i < op.outputs else saved_at for i in range(len(out))]
        return tuple(_unfold(t, i, n) for t, i in zip(out, where, strict=True)), tuple(where)


class Gradient(torch.autograd.Function):
    """``apply(asked, *grads, *kept, x, h, c, *weights, lengths)``: the gradients wanted."""

    @staticmethod
    def forward(asked: Asked, *given: Tensor | None) -> tuple[Tensor, ...]:
        grads, kept, tensors = asked.split(given)
        plain, saved = route.plain(present(given)), present(kept)
        with torch._C._DisableAutocast():
            if asked.groups == 0:
                every = (*asked.wanted, False)
                return tuple(asked.op.backward(plain, (asked.relu, 0), tensors, saved, grads, every))
            if not plain:
                return _by_formula(asked, grads, tensors)
            return asked.op.per_group(asked.groups, asked.relu, tensors, saved, grads, asked.wanted)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.asked, *given = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given)

    @staticmethod
    def backward(ctx: Any, *of_gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        asked: Asked = ctx.asked
        _backend.note(f"{asked.op.name} differentiated twice: the differentiable reference formula runs")
        given = unwrap_dead_wrappers(ctx.saved_tensors)
        first, second = asked.grads, asked.grads + asked.kept  # what was kept follows from the rest
        need = [n and not first <= i < second for i, n in enumerate(ctx.needs_input_grad[1:])]
        some = [g is not None for g in of_gradients]
        if not any(need) or not any(some):
            return (None,) * (1 + len(given))

        def gradients(*own: Tensor) -> tuple[Tensor, ...]:
            it = iter(own)
            every = [next(it) if n else t for n, t in zip(need, given, strict=True)]
            grads, _, tensors = asked.split(every)
            return tuple(compress(_by_formula(asked, grads, tensors), some))

        back = torch.func.vjp(gradients, *compress(given, need))[1]
        it = iter(back(tuple(compress(of_gradients, some))))
        return (None, *[next(it) if n else None for n in need])

    @staticmethod
    def vmap(info: Any, in_dims: Dims, asked: Asked, *given: Tensor | None) -> Any:
        n, op, dims, (at, saved_at) = info.batch_size, asked.op, in_dims[1:], batch_dims(asked.op)
        of_grads, of_kept, of_tensors = asked.split(dims)
        grads, kept, tensors = asked.split(given)
        if any(d is not None for d in of_tensors[3:-1]):
            return _one_by_one(n, dims, given, lambda own: Gradient.apply(asked, *own))
        x = tensors[0]
        assert x is not None
        rows = _ROWS // max(1, x.shape[-2])
        if n > max(1, rows) and all(d is None for d in (*of_kept, *of_tensors)):
            return _in_parts(max(1, rows), n, dims, given, lambda m, own: Gradient.vmap(
                info._replace(batch_size=m), in_dims, asked, *own
            ))  # fmt: skip
        places = [at if op.keeps_output and i == 0 else saved_at for i in range(len(kept))]
        groups = max(1, asked.groups) * n if any(asked.wanted[3:]) else 0
        out = Gradient.apply(
            replace(asked, groups=groups),
            *(_fold(t, d, at, n) for t, d in zip(grads, of_grads, strict=True)),
            *(_fold(t, d, i, n) for t, d, i in zip(kept, of_kept, places, strict=True)),
            *_folded(op, n, of_tensors, tensors),
        )
        inputs = sum(asked.wanted[:3])
        split = [_unfold(t, at, n) for t in out[:inputs]]
        apart = [t.unflatten(0, (n, -1)) if asked.groups else t for t in out[inputs:]]
        return (*split, *apart), (*[at] * inputs, *[0] * len(apart))


def _fold(t: Tensor | None, dim: int | None, batch: int, n: int) -> Tensor | None:
    """t with vmap's dim, of n, in front of its batch's and the two as one; without such a dim, n times t."""
    if t is None:
        return None
    if dim is None:
        t = t.unsqueeze(batch)
        t = t.expand(*t.shape[:batch], n, *t.shape[batch + 1 :])
    else:
        t = t.movedim(dim, batch)
    return t.flatten(batch, batch + 1)


def _folded(op: Op, n: int, dims: Dims, tensors: Tensors) -> Iterable[Tensor | None]:
    """x, h, c and lengths with vmap's dim in their batch; the weights, which have none, as they are."""
    at, _ = batch_dims(op)
    inputs = (_fold(t, d, at, n) for t, d in zip(tensors[:3], dims[:3], strict=True))
    lengths = _fold(tensors[-1], dims[-1], 0, n)
    # of one sequence, n times the same: flatten gives a view that does not step
    return (*inputs, *tensors[3:-1], lengths if lengths is None else lengths.contiguous())


def _unfold(t: Tensor, batch: int, n: int) -> Tensor:
    made: Tensor = t.unflatten(batch, (n, t.shape[batch] // n if n else 0))
    return made


def _one_by_one(
    n: int, dims: Dims, tensors: Tensors, run: Callable[[list[Tensor | None]], Sequence[Tensor]]
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """What ``run`` gives of each place of vmap's dim."""
    given = [
        run([t if d is None or t is None else t.select(d, i) for t, d in zip(tensors, dims, strict=True)])
        for i in range(n)
    ]
    out = tuple(torch.stack(same) for same in zip(*given, strict=True))
    return out, (0,) * len(out)


def _in_parts(
    size: int, n: int, dims: Dims, tensors: Tensors, run: Callable[[int, list[Tensor | None]], Any]
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """The same, ``size`` places at once: ``run(how many, tensors)`` gives tensors and their dims."""
    parts = []
    for first in range(0, n, size):
        m = min(size, n - first)
        own = [
            t if d is None or t is None else t.narrow(d, first, m) for t, d in zip(tensors, dims, strict=True)
        ]
        out, places = run(m, own)
        parts.append(out)
    return tuple(torch.cat(same, d) for same, d in zip(zip(*parts, strict=True), places, strict=True)), places


def _by_formula(asked: Asked, grads: Tensors, tensors: Tensors) -> tuple[Tensor, ...]:
    """The gradients wanted, by the op's formula and differentiable."""
    op, some = asked.op, [g is not None for g in grads]

    def of_one(grads: Tensors, tensors: Tensors) -> tuple[Tensor, ...]:
        def formula(*own: Tensor) -> tuple[Tensor, ...]:
            it = iter(own)
            every = [next(it) if w else t for w, t in zip((*asked.wanted, False), tensors, strict=True)]
            return tuple(compress(op.formula((asked.relu, 0), every), some))

        back = torch.func.vjp(formula, *compress(tensors, (*asked.wanted, False)))[1]
        got: tuple[Tensor, ...] = back(tuple(g for g in grads if g is not None))
        return got

    if not asked.groups:
        return of_one(grads, tensors)
    n, (at, _) = asked.groups, batch_dims(op)

    def apart(t: Tensor | None, batch: int) -> Tensor | None:
        return None if t is None else _unfold(t, batch, n)

    x, h, c, *weights, lengths = tensors
    split = [*(apart(t, at) for t in (x, h, c)), *weights, apart(lengths, 0)]
    dims = [*(None if t is None else at for t in (x, h, c)), *[None] * len(weights)]
    inputs = sum(asked.wanted[:3])
    out_dims = (*[at] * inputs, *[0] * sum(asked.wanted[3:]))
    out = torch.func.vmap(
        of_one,
        in_dims=([at if s else None for s in some], [*dims, None if lengths is None else 0]),
        out_dims=out_dims,
    )([apart(g, at) for g in grads], split)
    return (*(t.flatten(at, at + 1) for t in out[:inputs]), *out[inputs:])
