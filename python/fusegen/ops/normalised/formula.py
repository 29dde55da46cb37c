"""The maths of normalised cells, and of cells whose recurrent matrix is of blocks, in plain torch: the oracle
of the tests and the formula of the second order. Notation, dtypes and rounding as in ``fusegen.reference``.

``LN(a; g, b) = g * (a - mean(a)) / sqrt(var(a) + eps) + b`` over a row, the variance over its count (Ba et
al. 2016, arXiv:1607.06450). R is block-diagonal (``recurrent``); one block is a whole matrix. ``weights`` is
flat, per direction ``[W, R, g_ih, b_ih, g_hh, b_hh, g_c, b_c]``, None where the form has none or the layer no
biases. Gates are in torch's order, LSTM i, f, g, o; GRU r, z, n; s is the sigmoid. By ``norm``:

"haste": Haste's LayerNormLSTM and LayerNormGRU, by its documentation (github.com/lmnt-com/haste).
    a = LN(W x; g_ih, b_ih) + LN(R h; g_hh, b_hh), each over all gates; of the LSTM without b_hh.
    LSTM: c' = s(a_f) c + s(a_i) tanh(a_g), h' = s(a_o) tanh(LN(c'; g_c, b_c)).
    GRU: r = s(a_r), z = s(a_z), n = tanh(x_n + r * q_n) of the two parts of a_n, h' = z h + (1 - z) n.
"ba": Ba et al. 2016, supplement.
    LSTM: the same with b_hh (the paper's b is one with both). GRU: the norms over r and z together and over n
    alone, r and n likewise, h' = (1 - z) h + z n.
"dreamer": DreamerV3's GRU (Hafner et al. 2023, arXiv:2301.04104; danijar/dreamerv3).
    a = LN(W x + R h; g_ih, b_ih), one norm over all gates.
    GRU: r = s(a_r), n = tanh(r * a_n), z = s(a_z - 1), h' = (1 - z) h + z n.
    LSTM, which Dreamer has not: c' = s(a_f) c + s(a_i) tanh(a_g), h' = s(a_o) tanh(c').
"none": the plain cell, a = W x + b_ih + R h + b_hh.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...reference import States, Weights, _rounder, _wide

WEIGHTS = ("W", "R", "g_ih", "b_ih", "g_hh", "b_hh", "g_c", "b_c")


class Resets(NamedTuple):
    """Where sequences start anew: ``at`` [T, B] bool, true where a boundary lies between the steps t-1 and t,
    and the states that are read behind it, [D, B, H] each; None: zero."""

    at: Tensor
    h: Tensor | None = None
    c: Tensor | None = None


class Kind(NamedTuple):
    """A cell as the engine names it ("lstm", "gru", "rnn_tanh", "rnn_relu"), its norm, how many blocks R has,
    and what norms add to variances."""

    cell: str
    norm: str = "none"
    blocks: int = 1
    eps: float = 1e-5


def recurrent(h: Tensor, R: Tensor, blocks: int) -> Tensor:
    """R h for h [B, H] and the blocks on the diagonal of R, [G*H, H/blocks]: row j H + u of it multiplies the
    units of u's block."""
    if blocks == 1:
        return F.linear(h, R)
    m = R.shape[1]
    of_blocks = R.view(-1, blocks, m, m)  # [gate, block, unit, what it reads]
    return torch.einsum("gbum,nbm->ngbu", of_blocks, h.view(-1, blocks, m)).flatten(1)


