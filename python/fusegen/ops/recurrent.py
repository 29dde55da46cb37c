"""torch.ops.fusegen.lstm, gru and rnn: one layer over a whole sequence, and its gradient.

The shapes are those of ``fusegen.ops.functional``. ``lstm`` and ``gru`` save nothing; ``lstm_train`` and
``gru_train`` also give the post-activation gates (and cell states) that their gradients need. An RNN needs
only its own output.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _C, reference
from . import _common as c
from . import gpu
from ._op import Kernel, Op

Weights = Sequence["Tensor | None"]
_threads = torch.get_num_threads


def _present(grads):
    return [g for g in grads if g is not None]


# ---------------------------------------------------------------- LSTM


def _lstm_outputs(x: Tensor, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
    R, D = c.recurrent_weight("lstm", weights, 5, 10), len(weights) // 5
    (T, B, _), (G, P) = x.shape, R.shape
    return x.new_empty(T, B, D * P), x.new_empty(D, B, P), x.new_empty(D, B, G // 4)


def _lstm_saved(x: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    (T, B, _), G, D = x.shape, weights[1].shape[0], len(weights) // 5
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty(D, T, B, G), x.new_empty(D, T, B, G // 4, dtype=wide)


def _lstm_run(x, h0, c0, weights, lengths, out, gates, cells, packed):
    _C.lstm_forward(
        c.rows(x),
        c.dense(h0),
        c.dense(c0),
        c.dense_all(weights),
        lengths,
        *out,
        gates,
        cells,
        packed,
        _threads(),
    )


def _lstm(x, h0, c0, weights, lengths=None, packed=None):
    out = _lstm_outputs(x, weights)
    _lstm_run(x, h0, c0, weights, lengths, out, None, None, packed)
    return out


def _lstm_train(x, h0, c0, weights, lengths=None):
    out, saved = _lstm_outputs(x, weights), _lstm_saved(x, weights)
    _lstm_run(x, h0, c0, weights, lengths, out, *saved, None)
    return (*out, *saved)


def _lstm_backward(dy, dh_n, dc_n, x, h0, c0, weights, lengths, y, gates, cells, wanted):
    dx, dh0, dc0, *dweights = grads = c.empty_grads((x, h0, c0, *weights), wanted)
    _C.lstm_backward(
        c.rows(dy), c.dense(dh_n), c.dense(dc_n), c.rows(x), c.dense(h0), c.dense(c0), c.dense_all(weights),
        lengths, y, gates, cells, dx, dh0, dc0, dweights, _threads(),
    )  # fmt: skip
    return _present(grads)


def _lstm_cuda(x, h0, c0, weights, lengths=None, packed=None):
    return gpu.forward(gpu.LSTM, x, h0, c0, weights, lengths, False, False)[:3]


def _lstm_train_cuda(x, h0, c0, weights, lengths=None):
    return gpu.forward(gpu.LSTM, x, h0, c0, weights, lengths, False, True)


def _lstm_backward_cuda(dy, dh_n, dc_n, x, h0, c0, weights, lengths, y, gates, cells, wanted):
    return gpu.backward(
        gpu.LSTM, dy, dh_n, dc_n, x, (h0, c0), weights, lengths, False, (y, gates, cells), wanted
    )


lstm = Op(
    "lstm",
    Kernel(
        "(Tensor x, Tensor? h0, Tensor? c0, Tensor?[] weights, Tensor? lengths=None, Tensor[]? packed=None)"
        " -> (Tensor y, Tensor h_n, Tensor c_n)",
        _lstm,
        lambda x, h0, c0, weights, lengths=None, packed=None: _lstm_outputs(x, weights),
        _lstm_cuda,
    ),
    Kernel(
        "(Tensor x, Tensor? h0, Tensor? c0, Tensor?[] weights, Tensor? lengths=None)"
        " -> (Tensor y, Tensor h_n, Tensor c_n, Tensor gates, Tensor cells)",
        _lstm_train,
        lambda x, h0, c0, weights, lengths=None: (*_lstm_outputs(x, weights), *_lstm_saved(x, weights)),
        _lstm_train_cuda,
    ),
    Kernel(
        "(Tensor? dy, Tensor? dh_n, Tensor? dc_n, Tensor x, Tensor? h0, Tensor? c0, Tensor?[] weights,"
        " Tensor? lengths, Tensor y, Tensor gates, Tensor cells, bool[] wanted) -> Tensor[]",
        _lstm_backward,
        lambda dy, dh_n, dc_n, x, h0, c0, weights, lengths, y, gates, cells, wanted: _present(
            c.empty_grads((x, h0, c0, *weights), wanted)
        ),
        _lstm_backward_cuda,
    ),
    reference.lstm,
    n=3,
    per=5,
    keep=(0, 3, 4),
    wide=2,
)


# ---------------------------------------------------------------- GRU


def _hidden_outputs(x: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    D, H = len(weights) // 4, c.recurrent_weight("gru or rnn", weights, 4, 8).shape[1]
    T, B, _ = x.shape
    return x.new_empty(T, B, D * H), x.new_empty(D, B, H)


def _gru_saved(x: Tensor, weights: Weights) -> Tensor:
    T, B, _ = x.shape
    return x.new_empty(len(weights) // 4, T, B, 4 * weights[1].shape[1])


def _gru(x, h0, weights, lengths=None, packed=None):
    out = _hidden_outputs(x, weights)
    _C.gru_forward(c.rows(x), c.dense(h0), c.dense_all(weights), lengths, *out, None, packed, _threads())
    return out


def _gru_train(x, h0, weights, lengths=None):
    out, gates = _hidden_outputs(x, weights), _gru_saved(x, weights)
    _C.gru_forward(c.rows(x), c.dense(h0), c.dense_all(weights), lengths, *out, gates, None, _threads())
    return (*out, gates)


def _gru_backward(dy, dh_n, x, h0, weights, lengths, y, gates, wanted):
    dx, dh0, *dweights = grads = c.empty_grads((x, h0, *weights), wanted)
    _C.gru_backward(
        c.rows(dy), c.dense(dh_n), c.rows(x), c.dense(h0), c.dense_all(weights), lengths, y, gates,
        dx, dh0, dweights, _threads(),
    )  # fmt: skip
    return _present(grads)


def _gru_cuda(x, h0, weights, lengths=None, packed=None):
    return gpu.forward(gpu.GRU, x, h0, None, weights, lengths, False, False)[:2]


def _gru_train_cuda(x, h0, weights, lengths=None):
    y, h_n, _, gates, _ = gpu.forward(gpu.GRU, x, h0, None, weights, lengths, False, True)
    return y, h_n, gates


def _gru_backward_cuda(dy, dh_n, x, h0, weights, lengths, y, gates, wanted):
    return gpu.backward(gpu.GRU, dy, dh_n, None, x, (h0,), weights, lengths, False, (y, gates, None), wanted)


gru = Op(
    "gru",
    Kernel(
        "(Tensor x, Tensor? h0, Tensor?[] weights, Tensor? lengths=None, Tensor[]? packed=None)"
        " -> (Tensor y, Tensor h_n)",
        _gru,
        lambda x, h0, weights, lengths=None, packed=None: _hidden_outputs(x, weights),
        _gru_cuda,
    ),
    Kernel(
        "(Tensor x, Tensor? h0, Tensor?[] weights, Tensor? lengths=None)"
        " -> (Tensor y, Tensor h_n, Tensor gates)",
        _gru_train,
        lambda x, h0, weights, lengths=None: (*_hidden_outputs(x, weights), _gru_saved(x, weights)),
        _gru_train_cuda,
    ),
    Kernel(
        "(Tensor? dy, Tensor? dh_n, Tensor x, Tensor? h0, Tensor?[] weights, Tensor? lengths, Tensor y,"
        " Tensor gates, bool[] wanted) -> Tensor[]",
        _gru_backward,
        lambda dy, dh_n, x, h0, weights, lengths, y, gates, wanted: _present(
            c.empty_grads((x, h0, *weights), wanted)
        ),
        _gru_backward_cuda,
    ),
    reference.gru,
    n=2,
    per=4,
    keep=(0, 2),
)


# ---------------------------------------------------------------- RNN


def _rnn(x, h0, weights, relu, lengths=None, packed=None):
    out = _hidden_outputs(x, weights)
    _C.rnn_forward(c.rows(x), c.dense(h0), c.dense_all(weights), lengths, relu, *out, packed, _threads())
    return out


def _rnn_backward(dy, dh_n, x, h0, weights, relu, lengths, y, wanted):
    dx, dh0, *dweights = grads = c.empty_grads((x, h0, *weights), wanted)
    _C.rnn_backward(
        c.rows(dy), c.dense(dh_n), c.rows(x), c.dense(h0), c.dense_all(weights), lengths, relu, y,
        dx, dh0, dweights, _threads(),
    )  # fmt: skip
    return _present(grads)


def _rnn_cuda(x, h0, weights, relu, lengths=None, packed=None):
    return gpu.forward(gpu.RNN, x, h0, None, weights, lengths, relu, False)[:2]


def _rnn_backward_cuda(dy, dh_n, x, h0, weights, relu, lengths, y, wanted):
    return gpu.backward(gpu.RNN, dy, dh_n, None, x, (h0,), weights, lengths, relu, (y, None, None), wanted)


rnn = Op(
    "rnn",
    Kernel(
        "(Tensor x, Tensor? h0, Tensor?[] weights, bool relu, Tensor? lengths=None, Tensor[]? packed=None)"
        " -> (Tensor y, Tensor h_n)",
        _rnn,
        lambda x, h0, weights, relu, lengths=None, packed=None: _hidden_outputs(x, weights),
        _rnn_cuda,
    ),
    None,
    Kernel(
        "(Tensor? dy, Tensor? dh_n, Tensor x, Tensor? h0, Tensor?[] weights, bool relu, Tensor? lengths,"
        " Tensor y, bool[] wanted) -> Tensor[]",
        _rnn_backward,
        lambda dy, dh_n, x, h0, weights, relu, lengths, y, wanted: _present(
            c.empty_grads((x, h0, *weights), wanted)
        ),
        _rnn_backward_cuda,
    ),
    reference.rnn,
    n=2,
    per=4,
    keep=(0,),
)
