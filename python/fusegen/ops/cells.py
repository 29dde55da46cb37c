"""torch.ops.fusegen.lstm_cell, gru_cell and rnn_cell: one step, and its gradient. Kernels of their own, not
sequences of one. The shapes are those of ``fusegen.ops.functional``; what is saved is as in layers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import _C, _backend
from . import checks, layers, route, torch_path
from .cuda import cells as cuda_cells
from .cuda.engine import ENGINE
from .layout import dense, dense_all, empty_grads, present, rows, wider
from .recurrent import Call, Outputs, Passes, RecurrentOp, Weights, ops_of
from .spec import CELL, WEIGHTS_OF_A_CELL, CellSpec
from .transform.per_sample import Gates

_threads = torch.get_num_threads


def empty_outputs(spec: CellSpec) -> Callable[[Tensor, Weights, bool], Outputs]:
    """A function that gives (h_out, c_out, gates, cells) of a step (x, weights, train), not yet written; None
    for what there is not. ``cells`` is c in float32 at least, apart from c_out, which users may change."""
    what, has_c, saves = f"{spec.name}_cell", len(spec.states) == 2, bool(spec.saved)

    def empty(x: Tensor, weights: Weights, train: bool) -> Outputs:
        B, H = x.shape[0], checks.recurrent_weight(what, weights, WEIGHTS_OF_A_CELL).shape[1]
        gates = x.new_empty(B, 4 * H) if train and saves else None
        if not has_c:
            return x.new_empty(B, H), None, gates, None
        cells = x.new_empty(B, H, dtype=wider(x.dtype)) if train else None
        return x.new_empty(B, H), x.new_empty(B, H), gates, cells

    return empty


def passes(spec: CellSpec) -> Passes:
    """The cell's op on the CPU."""
    names, empty = spec.engine_names, empty_outputs(spec)

    def forward(
        x: Tensor,
        h: Tensor | None,
        c: Tensor | None,
        weights: Weights,
        relu: bool,
        lengths: None,
        packed: Sequence[Tensor] | None,
        train: bool,
    ) -> Outputs:
        h_out, c_out, gates, cells = out = empty(x, weights, train)
        _C.cell_forward(
            names[relu], rows(x), dense(h), c if c is None else dense(c), dense_all(weights), h_out, c_out,
            gates, cells, packed, _threads(),
        )  # fmt: skip
        return out

    def backward(
        call: Call, kept: Outputs, grads: Sequence[Tensor | None], wanted: Sequence[bool]
    ) -> list[Tensor]:
        x, h, c, weights, relu, *_ = call
        dx, dh_in, dc_in, *dweights = out = empty_grads((x, h, c, *weights), wanted)
        (dh, dc), (h_out, gates, cells) = grads, kept
        _C.cell_backward(
            names[relu], dense(dh), dense(dc), rows(x), dense(h), dense(c), dense_all(weights), h_out, gates,
            cells, dx, dh_in, dc_in, dweights, _threads(),
        )  # fmt: skip
        return present(out)

    def gate_gradients(
        call: Call, kept: Outputs, grads: Sequence[Tensor | None], wanted: Sequence[bool]
    ) -> Gates:
        x, h, c, weights, relu, *_ = call
        (dh, dc), (h_out, gates, cells) = grads, kept
        x, h, c, dh, dc, h_out = (_stacked(t) for t in (x, h, c, dh, dc, h_out))
        of_layer = (*weights, *[None] * (len(spec.weights) - WEIGHTS_OF_A_CELL))
        saved = (h_out, _stacked(_stacked(gates)), _stacked(_stacked(cells)))
        of = layers.passes(spec).gate_gradients(
            (x, h, c, of_layer, relu, None, None), saved, (dh, None, dc), wanted
        )
        dx, dh0, dc0 = (t if t is None else t.squeeze(0) for t in of[:3])
        return Gates(dx, dh0, dc0, of.dgates, None)

    return Passes(forward, backward, gate_gradients)


def _stacked(t: Tensor | None) -> Tensor | None:
    """A step as a sequence of one."""
    return t if t is None else t.unsqueeze(0)


OPS = ops_of(CELL, cpu=passes, cuda=partial(cuda_cells.passes, ENGINE), shapes=empty_outputs)


def straight(
    op: RecurrentOp, x: Tensor, h: Tensor | None, c: Tensor | None, weights: Weights, relu: bool
) -> Any:
    """A step of x [B, I] for inference on the CPU when nobody looks on: h, or (h, c), without torch's
    dispatcher. None where that is not all there is to it, or where the engine does not take the arguments:
    ``run`` does then, or says why not."""
    if not (route.is_plain_inference((x, h, c, *weights)) and x.is_cpu and _backend.always_fused(op.name)):
        return None
    spec = op.spec
    try:
        B, H = x.shape[0], weights[1].shape[-1]  # type: ignore[union-attr]
        h_out = x.new_empty(B, H)
        c_out = x.new_empty(B, H) if len(spec.states) == 2 else None
        _C.cell_forward(
            spec.engine_names[relu], x, h, c, weights, h_out, c_out, None, None, None, _threads()
        )  # fmt: skip
    except (TypeError, ValueError, IndexError, RuntimeError, BufferError):
        return None
    return h_out if c_out is None else (h_out, c_out)


def run(
    op: RecurrentOp,
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    weights: Weights,
    relu: bool = False,
    packed: Callable[[], Sequence[Sequence[Tensor]]] | None = None,
    tap: layers.Tap | None = None,
) -> Any:
    """One step by what the backend says: h, or (h, c). x [B, I]; ``packed`` gives the weights packed, as of
    the only layer of a stack, if the fused kernel runs; ``tap``: as of a stack of layers."""
    if tap is not None:
        return tap(op)(x, h, c, weights, relu)
    if _backend.use_torch(op.name, op.spec.gates, x, (h, c), weights):
        return torch_path.cell(op.spec.engine_name(relu), x, (h, c), weights)
    return op(x, h, c, weights, relu, None, packed()[0] if packed else None)
