"""torch.ops.fusegen.lstm_cell, gru_cell and rnn_cell: one step, its gradient. Kernels of their own, not
sequences of one.

As in recurrent.py: the plain op saves nothing, its autograd kernel runs ``*_cell_train``; an RNN cell saves
its output.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _C, _backend, reference
from . import _common as c

_threads = torch.get_num_threads


def _state(x: Tensor, weights) -> Tensor:
    return x.new_empty((x.shape[0], c.recurrent_weight("cell", weights, 4).shape[1]))


def _saved(x: Tensor, weights) -> Tensor:
    return x.new_empty((x.shape[0], 4 * weights[1].shape[1]))


# ---------------------------------------------------------------- LSTM


def _wide_cells(x: Tensor, weights) -> Tensor:
    """Where a 16-bit call keeps c in float32 for backward; empty for the others, whose c_out is wide
    enough."""
    shape = (x.shape[0], weights[1].shape[1]) if x.dtype.itemsize == 2 else (0,)
    return x.new_empty(shape, dtype=torch.float32)


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
    h_out, c_out, gates, wide = (
        _state(x, weights),
        _state(x, weights),
        _saved(x, weights),
        _wide_cells(x, weights),
    )
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
    grads = c.empty_grads((x, h, cell, *weights), wanted)
    h_out = c_out  # of one LSTM step only h_out's shape is read, so it is not saved
    cells = wide if wide.dim() == 2 else c_out
    _C.lstm_cell_backward(
        c.dense(dh),
        c.dense(dc),
        c.rows(x),
        c.dense(h),
        c.dense(cell),
        c.dense_all(weights),
        h_out,
        gates,
        cells,
        grads[0],
        grads[1],
        grads[2],
        grads[3:],
        _threads(),
    )
    return [g for g in grads if g is not None]


class _LSTMCell(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, h, cell, *weights):
        train = _lstm_cell_train if c.route((x, h, cell, *weights)) == c.DIRECT else _lstm_cell_train_op
        h_out, c_out, gates, wide = train(x, h, cell, weights)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(c_out, gates, wide, x, h, cell, *weights)
        return h_out, c_out

    @staticmethod
    def backward(ctx, dh, dc):
        c_out, gates, wide, *inputs = ctx.saved_tensors
        want = c.wanted(ctx, inputs)
        if torch.is_grad_enabled():

            def formula(x, h, cell, *weights):
                return reference.lstm_cell(x, h, cell, weights)

            grads = c.second_order("lstm_cell", formula, inputs, want, (dh, dc))
        else:
            x, h, cell, *weights = inputs
            back = _lstm_cell_backward if c.route((dh, dc, *inputs)) == c.DIRECT else _lstm_cell_backward_op
            grads = back(dh, dc, x, h, cell, weights, c_out, gates, wide, want)
        return c.spread(grads, want, 0)


def _lstm_cell_autograd(x, h, cell, weights, packed=None):
    if c.needs_grad(x, h, cell, *weights):
        return _LSTMCell.apply(x, h, cell, *weights)
    with torch._C._AutoDispatchBelowAutograd():
        return _lstm_cell_op(x, h, cell, weights, packed)


def _lstm_cell_autocast(cast, x, h, cell, weights, packed=None):
    h_out, c_out = _lstm_cell_op(cast(x), cast(h), cast(cell), [cast(w) for w in weights], None)
    return h_out, c_out.to(x.dtype)


_lstm_cell_op = c.register(
    "lstm_cell",
    "(Tensor x, Tensor? h, Tensor? c, Tensor?[] weights, Tensor[]? packed=None) -> (Tensor, Tensor)",
    _lstm_cell,
    lambda x, h, cell, weights, packed=None: (_state(x, weights), _state(x, weights)),
    _lstm_cell_autograd,
)
_lstm_cell_train_op = c.register(
    "lstm_cell_train",
    "(Tensor x, Tensor? h, Tensor? c, Tensor?[] weights) -> (Tensor, Tensor, Tensor, Tensor)",
    _lstm_cell_train,
    lambda x, h, cell, weights: (
        _state(x, weights),
        _state(x, weights),
        _saved(x, weights),
        _wide_cells(x, weights),
    ),
)
_lstm_cell_backward_op = c.register(
    "lstm_cell_backward",
    "(Tensor? dh, Tensor? dc, Tensor x, Tensor? h, Tensor? c, Tensor?[] weights, Tensor c_out,"
    " Tensor gates, Tensor wide, bool[] wanted) -> Tensor[]",
    _lstm_cell_backward,
    lambda dh, dc, x, h, cell, weights, c_out, gates, wide, wanted: [
        g for g in c.empty_grads((x, h, cell, *weights), wanted) if g is not None
    ],
)
c.autocast("lstm_cell", "cpu", _lstm_cell_autocast)


def lstm_cell_step(x, h, cell, weights, packed=None):
    """``lstm_cell`` for arguments already checked; ``packed`` is a list of one blob of ``_C.pack``."""
    way = c.route((x, h, cell, *weights))
    if way == c.DIRECT:
        if c.needs_grad(x, h, cell, *weights):
            return _LSTMCell.apply(x, h, cell, *weights)
        return _lstm_cell(x, h, cell, weights, packed)
    if way == c.DISPATCH:
        return _lstm_cell_op(x, h, cell, weights, packed)
    _backend.note("lstm_cell under torch.func or forward-mode differentiation: the reference formula runs")
    return reference.lstm_cell(x, h, cell, weights)


# ---------------------------------------------------------------- GRU


def _gru_cell(x, h, weights, packed=None):
    h_out = _state(x, weights)
    _C.gru_cell_forward(c.rows(x), c.dense(h), c.dense_all(weights), h_out, None, packed, _threads())
    return h_out


def _gru_cell_train(x, h, weights):
    h_out, gates = _state(x, weights), _saved(x, weights)
    _C.gru_cell_forward(c.rows(x), c.dense(h), c.dense_all(weights), h_out, gates, None, _threads())
    return h_out, gates


def _gru_cell_backward(dh, x, h, weights, h_out, gates, wanted):
    grads = c.empty_grads((x, h, *weights), wanted)
    _C.gru_cell_backward(
        c.dense(dh),
        c.rows(x),
        c.dense(h),
        c.dense_all(weights),
        h_out,
        gates,
        grads[0],
        grads[1],
        grads[2:],
        _threads(),
    )
    return [g for g in grads if g is not None]


class _GRUCell(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, h, *weights):
        train = _gru_cell_train if c.route((x, h, *weights)) == c.DIRECT else _gru_cell_train_op
        h_out, gates = train(x, h, weights)
        ctx.save_for_backward(h_out, gates, x, h, *weights)
        return h_out

    @staticmethod
    def backward(ctx, dh):
        h_out, gates, *inputs = ctx.saved_tensors
        want = c.wanted(ctx, inputs)
        if torch.is_grad_enabled():

            def formula(x, h, *weights):
                return (reference.gru_cell(x, h, weights),)

            grads = c.second_order("gru_cell", formula, inputs, want, (dh,))
        else:
            x, h, *weights = inputs
            back = _gru_cell_backward if c.route((dh, *inputs)) == c.DIRECT else _gru_cell_backward_op
            grads = back(dh, x, h, weights, h_out, gates, want)
        return c.spread(grads, want, 0)


def _gru_cell_autograd(x, h, weights, packed=None):
    if c.needs_grad(x, h, *weights):
        return _GRUCell.apply(x, h, *weights)
    with torch._C._AutoDispatchBelowAutograd():
        return _gru_cell_op(x, h, weights, packed)


def _gru_cell_autocast(cast, x, h, weights, packed=None):
    return _gru_cell_op(cast(x), cast(h), [cast(w) for w in weights], None)


_gru_cell_op = c.register(
    "gru_cell",
    "(Tensor x, Tensor? h, Tensor?[] weights, Tensor[]? packed=None) -> Tensor",
    _gru_cell,
    lambda x, h, weights, packed=None: _state(x, weights),
    _gru_cell_autograd,
)
_gru_cell_train_op = c.register(
    "gru_cell_train",
    "(Tensor x, Tensor? h, Tensor?[] weights) -> (Tensor, Tensor)",
    _gru_cell_train,
    lambda x, h, weights: (_state(x, weights), _saved(x, weights)),
)
_gru_cell_backward_op = c.register(
    "gru_cell_backward",
    "(Tensor dh, Tensor x, Tensor? h, Tensor?[] weights, Tensor h_out, Tensor gates, bool[] wanted)"
    " -> Tensor[]",
    _gru_cell_backward,
    lambda dh, x, h, weights, h_out, gates, wanted: [
        g for g in c.empty_grads((x, h, *weights), wanted) if g is not None
    ],
)
c.autocast("gru_cell", "cpu", _gru_cell_autocast)


def gru_cell_step(x, h, weights, packed=None):
    """``gru_cell`` for arguments already checked; ``packed`` is a list of one blob of ``_C.pack``."""
    way = c.route((x, h, *weights))
    if way == c.DIRECT:
        if c.needs_grad(x, h, *weights):
            return _GRUCell.apply(x, h, *weights)
        return _gru_cell(x, h, weights, packed)
    if way == c.DISPATCH:
        return _gru_cell_op(x, h, weights, packed)
    _backend.note("gru_cell under torch.func or forward-mode differentiation: the reference formula runs")
    return reference.gru_cell(x, h, weights)


# ---------------------------------------------------------------- RNN


def _rnn_cell(x, h, weights, relu, packed=None):
    h_out = _state(x, weights)
    _C.rnn_cell_forward(c.rows(x), c.dense(h), c.dense_all(weights), relu, h_out, packed, _threads())
    return h_out


def _rnn_cell_backward(dh, x, h, weights, relu, h_out, wanted):
    grads = c.empty_grads((x, h, *weights), wanted)
    _C.rnn_cell_backward(
        c.dense(dh),
        c.rows(x),
        c.dense(h),
        c.dense_all(weights),
        relu,
        h_out,
        grads[0],
        grads[1],
        grads[2:],
        _threads(),
    )
    return [g for g in grads if g is not None]


class _RNNCell(torch.autograd.Function):
    @staticmethod
    def forward(ctx, relu, x, h, *weights):
        if c.route((x, h, *weights)) == c.DIRECT:
            h_out = _rnn_cell(x, h, weights, relu)
        else:
            with torch._C._AutoDispatchBelowAutograd():
                h_out = _rnn_cell_op(x, h, weights, relu)
        ctx.relu = relu
        ctx.save_for_backward(h_out, x, h, *weights)
        return h_out

    @staticmethod
    def backward(ctx, dh):
        h_out, *inputs = ctx.saved_tensors
        want = c.wanted(ctx, inputs)
        if torch.is_grad_enabled():

            def formula(x, h, *weights):
                return (reference.rnn_cell(x, h, weights, ctx.relu),)

            grads = c.second_order("rnn_cell", formula, inputs, want, (dh,))
        else:
            x, h, *weights = inputs
            back = _rnn_cell_backward if c.route((dh, *inputs)) == c.DIRECT else _rnn_cell_backward_op
            grads = back(dh, x, h, weights, ctx.relu, h_out, want)
        return c.spread(grads, want, 1)


def _rnn_cell_autograd(x, h, weights, relu, packed=None):
    if c.needs_grad(x, h, *weights):
        return _RNNCell.apply(relu, x, h, *weights)
    with torch._C._AutoDispatchBelowAutograd():
        return _rnn_cell_op(x, h, weights, relu, packed)


def _rnn_cell_autocast(cast, x, h, weights, relu, packed=None):
    return _rnn_cell_op(cast(x), cast(h), [cast(w) for w in weights], relu, None)


_rnn_cell_op = c.register(
    "rnn_cell",
    "(Tensor x, Tensor? h, Tensor?[] weights, bool relu, Tensor[]? packed=None) -> Tensor",
    _rnn_cell,
    lambda x, h, weights, relu, packed=None: _state(x, weights),
    _rnn_cell_autograd,
)
_rnn_cell_backward_op = c.register(
    "rnn_cell_backward",
    "(Tensor dh, Tensor x, Tensor? h, Tensor?[] weights, bool relu, Tensor h_out, bool[] wanted) -> Tensor[]",
    _rnn_cell_backward,
    lambda dh, x, h, weights, relu, h_out, wanted: [
        g for g in c.empty_grads((x, h, *weights), wanted) if g is not None
    ],
)
c.autocast("rnn_cell", "cpu", _rnn_cell_autocast)


def rnn_cell_step(x, h, weights, relu, packed=None):
    """``rnn_cell`` for arguments already checked; ``packed`` is a list of one blob of ``_C.pack``."""
    way = c.route((x, h, *weights))
    if way == c.DIRECT:
        if c.needs_grad(x, h, *weights):
            return _RNNCell.apply(relu, x, h, *weights)
        return _rnn_cell(x, h, weights, relu, packed)
    if way == c.DISPATCH:
        return _rnn_cell_op(x, h, weights, relu, packed)
    _backend.note("rnn_cell under torch.func or forward-mode differentiation: the reference formula runs")
    return reference.rnn_cell(x, h, weights, relu)
