"""The functional forms: checked arguments, documented shapes, the backend choice, then one op.

Shapes: T steps, B batch, I input size, H hidden size, P projected size (H without a projection), D directions
(1 or 2). ``weights`` is one flat list, per direction ``[W, R, b_ih, b_hh]`` with W [G*H, I], R [G*H, P],
biases [G*H] or None, and for the LSTM a fifth, ``W_hr`` [P, H] or None; G is 4, 3, 1 for LSTM, GRU, RNN, in
torch's gate order. The second direction runs the sequence backwards. Initial states are zero where None.
``lengths`` (a sequence of ints, or an integer tensor on any device) are in 0..T, in any order; past a
sequence's end the output is zero, and final states are those of its last step (the initial ones for length
0).

All tensors of a call have one dtype (float32, bfloat16, float16, float64; under autocast they are cast) and
one device. Errors: TypeError for a wrong kind of argument, ValueError for wrong ranks, counts and lengths,
RuntimeError for sizes, dtypes and devices that do not fit together, as torch.nn raises them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .. import _backend, reference
from . import _common as c
from . import cells, recurrent, torch_path

Weights = Sequence["Tensor | None"]


def _checked(
    what: str, gates: int, per: int, rank: int, x: Tensor, states, weights: Weights
) -> tuple[int, int, int]:
    """Checks everything but lengths; returns (D, H, P)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{what}: expected x to be a Tensor, got {type(x).__name__}")
    if x.dim() != rank:
        raise ValueError(f"{what}: expected x with {rank} dimensions, got {x.dim()}")
    directions = (1, 2) if rank == 3 else (1,)
    if len(weights) not in [per * d for d in directions]:
        counts = " or ".join(str(per * d) for d in directions)
        raise ValueError(f"{what}: expected {counts} weights ({per} per direction), got {len(weights)}")
    D = len(weights) // per
    W, R = weights[0], weights[1]
    for name, w in (("W", W), ("R", R)):
        if not isinstance(w, Tensor) or w.dim() != 2:
            raise ValueError(
                f"{what}: expected {name} as a 2-D Tensor, got {w if w is None else tuple(w.shape)}"
            )
    H, P = R.shape[0] // gates, R.shape[1]
    if H == 0 or P == 0 or W.shape[1] == 0:
        raise ValueError(f"{what}: expected sizes above zero, got W {tuple(W.shape)}, R {tuple(R.shape)}")
    if x.shape[-1] != W.shape[1]:
        raise RuntimeError(
            f"{what}: expected x.size(-1) to be {W.shape[1]} (the columns of W), got {x.shape[-1]}"
        )
    if rank == 3 and x.shape[0] == 0:
        raise RuntimeError(f"{what}: expected at least one step in x, got size {tuple(x.shape)}")
    if per == 5 and (weights[4] is None) != (weights[-1] is None):
        raise ValueError(f"{what}: expected W_hr of both directions, or of neither")
    if P != H and (per < 5 or weights[4] is None):
        raise RuntimeError(f"{what}: expected R of size {(gates * H, H)}, got {tuple(R.shape)}")
    shapes = ((gates * H, x.shape[-1]), (gates * H, P), (gates * H,), (gates * H,), (P, H))
    for i, w in enumerate(weights):
        k = i % per
        name = f"{c.NAMES[k]} of direction {i // per}"
        if w is None and k < 2:
            raise ValueError(f"{what}: expected {name} as a Tensor, got None")
        c.sized(what, name, w, shapes[k])
    batch = x.shape[-2]
    for s, name, n in zip(states, ("h0", "c0") if rank == 3 else ("h", "c"), (P, H), strict=False):
        if s is not None and not isinstance(s, Tensor):
            raise TypeError(f"{what}: expected {name} to be a Tensor or None, got {type(s).__name__}")
        c.sized(what, name, s, (D, batch, n) if rank == 3 else (batch, n))
    c.check_kinds(what, x, states, weights, per)
    return D, H, P


