"""torch.ops.fusegen.lstm_cell, gru_cell and rnn_cell: one step, and its gradient. Kernels of their own, not
sequences of one. The shapes are those of ``fusegen.ops.functional``; what is saved is as in recurrent.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _C, reference
from . import _common as c
from . import gpu, gpu_cells
from ._op import Kernel, Op

_threads = torch.get_num_threads


def _present(grads):
    return [g for g in grads if g is not None]


def _state(x: Tensor, weights) -> Tensor:
    return x.new_empty(x.shape[0], c.recurrent_weight("cell", weights, 4).shape[1])


def _gates(x: Tensor, weights) -> Tensor:
    return x.new_empty(x.shape[0], 4 * weights[1].shape[1])


# ---------------------------------------------------------------- LSTM


def _cells(x: Tensor, weights) -> Tensor:
    """Where a call keeps c for backward, in float32 at least, apart from c_out, which users may change."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty(x.shape[0], weights[1].shape[1], dtype=wide)


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
    gates, cells = _gates(x, weights), _cells(x, weights)
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
    return h_out, c_out, gates, cells


def _lstm_cell_backward(dh, dc, x, h, cell, weights, gates, cells, wanted):
    dx, dh_in, dc_in, *dweights = grads = c.empty_grads((x, h, cell, *weights), wanted)
    _C.lstm_cell_backward(
        c.dense(dh), c.dense(dc), c.rows(x), c.dense(h), c.dense(cell), c.dense_all(weights), gates, cells,
        dx, dh_in, dc_in, dweights, _threads(),
    )  # fmt: skip
    return _present(grads)


def _lstm_cell_cuda(x, h, cell, weights, packed=None):
    return gpu_cells.forward(gpu.LSTM, x, h, cell, weights, False, False)[:2]


def _lstm_cell_train_cuda(x, h, cell, weights):
    return gpu_cells.forward(gpu.LSTM, x, h, cell, weights, False, True)


def _lstm_cell_backward_cuda(dh, dc, x, h, cell, weights, gates, cells, wanted):
    return gpu_cells.backward(gpu.LSTM, dh, dc, x, (h, cell), weights, (None, gates, cells), False, wanted)


lstm_cell = Op(
    "lstm_cell",
    Kernel(
        "(Tensor x, Tensor? h, Tensor? c, Tensor?[] weights, Tensor[]? packed=None)"
        " -> (Tensor h_out, Tensor c_out)",
        _lstm_cell,
        lambda x, h, cell, weights, packed=None: (_state(x, weights), _state(x, weights)),
        _lstm_cell_cuda,
    ),
    Kernel(
        "(Tensor x, Tensor? h, Tensor? c, Tensor?[] weights)"
        " -> (Tensor h_out, Tensor c_out, Tensor gates, Tensor cells)",
        _lstm_cell_train,
        lambda x, h, cell, weights: (
            _state(x, weights),
            _state(x, weights),
            _gates(x, weights),
            _cells(x, weights),
        ),
        _lstm_cell_train_cuda,
    ),
    Kernel(
        "(Tensor? dh, Tensor? dc, Tensor x, Tensor? h, Tensor? c, Tensor?[] weights, Tensor gates,"
        " Tensor cells, bool[] wanted) -> Tensor[]",
        _lstm_cell_backward,
        lambda dh, dc, x, h, cell, weights, gates, cells, wanted: _present(
            c.empty_grads((x, h, cell, *weights), wanted)
        ),
        _lstm_cell_backward_cuda,
    ),
    reference.lstm_cell,
    n=3,
    per=4,
    keep=(2, 3),
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


def _gru_cell_backward(dh, x, h, weights, gates, wanted):
    dx, dh_in, *dweights = grads = c.empty_grads((x, h, *weights), wanted)
    _C.gru_cell_backward(
        c.dense(dh),
        c.rows(x),
        c.dense(h),
        c.dense_all(weights),
        gates,
        dx,
        dh_in,
        dweights,
        _threads(),
    )
    return _present(grads)


def _gru_cell_cuda(x, h, weights, packed=None):
    return gpu_cells.forward(gpu.GRU, x, h, None, weights, False, False)[0]


def _gru_cell_train_cuda(x, h, weights):
    h_out, _, gates, _ = gpu_cells.forward(gpu.GRU, x, h, None, weights, False, True)
    return h_out, gates


def _gru_cell_backward_cuda(dh, x, h, weights, gates, wanted):
    return gpu_cells.backward(gpu.GRU, dh, None, x, (h,), weights, (None, gates, None), False, wanted)


gru_cell = Op(
    "gru_cell",
    Kernel(
        "(Tensor x, Tensor? h, Tensor?[] weights, Tensor[]? packed=None) -> Tensor",
        _gru_cell,
        lambda x, h, weights, packed=None: _state(x, weights),
        _gru_cell_cuda,
    ),
    Kernel(
        "(Tensor x, Tensor? h, Tensor?[] weights) -> (Tensor h_out, Tensor gates)",
        _gru_cell_train,
        lambda x, h, weights: (_state(x, weights), _gates(x, weights)),
        _gru_cell_train_cuda,
    ),
    Kernel(
        "(Tensor dh, Tensor x, Tensor? h, Tensor?[] weights, Tensor gates, bool[] wanted) -> Tensor[]",
        _gru_cell_backward,
        lambda dh, x, h, weights, gates, wanted: _present(c.empty_grads((x, h, *weights), wanted)),
        _gru_cell_backward_cuda,
    ),
    reference.gru_cell,
    n=2,
    per=4,
    keep=(1,),
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


def _rnn_cell_cuda(x, h, weights, relu, packed=None):
    return gpu_cells.forward(gpu.RNN, x, h, None, weights, relu, False)[0]


def _rnn_cell_backward_cuda(dh, x, h, weights, relu, h_out, wanted):
    return gpu_cells.backward(gpu.RNN, dh, None, x, (h,), weights, (h_out, None, None), relu, wanted)


rnn_cell = Op(
    "rnn_cell",
    Kernel(
        "(Tensor x, Tensor? h, Tensor?[] weights, bool relu, Tensor[]? packed=None) -> Tensor",
        _rnn_cell,
        lambda x, h, weights, relu, packed=None: _state(x, weights),
        _rnn_cell_cuda,
    ),
    None,
    Kernel(
        "(Tensor dh, Tensor x, Tensor? h, Tensor?[] weights, bool relu, Tensor h_out, bool[] wanted)"
        " -> Tensor[]",
        _rnn_cell_backward,
        lambda dh, x, h, weights, relu, h_out, wanted: _present(c.empty_grads((x, h, *weights), wanted)),
        _rnn_cell_backward_cuda,
    ),
    reference.rnn_cell,
    n=2,
    per=4,
    keep=(0,),
)
