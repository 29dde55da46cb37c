"""torch.ops.fusegen.lstm, gru and rnn: one layer over a whole sequence, its gradient, and the functional
forms.

Each cell has three ops. ``fusegen::lstm`` gives outputs only and saves nothing; its autograd kernel runs
``fusegen::lstm_train``, which also gives what the gradient needs (post-activation gates, cell states), and
later ``fusegen::lstm_backward``. An RNN needs nothing beyond its output, so ``rnn`` serves both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _C, _backend, reference
from . import _common as c

Weights = Sequence["Tensor | None"]
_threads = torch.get_num_threads


# ---------------------------------------------------------------- LSTM


def _lstm_outputs(x: Tensor, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
    R, D = c.recurrent_weight("lstm", weights, 5, 10), len(weights) // 5
    T, B, _ = x.shape
    P = R.shape[1]
    return x.new_empty((T, B, D * P)), x.new_empty((D, B, P)), x.new_empty((D, B, R.shape[0] // 4))


def _lstm_saved(x: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    T, B, _ = x.shape
    D, G = len(weights) // 5, weights[1].shape[0]
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty((D, T, B, G)), x.new_empty((D, T, B, G // 4), dtype=wide)


def _lstm(x, h0, c0, weights, lengths=None, packed=None):
    y, h_n, c_n = _lstm_outputs(x, weights)
    _C.lstm_forward(
        c.rows(x),
        c.dense(h0),
        c.dense(c0),
        c.dense_all(weights),
        lengths,
        y,
        h_n,
        c_n,
        None,
        None,
        packed,
        _threads(),
    )
    return y, h_n, c_n


def _lstm_train(x, h0, c0, weights, lengths=None):
    y, h_n, c_n = _lstm_outputs(x, weights)
    gates, cells = _lstm_saved(x, weights)
    _C.lstm_forward(
        c.rows(x),
        c.dense(h0),
        c.dense(c0),
        c.dense_all(weights),
        lengths,
        y,
        h_n,
        c_n,
        gates,
        cells,
        None,
        _threads(),
    )
    return y, h_n, c_n, gates, cells


def _lstm_backward(dy, dh_n, dc_n, x, h0, c0, weights, lengths, y, gates, cells, wanted):
    grads = c.empty_grads((x, h0, c0, *weights), wanted)
    _C.lstm_backward(
        c.rows(dy),
        c.dense(dh_n),
        c.dense(dc_n),
        c.rows(x),
        c.dense(h0),
        c.dense(c0),
        c.dense_all(weights),
        lengths,
        y,
        gates,
        cells,
        grads[0],
        grads[1],
        grads[2],
        grads[3:],
        _threads(),
    )
    return [g for g in grads if g is not None]


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, lengths, x, h0, c0, *weights):
        train = _lstm_train if c.route((x, h0, c0, *weights)) == c.DIRECT else _lstm_train_op
        y, h_n, c_n, gates, cells = train(x, h0, c0, weights, lengths)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(lengths, y, gates, cells, x, h0, c0, *weights)
        return y, h_n, c_n

    @staticmethod
    def backward(ctx, dy, dh_n, dc_n):
        lengths, y, gates, cells, *inputs = ctx.saved_tensors
        want = c.wanted(ctx, inputs, lengths is not None)
        if torch.is_grad_enabled():

            def formula(x, h0, c0, *weights):
                return reference.lstm(x, h0, c0, weights, lengths)

            grads = c.second_order("lstm", formula, inputs, want, (dy, dh_n, dc_n))
        else:
            x, h0, c0, *weights = inputs
            back = _lstm_backward if c.route((dy, dh_n, dc_n, *inputs)) == c.DIRECT else _lstm_backward_op
            grads = back(dy, dh_n, dc_n, x, h0, c0, weights, lengths, y, gates, cells, want)
        return c.spread(grads, want, 1)


def _lstm_autograd(x, h0, c0, weights, lengths=None, packed=None):
    if c.needs_grad(x, h0, c0, *weights):
        return _LSTM.apply(lengths, x, h0, c0, *weights)
    with torch._C._AutoDispatchBelowAutograd():
        return _lstm_op(x, h0, c0, weights, lengths, packed)


def _lstm_autocast(cast, x, h0, c0, weights, lengths=None, packed=None):
    y, h_n, c_n = _lstm_op(cast(x), cast(h0), cast(c0), [cast(w) for w in weights], lengths, None)
    return y, h_n, c_n.to(x.dtype)


_lstm_op = c.register(
    "lstm",
    "(Tensor x, Tensor? h0, Tensor? c0, Tensor?[] weights, Tensor? lengths=None, Tensor[]? packed=None)"
    " -> (Tensor, Tensor, Tensor)",
    _lstm,
    lambda x, h0, c0, weights, lengths=None, packed=None: _lstm_outputs(x, weights),
    _lstm_autograd,
)
_lstm_train_op = c.register(
    "lstm_train",
    "(Tensor x, Tensor? h0, Tensor? c0, Tensor?[] weights, Tensor? lengths=None)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _lstm_train,
    lambda x, h0, c0, weights, lengths=None: (*_lstm_outputs(x, weights), *_lstm_saved(x, weights)),
)
_lstm_backward_op = c.register(
    "lstm_backward",
    "(Tensor? dy, Tensor? dh_n, Tensor? dc_n, Tensor x, Tensor? h0, Tensor? c0, Tensor?[] weights,"
    " Tensor? lengths, Tensor y, Tensor gates, Tensor cells, bool[] wanted) -> Tensor[]",
    _lstm_backward,
    lambda dy, dh_n, dc_n, x, h0, c0, weights, lengths, y, gates, cells, wanted: [
        g for g in c.empty_grads((x, h0, c0, *weights), wanted) if g is not None
    ],
)
c.autocast("lstm", "cpu", _lstm_autocast)


def lstm_layer(x, h0, c0, weights, lengths=None, packed=None):
    """``lstm`` for arguments already checked; ``packed`` is a list of one blob of ``_C.pack`` per
    direction."""
    way = c.route((x, h0, c0, *weights))
    if way == c.DIRECT:
        if c.needs_grad(x, h0, c0, *weights):
            return _LSTM.apply(lengths, x, h0, c0, *weights)
        return _lstm(x, h0, c0, weights, lengths, packed)
    if way == c.DISPATCH:
        return _lstm_op(x, h0, c0, weights, lengths, packed)
    _backend.note("lstm under torch.func or forward-mode differentiation: the reference formula runs")
    return reference.lstm(x, h0, c0, weights, lengths)


# ---------------------------------------------------------------- GRU


def _hidden_outputs(x: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    D, H = len(weights) // 4, c.recurrent_weight("gru or rnn", weights, 4, 8).shape[1]
    T, B, _ = x.shape
    return x.new_empty((T, B, D * H)), x.new_empty((D, B, H))


def _gru_saved(x: Tensor, weights: Weights) -> Tensor:
    T, B, _ = x.shape
    return x.new_empty((len(weights) // 4, T, B, 4 * weights[1].shape[1]))


def _gru(x, h0, weights, lengths=None, packed=None):
    y, h_n = _hidden_outputs(x, weights)
    _C.gru_forward(c.rows(x), c.dense(h0), c.dense_all(weights), lengths, y, h_n, None, packed, _threads())
    return y, h_n


def _gru_train(x, h0, weights, lengths=None):
    y, h_n = _hidden_outputs(x, weights)
    gates = _gru_saved(x, weights)
    _C.gru_forward(c.rows(x), c.dense(h0), c.dense_all(weights), lengths, y, h_n, gates, None, _threads())
    return y, h_n, gates


def _gru_backward(dy, dh_n, x, h0, weights, lengths, y, gates, wanted):
    grads = c.empty_grads((x, h0, *weights), wanted)
    _C.gru_backward(
        c.rows(dy),
        c.dense(dh_n),
        c.rows(x),
        c.dense(h0),
        c.dense_all(weights),
        lengths,
        y,
        gates,
        grads[0],
        grads[1],
        grads[2:],
        _threads(),
    )
    return [g for g in grads if g is not None]


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, lengths, x, h0, *weights):
        train = _gru_train if c.route((x, h0, *weights)) == c.DIRECT else _gru_train_op
        y, h_n, gates = train(x, h0, weights, lengths)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(lengths, y, gates, x, h0, *weights)
        return y, h_n

    @staticmethod
    def backward(ctx, dy, dh_n):
        lengths, y, gates, *inputs = ctx.saved_tensors
        want = c.wanted(ctx, inputs, lengths is not None)
        if torch.is_grad_enabled():

            def formula(x, h0, *weights):
                return reference.gru(x, h0, weights, lengths)

            grads = c.second_order("gru", formula, inputs, want, (dy, dh_n))
        else:
            x, h0, *weights = inputs
            back = _gru_backward if c.route((dy, dh_n, *inputs)) == c.DIRECT else _gru_backward_op
            grads = back(dy, dh_n, x, h0, weights, lengths, y, gates, want)
        return c.spread(grads, want, 1)


def _gru_autograd(x, h0, weights, lengths=None, packed=None):
    if c.needs_grad(x, h0, *weights):
        return _GRU.apply(lengths, x, h0, *weights)
    with torch._C._AutoDispatchBelowAutograd():
        return _gru_op(x, h0, weights, lengths, packed)


def _gru_autocast(cast, x, h0, weights, lengths=None, packed=None):
    return _gru_op(cast(x), cast(h0), [cast(w) for w in weights], lengths, None)


_gru_op = c.register(
    "gru",
    "(Tensor x, Tensor? h0, Tensor?[] weights, Tensor? lengths=None, Tensor[]? packed=None)"
    " -> (Tensor, Tensor)",
    _gru,
    lambda x, h0, weights, lengths=None, packed=None: _hidden_outputs(x, weights),
    _gru_autograd,
)
_gru_train_op = c.register(
    "gru_train",
    "(Tensor x, Tensor? h0, Tensor?[] weights, Tensor? lengths=None) -> (Tensor, Tensor, Tensor)",
    _gru_train,
    lambda x, h0, weights, lengths=None: (*_hidden_outputs(x, weights), _gru_saved(x, weights)),
)
_gru_backward_op = c.register(
    "gru_backward",
    "(Tensor? dy, Tensor? dh_n, Tensor x, Tensor? h0, Tensor?[] weights, Tensor? lengths, Tensor y,"
    " Tensor gates, bool[] wanted) -> Tensor[]",
    _gru_backward,
    lambda dy, dh_n, x, h0, weights, lengths, y, gates, wanted: [
        g for g in c.empty_grads((x, h0, *weights), wanted) if g is not None
    ],
)
c.autocast("gru", "cpu", _gru_autocast)


def gru_layer(x, h0, weights, lengths=None, packed=None):
    """``gru`` for arguments already checked; ``packed`` is a list of one blob of ``_C.pack`` per
    direction."""
    way = c.route((x, h0, *weights))
    if way == c.DIRECT:
        if c.needs_grad(x, h0, *weights):
            return _GRU.apply(lengths, x, h0, *weights)
        return _gru(x, h0, weights, lengths, packed)
    if way == c.DISPATCH:
        return _gru_op(x, h0, weights, lengths, packed)
    _backend.note("gru under torch.func or forward-mode differentiation: the reference formula runs")
    return reference.gru(x, h0, weights, lengths)


# ---------------------------------------------------------------- RNN


def _rnn(x, h0, weights, relu, lengths=None, packed=None):
    y, h_n = _hidden_outputs(x, weights)
    _C.rnn_forward(c.rows(x), c.dense(h0), c.dense_all(weights), lengths, relu, y, h_n, packed, _threads())
    return y, h_n


def _rnn_backward(dy, dh_n, x, h0, weights, relu, lengths, y, wanted):
    grads = c.empty_grads((x, h0, *weights), wanted)
    _C.rnn_backward(
        c.rows(dy),
        c.dense(dh_n),
        c.rows(x),
        c.dense(h0),
        c.dense_all(weights),
        lengths,
        relu,
        y,
        grads[0],
        grads[1],
        grads[2:],
        _threads(),
    )
    return [g for g in grads if g is not None]


class _RNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx, relu, lengths, x, h0, *weights):
        if c.route((x, h0, *weights)) == c.DIRECT:
            y, h_n = _rnn(x, h0, weights, relu, lengths)
        else:
            with torch._C._AutoDispatchBelowAutograd():
                y, h_n = _rnn_op(x, h0, weights, relu, lengths)
        ctx.relu = relu
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(lengths, y, x, h0, *weights)
        return y, h_n

    @staticmethod
    def backward(ctx, dy, dh_n):
        lengths, y, *inputs = ctx.saved_tensors
        want = c.wanted(ctx, inputs, lengths is not None)
        if torch.is_grad_enabled():

            def formula(x, h0, *weights):
                return reference.rnn(x, h0, weights, lengths, ctx.relu)

            grads = c.second_order("rnn", formula, inputs, want, (dy, dh_n))
        else:
            x, h0, *weights = inputs
            back = _rnn_backward if c.route((dy, dh_n, *inputs)) == c.DIRECT else _rnn_backward_op
            grads = back(dy, dh_n, x, h0, weights, ctx.relu, lengths, y, want)
        return c.spread(grads, want, 2)


def _rnn_autograd(x, h0, weights, relu, lengths=None, packed=None):
    if c.needs_grad(x, h0, *weights):
        return _RNN.apply(relu, lengths, x, h0, *weights)
    with torch._C._AutoDispatchBelowAutograd():
        return _rnn_op(x, h0, weights, relu, lengths, packed)


def _rnn_autocast(cast, x, h0, weights, relu, lengths=None, packed=None):
    return _rnn_op(cast(x), cast(h0), [cast(w) for w in weights], relu, lengths, None)


_rnn_op = c.register(
    "rnn",
    "(Tensor x, Tensor? h0, Tensor?[] weights, bool relu, Tensor? lengths=None, Tensor[]? packed=None)"
    " -> (Tensor, Tensor)",
    _rnn,
    lambda x, h0, weights, relu, lengths=None, packed=None: _hidden_outputs(x, weights),
    _rnn_autograd,
)
_rnn_backward_op = c.register(
    "rnn_backward",
    "(Tensor? dy, Tensor? dh_n, Tensor x, Tensor? h0, Tensor?[] weights, bool relu, Tensor? lengths,"
    " Tensor y, bool[] wanted) -> Tensor[]",
    _rnn_backward,
    lambda dy, dh_n, x, h0, weights, relu, lengths, y, wanted: [
        g for g in c.empty_grads((x, h0, *weights), wanted) if g is not None
    ],
)
c.autocast("rnn", "cpu", _rnn_autocast)


def rnn_layer(x, h0, weights, relu, lengths=None, packed=None):
    """``rnn`` for arguments already checked; ``packed`` is a list of one blob of ``_C.pack`` per
    direction."""
    way = c.route((x, h0, *weights))
    if way == c.DIRECT:
        if c.needs_grad(x, h0, *weights):
            return _RNN.apply(relu, lengths, x, h0, *weights)
        return _rnn(x, h0, weights, relu, lengths, packed)
    if way == c.DISPATCH:
        return _rnn_op(x, h0, weights, relu, lengths, packed)
    _backend.note("rnn under torch.func or forward-mode differentiation: the reference formula runs")
    return reference.rnn(x, h0, weights, lengths, relu)
