"""The functional forms: checked arguments, documented shapes, the backend choice, then one op.

Shapes: T steps, B batch, I input size, H hidden size, P projected size (H without a projection), D directions
(1 or 2). ``weights`` is one flat list, per direction ``[W, R, b_ih, b_hh]`` with W [G*H, I], R [G*H, P],
biases [G*H] or None, and for the LSTM a fifth, ``W_hr`` [P, H] or None; G is 4, 3, 1 for LSTM, GRU, RNN, in
torch's gate order. The second direction runs the sequence backwards. Initial states are zero where None.
``lengths`` (a sequence of ints, or an integer tensor on any device) are in 0..T, in any order; past a
sequence's end the output is zero, and final states are those of its last step (the initial ones for length
0).

A layer's form takes more by name: ``resets`` [T, B] and ``reset_to`` ([D, B, P], of the LSTM a pair with [D,
B, H], or [P] and [H] for all), as the layers of ``fusegen.nn`` take them in ``forward``;
``recurrent_dropout``, ``recurrent_dropout_on``, ``zoneout`` and ``weight_drop`` as they take them when made,
and ``training`` (True) and ``generator``.

``recompute=k`` (an int of at least 1; None: off) keeps less for backward, in exchange for time: beside the
output, of an LSTM its cell states at every k-th step, of a GRU nothing. Backward makes the gates again from
them, k steps at a time and to the same bits. An RNN keeps its output alone anyway, and a single step keeps
its gates. On a GPU nothing is kept but the output, and the layer's whole forward runs again in backward,
whatever k is.

All tensors of a call have one dtype (float32, bfloat16, float16, float64; under autocast they are cast) and
one device. Errors: TypeError for a wrong kind of argument, ValueError for wrong ranks, counts and lengths,
RuntimeError for sizes, dtypes and devices that do not fit together, as torch.nn raises them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import cells, checks, layers
from . import inside as inside_ops
from .spec import CELL, GRU, LAYER, LSTM, RNN, WEIGHTS_OF_A_CELL, CellSpec, Form

Weights = Sequence[Tensor | None]
Lengths = Iterable[int] | Tensor | None


def _check(spec: CellSpec, form: Form, x: Tensor, states: Sequence[Tensor | None], weights: Weights) -> None:
    """Checks everything but lengths."""
    what, sequence = spec.name + form.suffix, form is LAYER
    names = spec.weights if sequence else spec.weights[:WEIGHTS_OF_A_CELL]
    W, R = _check_matrices(what, x, weights, len(names), sequence)
    per, D, G = len(names), len(weights) // len(names), spec.gates
    H, P, I = R.shape[0] // G, R.shape[1], W.shape[1]
    if H == 0 or P == 0 or I == 0:
        raise ValueError(f"{what}: expected sizes above zero, got W {tuple(W.shape)}, R {tuple(R.shape)}")
    if x.shape[-1] != I:
        raise RuntimeError(f"{what}: expected x.size(-1) to be {I} (the columns of W), got {x.shape[-1]}")
    if sequence and x.shape[0] == 0:
        raise RuntimeError(f"{what}: expected at least one step in x, got size {tuple(x.shape)}")
    if per == 5 and (weights[4] is None) != (weights[-1] is None):
        raise ValueError(f"{what}: expected W_hr of both directions, or of neither")
    if P != H and (per < 5 or weights[4] is None):
        raise RuntimeError(f"{what}: expected R of size {(G * H, H)}, got {tuple(R.shape)}")
    shapes = {"W": (G * H, I), "R": (G * H, P), "b_ih": (G * H,), "b_hh": (G * H,), "W_hr": (P, H)}
    for i, w in enumerate(weights):
        name = names[i % per]
        full = f"{name} of direction {i // per}"
        if w is None and name in ("W", "R"):
            raise ValueError(f"{what}: expected {full} as a Tensor, got None")
        checks.sized(what, full, w, shapes[name])
    batch = x.shape[-2]
    for s, name, n in zip(states, form.inputs[1:], (P, H), strict=False):
        if s is not None and not isinstance(s, Tensor):
            raise TypeError(f"{what}: expected {name} to be a Tensor or None, got {type(s).__name__}")
        checks.sized(what, name, s, (D, batch, n) if sequence else (batch, n))
    checks.one_kind(what, x, states, weights, per)


def _check_matrices(
    what: str, x: Tensor, weights: Weights, per: int, sequence: bool
) -> tuple[Tensor, Tensor]:
    """W and R of the first direction."""
    rank = 3 if sequence else 2
    if not isinstance(x, Tensor):
        raise TypeError(f"{what}: expected x to be a Tensor, got {type(x).__name__}")
    if x.dim() != rank:
        raise ValueError(f"{what}: expected x with {rank} dimensions, got {x.dim()}")
    directions = (1, 2) if sequence else (1,)
    if len(weights) not in [per * d for d in directions]:
        counts = " or ".join(str(per * d) for d in directions)
        raise ValueError(f"{what}: expected {counts} weights ({per} per direction), got {len(weights)}")
    found = []
    for name, w in zip("WR", weights, strict=False):
        if not isinstance(w, Tensor) or w.dim() != 2:
            raise ValueError(
                f"{what}: expected {name} as a 2-D Tensor, got {w if w is None else tuple(w.shape)}"
            )
        found.append(w)
    return found[0], found[1]


def _layer(
    spec: CellSpec,
    x: Tensor,
    states: Sequence[Tensor | None],
    weights: Weights,
    lengths: Lengths,
    relu: bool = False,
    recompute: int | None = None,
    **options: Any,
) -> Any:
    _check(spec, LAYER, x, states, weights)
    every = checks.as_recompute(spec.name, recompute)
    lengths = checks.as_lengths(spec.name, lengths, x)
    asked = _asked(spec, x, weights, **options) if options else None
    return layers.run(spec, x, states, [weights], relu=relu, lengths=lengths, asked=asked, recompute=every)


def _asked(
    spec: CellSpec,
    x: Tensor,
    weights: Weights,
    resets: Tensor | None = None,
    reset_to: Any = None,
    recurrent_dropout: float = 0.0,
    recurrent_dropout_on: str = "state",
    zoneout: float | tuple[float, float] | None = None,
    weight_drop: float = 0.0,
    training: bool = True,
    generator: torch.Generator | None = None,
) -> inside_ops.Asked:
    name, states, R = spec.name, len(spec.states), weights[1]
    assert R is not None
    h, c = None, None
    if reset_to is not None:
        if resets is None:
            raise ValueError(f"{name}: expected reset_to together with resets, got it alone")
        sizes = (R.shape[1], R.shape[0] // spec.gates)[:states]
        h, c = inside_ops.as_starts(name, reset_to, x, (len(weights) // len(spec.weights), x.shape[1]), sizes)
    if resets is not None:
        resets = inside_ops.own(inside_ops.as_resets(name, resets, tuple(x.shape[:2]), "[T, B]"), x)
    if zoneout is None:
        zoneout = (0.0, 0.0) if states == 2 else 0.0
    rates = inside_ops.as_rates(
        name,
        states,
        recurrent_dropout=recurrent_dropout,
        recurrent_dropout_on=recurrent_dropout_on,
        zoneout=zoneout,
        weight_drop=weight_drop,
    )
    drawn = inside_ops.as_generator(name, generator)
    return inside_ops.Asked(resets, h, c, rates, bool(training), drawn)


def _cell(
    spec: CellSpec, x: Tensor, states: Sequence[Tensor | None], weights: Weights, relu: bool = False
) -> Any:
    _check(spec, CELL, x, states, weights)
    h, c = (*states, None)[:2]
    return cells.run(cells.OPS[spec], x, h, c, weights, relu)


def lstm(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Weights,
    lengths: Lengths = None,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer, both directions. x [T, B, I], h0 [D, B, P], c0 [D, B, H] -> y [T, B, D*P], h_n, c_n as
    h0, c0.

    Hochreiter & Schmidhuber 1997 with forget gates; with ``W_hr``, the projected form of arXiv:1402.1128.

    weights: per direction [W, R, b_ih, b_hh, W_hr] in one flat list, W [4H, I], R [4H, P], biases [4H] or
    None, W_hr [P, H] or None. lengths: integers [B] in 0..T, None for all T. options: ``resets`` [T, B],
    ``reset_to``, ``recurrent_dropout``, ``recurrent_dropout_on``, ``zoneout``, ``weight_drop``,
    ``training``, ``generator`` and ``recompute``, as ``fusegen.nn.LSTM`` and its forward take them.

    All tensors have one dtype (float32, bfloat16, float16 or float64) and one device. Raises TypeError for
    a wrong kind of argument, ValueError for wrong ranks, counts and lengths, RuntimeError for sizes, dtypes
    and devices that do not fit together.
    """
    y, h_n, c_n = _layer(LSTM, x, (h0, c0), weights, lengths, **options)
    return y, h_n, c_n