def layer_norm(a: Tensor, gain: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """LN of the rows of a."""
    return F.layer_norm(a, gain.shape, gain, bias, eps)


def _rows_norm(a: Tensor, gain: Tensor, bias: Tensor | None, kind: Kind) -> Tensor:
    """Of all gates of W x or R h, over what the form averages over."""
    if kind.norm != "ba" or kind.cell != "gru":
        return layer_norm(a, gain, bias, kind.eps)
    sizes = [2 * a.shape[-1] // 3, a.shape[-1] // 3]
    biases = (None, None) if bias is None else bias.split(sizes)
    parts = zip(a.split(sizes, -1), gain.split(sizes), biases, strict=True)
    return torch.cat([layer_norm(part, g, b, kind.eps) for part, g, b in parts], -1)


def _plus(a: Tensor, bias: Tensor | None) -> Tensor:
    return a if bias is None else a + bias


def _input_part(x: Tensor, weights: Weights, kind: Kind) -> Tensor:
    """W x, normalised where the form does that apart; with its bias, where no norm has one."""
    W, _, g_ih, b_ih, *_ = weights
    assert W is not None
    a = F.linear(x, W)
    if kind.norm == "none":
        return _plus(a, b_ih)
    if kind.norm == "dreamer":
        return a
    assert g_ih is not None
    return _rows_norm(a, g_ih, b_ih, kind)


def _recurrent_part(gx: Tensor, h: Tensor, weights: Weights, kind: Kind) -> Tensor:
    """R h likewise; of "dreamer" the normalised sum."""
    _, R, g_ih, b_ih, g_hh, b_hh, *_ = weights
    assert R is not None
    a = recurrent(h, R, kind.blocks)
    if kind.norm == "none":
        return _plus(a, b_hh)
    if kind.norm == "dreamer":
        assert g_ih is not None
        return layer_norm(gx + a, g_ih, b_ih, kind.eps)
    assert g_hh is not None
    return _rows_norm(a, g_hh, b_hh, kind)


def _lstm_step(gx: Tensor, h: Tensor, c: Tensor, weights: Weights, kind: Kind) -> States:
    a = _recurrent_part(gx, h, weights, kind)
    i, f, g, o = (a if kind.norm == "dreamer" else gx + a).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    g_c, b_c = weights[6:]
    seen = c if g_c is None else layer_norm(c, g_c, b_c, kind.eps)
    return torch.sigmoid(o) * torch.tanh(seen), c


def _gru_step(gx: Tensor, h: Tensor, weights: Weights, kind: Kind) -> States:
    a = _recurrent_part(gx, h, weights, kind)
    a_r, a_z, q = a.chunk(3, -1)
    if kind.norm == "dreamer":
        r, z, n = torch.sigmoid(a_r), torch.sigmoid(a_z - 1), torch.tanh(torch.sigmoid(a_r) * q)
        return ((1 - z) * h + z * n,)
    x_r, x_z, x_n = gx.chunk(3, -1)
    r, z = torch.sigmoid(x_r + a_r), torch.sigmoid(x_z + a_z)
    n = torch.tanh(x_n + r * q)
    return ((1 - z) * h + z * n if kind.norm == "ba" else (1 - z) * n + z * h,)


def _rnn_step(gx: Tensor, h: Tensor, weights: Weights, kind: Kind) -> States:
    a = gx + _recurrent_part(gx, h, weights, kind)
    return (torch.relu(a) if kind.cell == "rnn_relu" else torch.tanh(a),)


_STEPS: dict[str, Callable[..., States]] = {
    "lstm": _lstm_step,
    "gru": _gru_step,
    "rnn_tanh": _rnn_step,
    "rnn_relu": _rnn_step,
}


def _anew(t: int, reverse: bool, resets: Resets | None, lengths: Tensor | None) -> Tensor | None:
    """Which rows start anew before step t is run, [B, 1]; None: none does."""
    at = t + 1 if reverse else t
    if resets is None or at == resets.at.shape[0]:
        return None
    here = resets.at[at]
    return (here if lengths is None else here & (lengths > at)).unsqueeze(-1)


class _Direction(NamedTuple):
    """One direction of a layer; past its length a sequence keeps its state and gives zeros."""

    kind: Kind
    weights: Weights
    lengths: Tensor | None
    starts: States  # behind a boundary
    anew: Callable[[int], Tensor | None]
    rounded: Callable[[Tensor], Tensor]

    def over(self, x: Tensor, state: States, reverse: bool) -> tuple[Tensor, States]:
        gx, T = _input_part(x, self.weights, self.kind), x.shape[0]
        out: list[Tensor] = []
        for t in reversed(range(T)) if reverse else range(T):
            y, state = self._step(t, gx[t], state)
            out.append(y)
        return torch.stack(out[::-1] if reverse else out), state

    def _step(self, t: int, gx: Tensor, state: States) -> tuple[Tensor, States]:
        read, anew = state, self.anew(t)
        if anew is not None:
            read = tuple(torch.where(anew, new, s) for new, s in zip(self.starts, state, strict=True))
        h, *c = _STEPS[self.kind.cell](gx, *read, self.weights, self.kind)
        y = self.rounded(h)
        new: States = (y, *c)
        if self.lengths is None:
            return y, new
        live = (self.lengths > t).unsqueeze(-1)
        kept = tuple(torch.where(live, n, s) for n, s in zip(new, state, strict=True))
        return torch.where(live, y, torch.zeros_like(y)), kept


def layer(
    kind: Kind,
    x: Tensor,
    states: Sequence[Tensor | None],
    weights: Weights,
    lengths: Tensor | None = None,
    resets: Resets | None = None,
) -> tuple[Tensor, ...]:
    """One layer. x [T, B, I], states [D, B, H] each (None: zeros), lengths [B] (None: all T) -> y [T, B, D*H]
    and the final states [D, B, H]."""
    dtype, count = x.dtype, len(WEIGHTS)
    x, rounded = _wide(x), _rounder(dtype)
    if lengths is not None:  # what lies past the end must not matter, NaN included
        lengths = lengths.to(x.device)
        past = torch.arange(x.shape[0], device=x.device).unsqueeze(1) >= lengths
        x = x.masked_fill(past.unsqueeze(-1), 0)
    given = () if resets is None else (resets.h, resets.c)
    ys, finals = [], []
    for d in range(len(weights) // count):
        of_d = [_wide(w) for w in weights[d * count : (d + 1) * count]]
        R = of_d[1]
        assert R is not None
        zeros = x.new_zeros(x.shape[1], R.shape[1] * kind.blocks)
        state = tuple(zeros if s is None else _wide(s[d]) for s in states)
        starts = tuple(zeros if s is None else _wide(s[d]) for s in given[: len(state)])
        anew = partial(_anew, reverse=d == 1, resets=resets, lengths=lengths)
        run = _Direction(kind, of_d, lengths, starts, anew, rounded)
        y, state = run.over(x, state, reverse=d == 1)
        ys.append(y)
        finals.append(state)
    y = torch.cat(ys, -1) if len(ys) > 1 else ys[0]
    return y.to(dtype), *(torch.stack(s).to(dtype) for s in zip(*finals, strict=True))
