"""torch.ops.fusegen.lstm_cell, gru_cell and rnn_cell: one step, and its gradient. Kernels of their own, not
sequences of one. The shapes are those of ``fusegen.ops.functional``; what is saved is as in recurrent.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _C, reference
from . import _common as c
from ._op import Kernel, Op

_threads = torch.get_num_threads


def _present(grads):
    return [g for g in grads if g is not None]


def _state(x: Tensor, weights) -> Tensor:
    return x.new_empty(x.shape[0], c.recurrent_weight("cell", weights, 4).shape[1])


def _gates(x: Tensor, weights) -> Tensor:
    return x.new_empty(x.shape[0], 4 * weights[1].shape[1])


# ---------------------------------------------------------------- LSTM


def _wide_cells(x: Tensor, weights) -> Tensor:
    """Where a 16-bit call keeps c in float32 for backward; empty for the others, whose c_out is wide
    enough."""
    if x.dtype.itemsize == 2:
        return x.new_empty(x.shape[0], weights[1].shape[1], dtype=torch.float32)
    return x.new_empty(0)


def _lstm_cell(x, h, cell, weights, packed=None):
    h_out, c_out = _state(x, weights), _state(x, weights)
    _C.lstm_cell_forward(
        c.rows(x),
        c.dense(h),
        c.dense(cell),
        c.dense_all(weights),
        h_out,
        c_out,
        None,
        None,
        packed,
        _threads(),
    )
    return h_out, c_out


def _lstm_cell_train(x, h, cell, weights):
    h_out, c_out = _state(x, weights), _state(x, weights)
    gates, wide = _gates(x, weights), _wide_cells(x, weights)
    cells = wide if wide.dim() == 2 else c_out
    _C.lstm_cell_forward(
        c.rows(x),
        c.dense(h),
        c.dense(cell),
        c.dense_all(weights),
        h_out,
        c_out,
        gates,
        cells,
        None,
        _threads(),
    )
    return h_out, c_out, gates, wide


def _lstm_cell_backward(dh, dc, x, h, cell, weights, c_out, gates, wide, wanted):
    dx, dh_in, dc_in, *dweights = grads = c.empty_grads((x, h, cell, *weights), wanted)
    h_out = c_out  # of one LSTM step only h_out's shape is read, so it is not saved
    cells = wide if wide.dim() == 2 else c_out
    _C.lstm_cell_backward(
        c.dense(dh), c.dense(dc), c.rows(x), c.dense(h), c.dense(cell), c.dense_all(weights), h_out, gates,
        cells, dx, dh_in, dc_in, dweights, _threads(),
    )  # fmt: skip
    return _present(grads)


lstm_cell = Op(
    "lstm_cell",
    Kernel(
        "(Tensor x, Tensor? h, Tensor? c, Tensor?[] weights, Tensor[]? packed=None)"
        " -> (Tensor h_out, Tensor c_out)",
        _lstm_cell,
        lambda x, h, cell, weights, packed=None: (_state(x, weights), _state(x, weights)),
    ),
    Kernel(
        "(Tensor x, Tensor? h, Tensor? c, Tensor?[] weights)"
        " -> (Tensor h_out, Tensor c_out, Tensor gates, Tensor wide)",
        _lstm_cell_train,
        lambda x, h, cell, weights: (
            _state(x, weights),
            _state(x, weights),
            _gates(x, weights),
            _wide_cells(x, weights),
        ),
    ),
    Kernel(
        "(Tensor? dh, Tensor? dc, Tensor x, Tensor? h, Tensor? c, Tensor?[] weights, Tensor c_out,"
        " Tensor gates, Tensor wide, bool[] wanted) -> Tensor[]",
        _lstm_cell_backward,
        lambda dh, dc, x, h, cell, weights, c_out, gates, wide, wanted: _present(
            c.empty_grads((x, h, cell, *weights), wanted)
        ),
    ),
    reference.lstm_cell,
    n=3,
    per=4,
    keep=(1, 2, 3),
    wide=1,
)


# ---------------------------------------------------------------- GRU


def _gru_cell(x, h, weights, packed=None):
    h_out = _state(x, weights)
    _C.gru_cell_forward(c.rows(x), c.dense(h), c.dense_all(weights), h_out, None, packed, _threads())
    return h_out


def _gru_cell_train(x, h, weights):
    h_out, gates = _state(x, weights), _gates(x, weights)
    _C.gru_cell_forward(c.rows(x), c.dense(h), c.dense_all(weights), h_out, gates, None, _threads())
    return h_out, gates


def _gru_cell_backward(dh, x, h, weights, h_out, gates, wanted):
    dx, dh_in, *dweights = grads = c.empty_grads((x, h, *weights), wanted)
    _C.gru_cell_backward(
        c.dense(dh),
        c.rows(x),
        c.dense(h),
        c.dense_all(weights),
        h_out,
        gates,
        dx,
        dh_in,
        dweights,
        _threads(),
    )
    return _present(grads)


gru_cell = Op(
    "gru_cell",
    Kernel(
        "(Tensor x, Tensor? h, Tensor?[] weights, Tensor[]? packed=None) -> Tensor",
        _gru_cell,
        lambda x, h, weights, packed=None: _state(x, weights),
    ),
    Kernel(
        "(Tensor x, Tensor? h, Tensor?[] weights) -> (Tensor h_out, Tensor gates)",
        _gru_cell_train,
        lambda x, h, weights: (_state(x, weights), _gates(x, weights)),
    ),
    Kernel(
        "(Tensor dh, Tensor x, Tensor? h, Tensor?[] weights, Tensor h_out, Tensor gates, bool[] wanted)"
        " -> Tensor[]",
        _gru_cell_backward,
        lambda dh, x, h, weights, h_out, gates, wanted: _present(c.empty_grads((x, h, *weights), wanted)),
    ),
    reference.gru_cell,
    n=2,
    per=4,
    keep=(0, 1),
)


# ---------------------------------------------------------------- RNN


def _rnn_cell(x, h, weights, relu, packed=None):
    h_out = _state(x, weights)
    _C.rnn_cell_forward(c.rows(x), c.dense(h), c.dense_all(weights), relu, h_out, packed, _threads())
    return h_out


def _rnn_cell_backward(dh, x, h, weights, relu, h_out, wanted):
    dx, dh_in, *dweights = grads = c.empty_grads((x, h, *weights), wanted)
    _C.rnn_cell_backward(
        c.dense(dh), c.rows(x), c.dense(h), c.dense_all(weights), relu, h_out, dx, dh_in, dweights, _threads()
    )
    return _present(grads)


rnn_cell = Op(
    "rnn_cell",
    Kernel(
        "(Tensor x, Tensor? h, Tensor?[] weights, bool relu, Tensor[]? packed=None) -> Tensor",
        _rnn_cell,
        lambda x, h, weights, relu, packed=None: _state(x, weights),
    ),
    None,
    Kernel(
        "(Tensor dh, Tensor x, Tensor? h, Tensor?[] weights, bool relu, Tensor h_out, bool[] wanted)"
        " -> Tensor[]",
        _rnn_cell_backward,
        lambda dh, x, h, weights, relu, h_out, wanted: _present(c.empty_grads((x, h, *weights), wanted)),
    ),
    reference.rnn_cell,
    n=2,
    per=4,
    keep=(0,),
)
