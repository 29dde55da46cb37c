"""Runs an op of ``fusegen.ops`` on its fused kernels as in training, and hands out what they save.

Where gradients are recorded, that is read off the op's own autograd node; where not, the training pass runs
alone. Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ... import _backend
from ..._inside import Inside
from ...ops import route
from ...ops.normalised import formula
from ...ops.normalised.op import NormalisedOp
from ...ops.normalised.passes import PER, Call
from ...ops.recurrent import RecurrentOp
from .calls import LayerCall, Made

GATES = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n"), "rnn": ()}


def check_kernels(name: str, x: Tensor) -> None:
    """Raises RuntimeError where no fused kernel runs a call that kernels can be seen in."""
    if torch.compiler.is_compiling():
        raise RuntimeError(
            "fusegen.inspect: torch.compile's graphs cannot be looked into; call the model itself"
        )
    if _backend.get_backend() == "torch":
        raise RuntimeError(
            "fusegen.inspect: expected the backend 'auto' or 'fused', got 'torch', which gives no gates"
        )
    if torch._C._get_tracing_state() is not None:
        raise RuntimeError("fusegen.inspect: torch.jit.trace cannot be looked into; call the model itself")
    if lacking := "" if x.is_cpu else _backend.missing(x.device.type, x.dtype):
        raise RuntimeError(f"fusegen.inspect: {name} gives no gates here: {lacking}")
    route.check_without_op("fusegen.inspect", [x])


def straight(
    op: Any,
    x: Any,
    h: Tensor | None = None,
    c: Tensor | None = None,
    weights: Sequence[Tensor | None] = (),
    relu: bool = False,
    lengths: Tensor | None = None,
    packed: None = None,
    inside: Inside | None = None,
    recompute: int = 0,
) -> tuple[Any, Tensor, Sequence[Tensor]] | None:
    """Makes a call of a ``RecurrentOp``, by its own arguments, where nothing stands between them and a kernel
    of the CPU: a ``LayerCall`` costs more than a small layer does. Gives the outputs, the first of them, and
    what is saved beside it: gates and cells, as ``Made`` has them (of a cell without T and D). None where
    that is not all: nothing has run then."""
    if type(op) is not RecurrentOp or inside is not None:
        return None
    tensors = (x, h, c, *weights)
    if route.of_call(tensors) or not x.is_cpu or route._tracing() is not None:
        return None
    if _backend.get_backend() == "torch":
        return None
    try:
        if route._grad_enabled() and route._any_requires_grad(*tensors):
            out = op._apply_directly(True, (relu, 0), *tensors, lengths)
            y: Tensor = out if op.outputs == 1 else out[0]
            node: Any = y.grad_fn
            return out, y, node.saved_tensors[op.keeps_output : node.kept]
        made = op.directly(x).forward(x, h, c, weights, relu, lengths, None, True)
        return made[0] if op.outputs == 1 else made[: op.outputs], made[0], made[op._saved]
    except (ValueError, RuntimeError, BufferError):
        op._check(x, h, c, weights)
        raise


def plain_call(op: RecurrentOp, *args: Any) -> LayerCall:
    """Of the arguments of ``RecurrentOp.__call__``, a layer's or a cell's."""
    x, h, c, weights, relu = args[:5]
    lengths, _, inside = (*args[5:8], None, None, None)[:3]
    check_kernels(op.name, x)
    has_c = len(op.spec.states) == 2
    R = weights[1]
    sizes = (R.shape[1], R.shape[0] // op.spec.gates)
    if not op.form.has_lengths:
        h, c = (None if s is None else s.unsqueeze(0) for s in (h, c))
        run = partial(_run_cell, op, relu)
        return LayerCall(
            run, x.unsqueeze(0), h, c, weights, per=len(weights), names=GATES[op.spec.name], has_c=has_c,
            sizes=sizes,
        )  # fmt: skip
    rest = Inside() if inside is None else inside
    run = partial(_run_layer, op, relu, rest)
    return LayerCall(
        run, x, h, c, weights, per=len(op.spec.weights), names=GATES[op.spec.name], has_c=has_c, sizes=sizes,
        lengths=lengths, resets=rest.resets, reset_h=rest.reset_h, reset_c=rest.reset_c,
        draws=rest.training and bool(rest.rates),
    )  # fmt: skip


def normalised_call(op: NormalisedOp, call: Call) -> LayerCall:
    """Of the argument of ``NormalisedOp.__call__``."""
    check_kernels(op.name, call.x)
    if not call.x.is_cpu:
        raise RuntimeError(f"fusegen.inspect: {op.name} gives no gates on a GPU, which has no kernels of it")
    R = call.weights[1]
    assert R is not None
    H = R.shape[0] // op.spec.gates
    return LayerCall(
        partial(_run_normalised, op, call), call.x, call.h0, call.c0, call.weights, per=PER,
        names=GATES[op.spec.name], has_c=op.states == 2, sizes=(H, H), lengths=call.lengths,
        resets=call.resets, reset_h=call.reset_h, reset_c=call.reset_c,
    )  # fmt: skip


def _run_layer(op: RecurrentOp, relu: bool, rest: Inside, call: LayerCall) -> Made:
    inside = rest._replace(resets=call.resets, reset_h=call.reset_h, reset_c=call.reset_c)
    asked = inside if inside.resets is not None or any(inside.rates) else None
    given = (call.x, call.h, call.c, call.weights, relu, call.lengths, asked)
    outputs, (_, gates, cells) = _run_recurrent(op, given)
    y, *states = outputs
    gates = gates if op.spec.saved else None  # an RNN's are h before zoneout
    if call.lengths is not None and call.x.is_cuda:  # kernels of a GPU write nothing there
        past = torch.arange(call.x.shape[0], device=y.device).unsqueeze(1) >= call.lengths.to(y.device)
        gates, cells = (None if t is None else t.masked_fill(past.unsqueeze(-1), 0) for t in (gates, cells))
    return Made(y, tuple(states), gates, cells)


def _run_cell(op: RecurrentOp, relu: bool, call: LayerCall) -> Made:
    h, c = (None if s is None else s[0] for s in (call.h, call.c))
    outputs, (_, gates, cells) = _run_recurrent(op, (call.x[0], h, c, call.weights, relu, None, None))
    states = tuple(s.unsqueeze(0) for s in outputs)
    gates, cells = (None if t is None else t.view(1, 1, *t.shape) for t in (gates, cells))
    return Made(states[0], states, gates, cells)


def _run_recurrent(op: RecurrentOp, call: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """The op's outputs, and (first output, gates, cells) as backward has them."""
    x, h, c, weights, relu, lengths, inside = call
    starts = () if inside is None else (inside.reset_h, inside.reset_c)
    tensors = (x, h, c, *weights, *starts)
    way = route.of_call(tensors)
    _check_way(op.name, way)
    if _backend.needs_grad(*tensors):
        more = () if inside is None else (inside,)
        out = op(x, h, c, weights, relu, lengths, None, *more)
        outputs = (out,) if isinstance(out, Tensor) else out
        return outputs, op._all_kept(_kept(op.name, outputs[0])[: op._kept])
    if way == route.DIRECT:
        op._check(x, h, c, weights)
        more = () if inside is None else (inside,)
        made = op.directly(x).forward(x, h, c, weights, relu, lengths, None, True, *more)
        return made[: op.outputs], op._all_kept(_with_output(op, made[0], made[op._saved]))
    dtype = _backend.autocast_dtype(x)
    if dtype is not None and x.dtype != torch.float64:  # as the op's own rule for autocast casts
        x, h, c, *weights = (None if t is None else t.to(dtype) for t in (x, h, c, *weights))
        if inside is not None:
            h_new, c_new = (None if s is None else s.to(dtype) for s in starts)
            inside = inside._replace(reset_h=h_new, reset_c=c_new)
    op._check(x, h, c, weights)
    with torch._C._DisableAutocast():
        given = op.train_op(*op._arguments((x, h, c, weights, relu, lengths, inside)))
    given = (given,) if isinstance(given, Tensor) else given
    outputs = list(given[: op.outputs])
    if dtype is not None and call[0].dtype != torch.float64 and len(op.spec.states) == 2:
        outputs[-1] = outputs[-1].to(call[0].dtype)  # c keeps its dtype
    saved = given[op.outputs :] if op.spec.saved else ()
    return outputs, op._all_kept(_with_output(op, given[0], saved))


