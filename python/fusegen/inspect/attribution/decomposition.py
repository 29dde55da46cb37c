"""Contextual decomposition of what an LSTM's answer rests on (Murdoch, Liu and Yu 2018, arXiv:1801.05453).

Each h and c is split into beta, what a phrase brings about, and gamma, the rest. Of a sum inside a sigmoid or
tanh each part gets its mean share over the orders in which they may come, the bias first (their equations 21
and 22, for three parts); products are multiplied out, and what holds gamma in any factor goes to gamma
(equations 13 to 18). The output gate is not split. So beta + gamma is the state itself, step by step.

Beyond the paper: of a stack, a layer's input is beta + gamma of the layer below; a reverse direction runs
over the same phrases; a projection is linear; initial states are gamma.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn._base import Recurrent
from ...ops.checks import as_lengths
from ...ops.spec import LSTM

_WHAT = "fusegen.inspect.contextual_decomposition"
_APART = 1e-4  # relative, that a readout may be from affine
_ROUNDINGS = 8  # of its dtype, that it may be from it in any case

Readout = Callable[[Tensor], Tensor]


class Decomposition(NamedTuple):
    """relevant, irrelevant [N, B, C]: what each phrase, and what the rest, adds to each logit; bias [C]: the
    readout's own. relevant + irrelevant + bias is the logit, whichever the phrase.

    All of the readout's dtype, a floating one.
    """

    relevant: Tensor
    irrelevant: Tensor
    bias: Tensor


class Shares(NamedTuple):
    """steps [T, B, C]: what each step adds to each logit; rest [B, C]: what the initial state adds (zero
    without one); bias [C]. steps.sum(0) + rest + bias is the logit.

    All of the readout's dtype, a floating one.
    """

    steps: Tensor
    rest: Tensor
    bias: Tensor


def contextual_decomposition(
    layer: nn.Module,
    x: Tensor,
    readout: Readout,
    phrases: Sequence[tuple[int, int]] | None = None,
    *,
    hx: tuple[Tensor, Tensor] | None = None,
    lengths: Any = None,
) -> Decomposition:
    """What each phrase of a sequence adds to the logits that are read off an LSTM.

    Args:
        layer: a fusegen.nn.LSTM (converted ones too; stacked, bidirectional, projected), read as in
            evaluation.
        x: its input as the layer takes it, [T, B, I] or [B, T, I] with batch_first: embeddings, say.
        readout: from the layer's output [T, B, D*P] ([B, T, D*P] with batch_first) to logits [B, C]; it has
            to be affine, like ``lambda y: model.head(y[-1])``, or a mean over steps before it.
        phrases: (begin, end) each, the steps begin..end-1; each step alone if None.
        hx: initial states, as the layer takes them.
        lengths: of the sequences, as the layer takes them.

    Returns a ``Decomposition`` in the readout's dtype; the recurrence itself is run in float64, all phrases
    side by side: N times the steps of a call. Raises TypeError for another layer, ValueError for one with
    zoneout, phrases outside of 0..T, and a readout that is not affine.
    """
    cd = _Run(layer, x, readout, hx, lengths)
    if phrases is None:
        phrases = [(t, t + 1) for t in range(cd.T)]
    for begin, end in phrases:
        if not 0 <= begin < end <= cd.T:
            raise ValueError(f"{_WHAT}: expected phrases within 0..{cd.T}, not empty, got {(begin, end)}")
    if not phrases:
        raise ValueError(f"{_WHAT}: expected at least one phrase, got none")
    return cd.decompose(phrases)


def logit_by_step(
    layer: nn.Module,
    x: Tensor,
    readout: Readout,
    *,
    hx: tuple[Tensor, Tensor] | None = None,
    lengths: Any = None,
) -> Shares:
    """What each step adds to the logits that are read off an LSTM, so that the sum is the logit: by how much
    the contextual decomposition's relevant part grows when the phrase 0..t takes in one step more.

    Arguments and errors as of ``contextual_decomposition``; returns ``Shares``.

    layer, x [T, B, I], readout, hx and lengths are those of ``contextual_decomposition``; the shares have
    the readout's dtype, a floating one.
    """
    cd = _Run(layer, x, readout, hx, lengths)
    got = cd.decompose([(0, t + 1) for t in range(cd.T)])
    steps = torch.cat([got.relevant[:1], got.relevant.diff(dim=0)])
    return Shares(steps, got.irrelevant[-1], got.bias)


class _Pair(NamedTuple):
    """beta and gamma."""

    beta: Tensor
    gamma: Tensor

    @property
    def sum(self) -> Tensor:
        return self.beta + self.gamma


class _Run:
    """One layer on one input, checked; time-major and in float64 inside."""

    def __init__(self, layer: nn.Module, x: Tensor, readout: Readout, hx: Any, lengths: Any) -> None:
        if not isinstance(layer, Recurrent) or layer._spec is not LSTM:
            come = type(layer)
            hint = ": fusegen.convert(model) first" if isinstance(layer, nn.LSTM) else ""
            whose = "torch.nn." if come.__module__.startswith("torch.nn.") else ""
            raise TypeError(f"{_WHAT}: expected a fusegen.nn.LSTM, got {whose}{come.__name__}{hint}")
        if layer._zones:
            raise ValueError(f"{_WHAT}: expected an LSTM without zoneout, got {layer}")
        if not isinstance(x, Tensor) or x.dim() != 3:
            raise ValueError(f"{_WHAT}: expected x as a Tensor with 3 dimensions")
        self.layer, self.readout, self.dtype = layer, readout, x.dtype
        time_major = x.detach().transpose(0, 1) if layer.batch_first else x.detach()
        self.lengths = None if lengths is None else as_lengths(_WHAT, lengths, time_major)
        self.x = time_major.double()
        self.T, self.B, _ = self.x.shape
        self.hx = None if hx is None else tuple(s.detach().double() for s in hx)

    def decompose(self, phrases: Sequence[tuple[int, int]]) -> Decomposition:
        N, T, B = len(phrases), self.T, self.B
        t = torch.arange(T, device=self.x.device).unsqueeze(1)
        begin, end = torch.tensor(phrases, device=self.x.device).T
        inside = ((t >= begin) & (t < end)).repeat_interleave(B, 1).unsqueeze(-1)  # [T, N*B, 1]
        x = self.x.repeat(1, N, 1)
        pair = _Pair(torch.where(inside, x, 0), torch.where(inside, 0, x))
        D = 2 if self.layer.bidirectional else 1
        with torch.no_grad():
            for number in range(self.layer.num_layers):
                weights = [None if w is None else w.detach().double() for w in self.layer._weights(number)]
                made = [
                    self._direction(pair, inside, weights[d * 5 : (d + 1) * 5], number * D + d, N)
                    for d in range(D)
                ]
                pair = _Pair(*(torch.cat([m[i] for m in made], -1) for i in range(2)))
            return self._read(pair, N)

    def _direction(
        self, x: _Pair, inside: Tensor, weights: Sequence[Tensor | None], plane: int, N: int
    ) -> _Pair:
        W, R, b_ih, b_hh, W_hr = weights
        assert W is not None and R is not None
        H, P = R.shape[0] // 4, R.shape[1]
        bias = sum((b for b in (b_ih, b_hh) if b is not None), W.new_zeros(4 * H))
        h, c = (_Pair(x.beta.new_zeros(N * self.B, n), x.beta.new_zeros(N * self.B, n)) for n in (P, H))
        if self.hx is not None:
            h, c = (_Pair(s.beta, g[plane].repeat(N, 1)) for s, g in zip((h, c), self.hx, strict=True))
        lengths = None if self.lengths is None else self.lengths.to(W.device).repeat(N)
        out: list[_Pair] = [h] * self.T
        reverse = self.layer.bidirectional and plane % 2 == 1
        for t in reversed(range(self.T)) if reverse else range(self.T):
            a = _Pair(*(F.linear(part[t], W) + F.linear(s, R) for part, s in zip(x, h, strict=True)))
            new_h, new_c = _step(a, bias, c, inside[t])
            if W_hr is not None:
                new_h = _Pair(*(F.linear(part, W_hr) for part in new_h))
            if lengths is None:
                out[t], h, c = new_h, new_h, new_c
                continue
            live = (lengths > t).unsqueeze(1)
            out[t] = _Pair(*(torch.where(live, part, 0) for part in new_h))
            h, c = (
                _Pair(*(torch.where(live, n, s) for n, s in zip(new, old, strict=True)))
                for new, old in ((new_h, h), (new_c, c))
            )
        return _Pair(*(torch.stack([step[i] for step in out]) for i in range(2)))

    def _read(self, y: _Pair, N: int) -> Decomposition:
        """Of y [T, N*B, D*P]."""

        def logits(part: Tensor) -> Tensor:
            part = part.to(self.dtype)
            got = self.readout(part.transpose(0, 1) if self.layer.batch_first else part)
            if not isinstance(got, Tensor) or got.dim() != 2 or got.shape[0] != N * self.B:
                shape = list(got.shape) if isinstance(got, Tensor) else type(got).__name__
                raise ValueError(f"{_WHAT}: expected readout to give [batch, classes], got {shape}")
            return got

        zero = logits(torch.zeros_like(y.beta))
        beta, gamma, whole = logits(y.beta) - zero, logits(y.gamma) - zero, logits(y.sum) - zero
        apart = (beta + gamma - whole).abs().max() if whole.numel() else whole.sum()
        rounding = max(_APART, _ROUNDINGS * torch.finfo(whole.dtype).eps)  # 16 bits are no closer than that
        if apart > rounding * max(1.0, whole.abs().max().item()):
            raise ValueError(f"{_WHAT}: expected readout to be affine in the layer's output; it is not")
        shape = (N, self.B, -1)
        return Decomposition(beta.view(shape), gamma.view(shape), zero[0])


def _shares(a: _Pair, bias: Tensor, f: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """What beta, gamma and the bias have of f(beta + gamma + bias): the bias first, then the mean over the
    two orders of the others."""
    alone, both = f(bias), f(a.sum + bias)
    with_beta, with_gamma = f(a.beta + bias), f(a.gamma + bias)
    return (
        0.5 * (with_beta - alone + both - with_gamma),
        0.5 * (with_gamma - alone + both - with_beta),
        alone.expand_as(both),
    )


def _step(a: _Pair, bias: Tensor, c: _Pair, inside: Tensor) -> tuple[_Pair, _Pair]:
    """h and c after a step, from the parts of W x + R h [n, 4H] and of c; ``inside``: of which rows the step
    is one of the phrase's."""
    gates = [_Pair(*parts) for parts in zip(*(part.chunk(4, -1) for part in a), strict=True)]
    b_i, b_f, b_g, b_o = bias.chunk(4)
    (i_b, i_g, i_0), (f_b, f_g, f_0) = (
        _shares(gate, b, torch.sigmoid) for gate, b in ((gates[0], b_i), (gates[1], b_f))
    )
    g_b, g_g, g_0 = _shares(gates[2], b_g, torch.tanh)
    own = i_0 * g_0  # of biases alone: the step's
    beta = (f_b + f_0) * c.beta + i_b * (g_b + g_0) + i_0 * g_b + torch.where(inside, own, 0)
    gamma = (
        (f_b + f_g + f_0) * c.gamma + f_g * c.beta
        + i_g * (g_b + g_g + g_0) + (i_b + i_0) * g_g + torch.where(inside, 0, own)
    )  # fmt: skip
    new = _Pair(beta, gamma)
    o = torch.sigmoid(gates[3].sum + b_o)
    h_beta, h_gamma, _ = _shares(new, torch.zeros_like(b_o), torch.tanh)
    return _Pair(o * h_beta, o * h_gamma), new