def gru(
    x: Tensor, h0: Tensor | None, weights: Weights, lengths: Lengths = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """One GRU layer, both directions. x [T, B, I], h0 [D, B, H] -> y [T, B, D*H], h_n [D, B, H].

    Cho et al. 2014 (arXiv:1406.1078), in torch's form: n = tanh(W_n x + b_in + r * (R_n h + b_hn)).

    weights: per direction [W, R, b_ih, b_hh] in one flat list, W [3H, I], R [3H, H], biases [3H] or None.
    lengths, options, dtypes and errors as of ``lstm``.
    """
    y, h_n = _layer(GRU, x, (h0,), weights, lengths, **options)
    return y, h_n


def rnn(
    x: Tensor,
    h0: Tensor | None,
    weights: Weights,
    lengths: Lengths = None,
    *,
    relu: bool = False,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """One Elman layer (tanh, or relu), both directions. x [T, B, I], h0 [D, B, H] -> y [T, B, D*H], h_n [D,
    B, H].

    Elman 1990: h' = tanh(W x + b_ih + R h + b_hh). weights: per direction [W, R, b_ih, b_hh] in one flat
    list, W [H, I], R [H, H], biases [H] or None. lengths, options, dtypes and errors as of ``lstm``.
    """
    y, h_n = _layer(RNN, x, (h0,), weights, lengths, bool(relu), **options)
    return y, h_n


def lstm_cell(x: Tensor, h: Tensor | None, c_: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor]:
    """One LSTM step. x [B, I], h and c_ [B, H], weights [W, R, b_ih, b_hh] -> (h, c).

    The equations of torch.nn.LSTMCell. States are zero where None; dtypes and errors as of ``lstm``.
    """
    h_out, c_out = _cell(LSTM, x, (h, c_), weights)
    return h_out, c_out


def gru_cell(x: Tensor, h: Tensor | None, weights: Weights) -> Tensor:
    """One GRU step. x [B, I], h [B, H], weights [W, R, b_ih, b_hh] -> h.

    The equations of torch.nn.GRUCell. h is zero where None; dtypes and errors as of ``lstm``.
    """
    h_out: Tensor = _cell(GRU, x, (h,), weights)
    return h_out


def rnn_cell(x: Tensor, h: Tensor | None, weights: Weights, *, relu: bool = False) -> Tensor:
    """One Elman step (tanh, or relu). x [B, I], h [B, H], weights [W, R, b_ih, b_hh] -> h.

    The equations of torch.nn.RNNCell. h is zero where None; dtypes and errors as of ``lstm``.
    """
    h_out: Tensor = _cell(RNN, x, (h,), weights, bool(relu))
    return h_out