def _with_output(op: RecurrentOp, first: Tensor, saved: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (first, *saved) if op.keeps_output else tuple(saved)


def _run_normalised(op: NormalisedOp, given: Call, call: LayerCall) -> Made:
    now = given._replace(
        x=call.x, h0=call.h, c0=call.c, weights=call.weights, lengths=call.lengths, resets=call.resets,
        reset_h=call.reset_h, reset_c=call.reset_c,
    )  # fmt: skip
    way = route.of_call(now.tensors)
    _check_way(op.name, way)
    names = op._saved_names
    states: Sequence[Tensor]
    saved: Sequence[Tensor]
    if _backend.needs_grad(*now.tensors):
        y, *states = op(now)
        saved = _kept(op.name, y)[1 : 1 + len(names)]
    elif way == route.DIRECT:
        op._check(now)
        y, *rest = op._all(op.directly(now.x).forward(op.spec, now, True))
        states, saved = rest[: op.states], rest[op.states :]
    else:
        cast = _backend.autocast_dtype(now.x)
        if cast is not None and now.x.dtype != torch.float64:
            x, h0, c0, *weights, reset_h, reset_c = (None if t is None else t.to(cast) for t in now.tensors)
            assert x is not None
            now = now._replace(x=x, h0=h0, c0=c0, weights=weights, reset_h=reset_h, reset_c=reset_c)
        with torch._C._DisableAutocast():
            y, *rest = op.train_op(*op._arguments(now))
        states, saved = rest[: op.states], rest[op.states :]
        if op.states == 2:
            states = [states[0], states[1].to(call.x.dtype)]
    of = dict(zip(names, saved, strict=True))
    return Made(y, tuple(states), _gates_of(given.kind, call, of.get("saved")), of.get("cells"))


def _gates_of(kind: formula.Kind, call: LayerCall, saved: Tensor | None) -> Tensor | None:
    """The reference's: of Ba's and Dreamer's GRU, kernels save what keeps the old state, which is 1 - z."""
    if saved is None:
        return None
    H = call.sizes[1]
    gates = saved[..., : 4 * H].detach()
    if kind.cell == "gru" and kind.norm in ("ba", "dreamer"):
        r, keep, rest = gates.split([H, H, 2 * H], -1)
        z = 1 - keep
        if call.lengths is not None:
            past = torch.arange(z.shape[1]).unsqueeze(1) >= call.lengths.cpu()
            z = z.masked_fill(past.unsqueeze(-1), 0)
        return torch.cat([r, z, rest], -1)
    return gates


def _check_way(name: str, way: int) -> None:
    if way in (route.REFERENCE, route.MAPPED):
        raise RuntimeError(
            f"fusegen.inspect: {name} cannot be looked into under torch.func or forward-mode differentiation"
        )


def _kept(name: str, y: Tensor) -> tuple[Tensor, ...]:
    """What the op's autograd node, which made y, saved for backward before its arguments."""
    node: Any = y.grad_fn
    if getattr(getattr(node, "_forward_cls", None), "__name__", "") != f"fusegen_{name}":
        raise RuntimeError(f"fusegen.inspect: expected {name} to be run by its own autograd function")
    kept: tuple[Tensor, ...] = node.saved_tensors[: node.kept]
    return kept


def as_outputs(call: LayerCall, made: Made, cell: bool) -> Any:
    """As the op gives them; ``cell``: a step without the dim of directions."""
    if not cell:
        return (made.y, *made.states)
    states = tuple(s.squeeze(0) for s in made.states)
    return states if len(states) > 1 else states[0]