def _torch_layer(kind: str, x: Tensor, states, weights: Weights, lengths: Tensor | None, D: int):
    if kind == "lstm" and weights[4] is not None and weights[4].shape[0] == weights[4].shape[1]:
        _backend.note("lstm with a square W_hr, which torch does not have: the reference formula runs")
        return reference.lstm(x, *states, weights, lengths)
    flat = torch_path.flat_weights(weights, len(weights) // D)
    return torch_path.layers(kind, x, states, flat, lengths, bidirectional=D == 2)


def lstm(
    x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: Weights, lengths=None
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer, both directions. x [T, B, I], h0 [D, B, P], c0 [D, B, H] -> y [T, B, D*P], h_n, c_n as
    h0, c0.

    Hochreiter & Schmidhuber 1997 with forget gates; with ``W_hr``, the projected form of arXiv:1402.1128.
    """
    D, H, _ = _checked("lstm", 4, 5, 3, x, (h0, c0), weights)
    T, B, _ = x.shape
    lengths = c.as_lengths("lstm", lengths, x)
    if _backend.use_torch("lstm", x, H, B, T, (h0, c0), weights, lengths):
        return _torch_layer("lstm", x, (h0, c0), weights, lengths, D)
    return recurrent.lstm((x, h0, c0), weights, (lengths,))


def gru(x: Tensor, h0: Tensor | None, weights: Weights, lengths=None) -> tuple[Tensor, Tensor]:
    """One GRU layer, both directions. x [T, B, I], h0 [D, B, H] -> y [T, B, D*H], h_n [D, B, H].

    Cho et al. 2014 (arXiv:1406.1078), in torch's form: n = tanh(W_n x + b_in + r * (R_n h + b_hn)).
    """
    D, H, _ = _checked("gru", 3, 4, 3, x, (h0,), weights)
    T, B, _ = x.shape
    lengths = c.as_lengths("gru", lengths, x)
    if _backend.use_torch("gru", x, H, B, T, (h0,), weights, lengths):
        return _torch_layer("gru", x, (h0,), weights, lengths, D)
    return recurrent.gru((x, h0), weights, (lengths,))


def rnn(
    x: Tensor, h0: Tensor | None, weights: Weights, lengths=None, *, relu: bool = False
) -> tuple[Tensor, Tensor]:
    """One Elman layer (tanh, or relu), both directions. x [T, B, I], h0 [D, B, H] -> y [T, B, D*H], h_n [D,
    B, H]."""
    D, H, _ = _checked("rnn", 1, 4, 3, x, (h0,), weights)
    T, B, _ = x.shape
    lengths = c.as_lengths("rnn", lengths, x)
    if _backend.use_torch("rnn", x, H, B, T, (h0,), weights, lengths):
        return _torch_layer("rnn_relu" if relu else "rnn_tanh", x, (h0,), weights, lengths, D)
    return recurrent.rnn((x, h0), weights, (bool(relu), lengths))


def lstm_cell(x: Tensor, h: Tensor | None, c_: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor]:
    """One LSTM step. x [B, I], h and c_ [B, H], weights [W, R, b_ih, b_hh] -> (h, c)."""
    _, H, _ = _checked("lstm_cell", 4, 4, 2, x, (h, c_), weights)
    if _backend.use_torch("lstm_cell", x, H, x.shape[0], 1, (h, c_), weights):
        return torch_path.cell("lstm", x, (h, c_), weights)
    return cells.lstm_cell((x, h, c_), weights, ())


def gru_cell(x: Tensor, h: Tensor | None, weights: Weights) -> Tensor:
    """One GRU step. x [B, I], h [B, H], weights [W, R, b_ih, b_hh] -> h."""
    _, H, _ = _checked("gru_cell", 3, 4, 2, x, (h,), weights)
    if _backend.use_torch("gru_cell", x, H, x.shape[0], 1, (h,), weights):
        return torch_path.cell("gru", x, (h,), weights)
    return cells.gru_cell((x, h), weights, ())


def rnn_cell(x: Tensor, h: Tensor | None, weights: Weights, *, relu: bool = False) -> Tensor:
    """One Elman step (tanh, or relu). x [B, I], h [B, H], weights [W, R, b_ih, b_hh] -> h."""
    _, H, _ = _checked("rnn_cell", 1, 4, 2, x, (h,), weights)
    if _backend.use_torch("rnn_cell", x, H, x.shape[0], 1, (h,), weights):
        return torch_path.cell("rnn_relu" if relu else "rnn_tanh", x, (h,), weights)
    return cells.rnn_cell((x, h), weights, (bool(relu),))
