"""The maths of every layer and cell in plain torch: the oracle of the tests and the formula of the second
order.

Notation: T steps, B batch, I input size, H hidden size, P projected size (H without a projection), D
directions; gate order is torch's (LSTM i, f, g, o; GRU r, z, n). ``weights`` is flat, per direction ``[W, R,
b_ih, b_hh]`` (LSTM: and ``W_hr`` or None), biases None where the layer has none; direction 1 runs the
sequence backwards.

Any floating dtype; float64 is what the tests compare with. 16-bit dtypes compute in float32 and round h to
the dtype at every step (the rounding passes gradients straight through), which is what the kernels do. Every
function is differentiable any number of times and works under ``torch.func``.

Sources: LSTM, Hochreiter & Schmidhuber 1997 with forget gates (Gers et al. 2000) and projection (Sak et al.
2014, arXiv:1402.1128); GRU, Cho et al. 2014 (arXiv:1406.1078) in cuDNN's form, where the reset gate acts
after the recurrent product; RNN, Elman 1990. The equations are those of the torch.nn documentation. What
``Inside`` asks for: recurrent dropout, Gal & Ghahramani 2016 (arXiv:1512.05287) on h and Semeniuta et al.
2016 (arXiv:1603.05118) on the candidate; zoneout, Krueger et al. 2017 (arXiv:1606.01305).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _philox, losses
from ._inside import (
    CANDIDATE_DROPOUT,
    DISCRIMINATOR,
    STATE_DROPOUT,
    WEIGHT_DROP,
    ZONEOUT_C,
    ZONEOUT_H,
    Inside,
    single,
)

Weights = Sequence[Tensor | None]
"""The weights of a layer, flat: per direction ``[W, R, b_ih, b_hh]``, of an LSTM and ``W_hr`` or None;
biases are None where the layer has none."""
States = tuple[Tensor, ...]
"""The state of a layer: (h,), or of an LSTM (h, c)."""
Step = Callable[..., States]
"""One step: ``(t, gx, *states) -> states``, with ``gx = W x_t + b_ih``."""
Mask = Tensor | None
"""A mask of dropout, by which its elements are multiplied: 0 or 1 / (1 - p); None where there is no
dropout."""
_HALF = (torch.bfloat16, torch.float16)
_MaybeTensor = TypeVar("_MaybeTensor", Tensor, Tensor | None)


def _counted(t: Tensor, features: int) -> Tensor:
    """Samples [N, n], no gradient going to what lies behind the first features."""
    return torch.cat((t[:, :features], t[:, features:].detach()), 1)


def _wide(t: _MaybeTensor) -> _MaybeTensor:
    """t, in float32 if its type is a 16-bit one."""
    return t.float() if t is not None and t.dtype in _HALF else t


def _rounder(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Rounds h to a 16-bit dtype, and passes its gradient straight through."""
    if dtype not in _HALF:
        return lambda h: h
    return lambda h: h + (h.to(dtype).to(h.dtype) - h).detach()


class _Masks(NamedTuple):
    """Of one step: on h where R reads it, and on the candidate."""

    h: Mask = None
    candidate: Mask = None


_NO_MASKS = _Masks()


def _masked(t: Tensor, mask: Mask) -> Tensor:
    return t if mask is None else t * mask


def lstm_step(
    gx: Tensor,
    h: Tensor,
    c: Tensor,
    R: Tensor,
    b_hh: Tensor | None,
    W_hr: Tensor | None,
    masks: _Masks = _NO_MASKS,
) -> tuple[Tensor, Tensor]:
    """One LSTM step from ``gx = W x + b_ih`` [B, 4H], h [B, P], c [B, H] to (h, c).

    R [4H, P], b_hh [4H] or None, W_hr [P, H] or None. masks: of recurrent dropout. Any floating dtype;
    errors are torch's own. The equations of torch.nn.LSTM, gates i, f, g, o.
    """
    i, f, g, o = (gx + F.linear(_masked(h, masks.h), R, b_hh)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * _masked(torch.tanh(g), masks.candidate)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h if W_hr is None else F.linear(h, W_hr)), c


def gru_step(gx: Tensor, h: Tensor, R: Tensor, b_hh: Tensor | None, masks: _Masks = _NO_MASKS) -> Tensor:
    """One GRU step from ``gx = W x + b_ih`` [B, 3H] and h [B, H]: n = tanh(gx_n + r * (R_n h + b_hn)).

    R [3H, H], b_hh [3H] or None. masks: of recurrent dropout. Any floating dtype; errors are torch's own.
    The equations of torch.nn.GRU, gates r, z, n.
    """
    xr, xz, xn = gx.chunk(3, -1)
    hr, hz, hn = F.linear(_masked(h, masks.h), R, b_hh).chunk(3, -1)
    z = torch.sigmoid(xz + hz)
    n = _masked(torch.tanh(xn + torch.sigmoid(xr + hr) * hn), masks.candidate)
    return (1 - z) * n + z * h


def rnn_step(
    gx: Tensor, h: Tensor, R: Tensor, b_hh: Tensor | None, relu: bool, masks: _Masks = _NO_MASKS
) -> Tensor:
    """One RNN step from ``gx = W x + b_ih`` [B, H] and h [B, H], tanh or relu.

    R [H, H], b_hh [H] or None. masks: of recurrent dropout. Any floating dtype; errors are torch's own. The
    equations of torch.nn.RNN.
    """
    a = gx + F.linear(_masked(h, masks.h), R, b_hh)
    return _masked(torch.relu(a) if relu else torch.tanh(a), masks.candidate)


def weight_drop(R: Tensor, key: Tensor, place: int, rate: float) -> Tensor:
    """R [G*H, P] with each element zero with the probability ``rate``, else divided by 1 - rate: DropConnect
    as Merity et al. 2018 (arXiv:1708.02182) use it. It is its own gradient.

    key: an int64 scalar, from which the mask is made. place: which matrix of the call it is, so that each
    has a mask of its own. Any floating dtype; errors are torch's own.
    """
    rows = torch.arange(R.shape[0], device=R.device)
    dropped = _philox.dropped(key, WEIGHT_DROP, place, rows, R.shape[1], rate)
    return torch.where(dropped, torch.zeros_like(R), R * (1 / (1 - single(rate))))


class _Direction:
    """What happens inside one direction of a layer: ``Inside`` as its steps ask for it. States are of the
    sizes P and H, in the type that is computed in."""

    def __init__(self, inside: Inside, d: int, D: int, x: Tensor, sizes: tuple[int, int]) -> None:
        (self.T, self.B, _), (self.P, self.H), self.reverse = x.shape, sizes, d == 1
        self.x, self.inside, self.place = x, inside, inside.layer * D + d
        self.rates = [single(rate) for rate in inside.rates or (0.0,) * 4]
        self.starts = tuple(None if s is None else _wide(s[d]) for s in (inside.reset_h, inside.reset_c))
        # one mask a sequence; those of all steps
        self.on_h = self._scaled(STATE_DROPOUT, self.B, self.P)
        self.on_candidate = self._of_steps(self._scaled(CANDIDATE_DROPOUT, self.T * self.B, self.H))
        kept = [(ZONEOUT_H, self.P), (ZONEOUT_C, self.H)]
        self.kept = [self._of_steps(self._dropped(which, self.T * self.B, n)) for which, n in kept]

    def _of_steps(self, mask: Mask) -> Mask:
        return mask if mask is None else mask.view(self.T, self.B, -1)

    def _dropped(self, which: int, rows: int, n: int) -> Mask:
        rate, key = self.rates[which], self.inside.key
        if rate == 0 or not self.inside.training:
            return None
        assert key is not None
        at = torch.arange(rows, device=self.x.device)
        return _philox.dropped(key, which, self.place, at, n, rate)

    def _scaled(self, which: int, rows: int, n: int) -> Mask:
        dropped = self._dropped(which, rows, n)
        return None if dropped is None else (~dropped).to(self.x.dtype) / (1 - self.rates[which])

    def masks(self, t: int) -> _Masks:
        return _Masks(self.on_h, None if self.on_candidate is None else self.on_candidate[t])

    def start(self, t: int, states: States, lengths: Tensor | None) -> States:
        """The states that step t reads: new ones behind a boundary."""
        resets, at = self.inside.resets, t + self.reverse
        if resets is None or at == self.T:
            return states
        here = resets[at] if lengths is None else resets[at] & (lengths > at)
        return tuple(
            torch.where(here.unsqueeze(1), torch.zeros_like(s) if new is None else new, s)
            for s, new in zip(states, self.starts, strict=False)
        )

    def zone(self, t: int, fresh: States, old: States) -> States:
        out = []
        for f, o, rate, kept in zip(fresh, old, self.rates[ZONEOUT_H:], self.kept, strict=False):
            mean = f if rate == 0 or self.inside.training else rate * o + (1 - rate) * f
            out.append(mean if kept is None else torch.where(kept[t], o, f))
        return tuple(out)


def _scan(
    step: Step, gx: Tensor, state: States, lengths: Tensor | None, direction: _Direction
) -> tuple[Tensor, States]:
    """Runs ``step(t, gx[t], *state)`` over time; past its length a sequence keeps its state and gives
    zeros."""
    T = gx.shape[0]
    out: list[Tensor] = []
    for t in reversed(range(T)) if direction.reverse else range(T):
        state = direction.start(t, state, lengths)
        new = step(t, gx[t], *state)
        if lengths is None:
            state, y = new, new[0]
        else:
            live = (lengths > t).unsqueeze(-1)
            y = torch.where(live, new[0], torch.zeros_like(new[0]))
            state = tuple(torch.where(live, n, s) for n, s in zip(new, state, strict=True))
        out.append(y)
    return torch.stack(out[::-1] if direction.reverse else out), state


def _layer(
    step_of: Callable[..., Step],
    x: Tensor,
    starts: tuple[Tensor | None, ...],
    directions: Sequence[Weights],
    lengths: Tensor | None,
    inside: Inside | None,
) -> tuple[Tensor, ...]:
    """All directions of one layer; ``step_of(R, b_hh)`` (LSTM: and ``W_hr``) gives a step, which takes gx,
    the states and masks. Returns y and the final states in x's dtype."""
    dtype = x.dtype
    rounded = _rounder(dtype)
    x = _wide(x)
    if lengths is not None:  # what lies past the end must not matter, NaN included
        lengths = lengths.to(x.device)
        past = torch.arange(x.shape[0], device=x.device).unsqueeze(1) >= lengths
        x = x.masked_fill(past.unsqueeze(-1), 0)
    ys, finals = [], []
    for d, weights in enumerate(directions):
        W, R, b_ih, b_hh, *W_hr = (_wide(w) for w in weights)
        assert W is not None and R is not None
        sizes = (R.shape[1], R.shape[0] // 4)  # of h, and of an LSTM's c
        state = tuple(
            x.new_zeros(x.shape[1], n) if s is None else _wide(s[d])
            for s, n in zip(starts, sizes, strict=False)
        )
        direction = _Direction(inside or Inside(), d, len(directions), x, (R.shape[1], state[-1].shape[1]))
        cell = step_of(R, b_hh, *W_hr)

        def step(
            t: int, gx: Tensor, *old: Tensor, cell: Step = cell, direction: _Direction = direction
        ) -> States:
            h, *c = direction.zone(t, cell(gx, *old, masks=direction.masks(t)), old)
            return rounded(h), *c

        y, state = _scan(step, F.linear(x, W, b_ih), state, lengths, direction)
        ys.append(y)
        finals.append(state)
    y = torch.cat(ys, -1) if len(ys) > 1 else ys[0]
    return y.to(dtype), *(torch.stack(s).to(dtype) for s in zip(*finals, strict=True))


def _directions(weights: Weights, count: int) -> list[Weights]:
    """The flat weights, ``count`` of them a direction."""
    return [weights[i : i + count] for i in range(0, len(weights), count)]


def lstm(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Weights,
    lengths: Tensor | None = None,
    inside: Inside | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer. x [T, B, I], h0 [D, B, P], c0 [D, B, H] (None: zeros), lengths [B] (None: all T) -> y
    [T, B, D*P], h_n, c_n.

    weights: per direction [W, R, b_ih, b_hh, W_hr], see ``Weights``. inside: resets, dropout and zoneout;
    None for none. Any floating dtype, 16-bit ones computed in float32; errors are torch's own. Hochreiter
    and Schmidhuber 1997 with forget gates, as torch.nn.LSTM.
    """

    def step_of(R: Tensor, b_hh: Tensor | None, W_hr: Tensor | None) -> Step:
        return functools.partial(lstm_step, R=R, b_hh=b_hh, W_hr=W_hr)

    y, h_n, c_n = _layer(step_of, x, (h0, c0), _directions(weights, 5), lengths, inside)
    return y, h_n, c_n


def gru(
    x: Tensor,
    h0: Tensor | None,
    weights: Weights,
    lengths: Tensor | None = None,
    inside: Inside | None = None,
) -> tuple[Tensor, Tensor]:
    """One GRU layer. x [T, B, I], h0 [D, B, H] (None: zeros), lengths [B] (None: all T) -> y [T, B, D*H], h_n
    [D, B, H].

    weights: per direction [W, R, b_ih, b_hh]. inside: resets, dropout and zoneout; None for none. Any
    floating dtype, 16-bit ones computed in float32; errors are torch's own. Cho et al. 2014, as
    torch.nn.GRU.
    """

    def step_of(R: Tensor, b_hh: Tensor | None) -> Step:
        return lambda gx, h, masks: (gru_step(gx, h, R, b_hh, masks),)

    y, h_n = _layer(step_of, x, (h0,), _directions(weights, 4), lengths, inside)
    return y, h_n


def rnn(
    x: Tensor,
    h0: Tensor | None,
    weights: Weights,
    lengths: Tensor | None = None,
    relu: bool = False,
    inside: Inside | None = None,
) -> tuple[Tensor, Tensor]:
    """One RNN layer, tanh or relu. x [T, B, I], h0 [D, B, H] (None: zeros), lengths [B] (None: all T) -> y
    [T, B, D*H], h_n [D, B, H].

    weights: per direction [W, R, b_ih, b_hh]. inside: resets, dropout and zoneout; None for none. Any
    floating dtype, 16-bit ones computed in float32; errors are torch's own. Elman 1990, as torch.nn.RNN.
    """

    def step_of(R: Tensor, b_hh: Tensor | None) -> Step:
        return lambda gx, h, masks: (rnn_step(gx, h, R, b_hh, relu, masks),)

    y, h_n = _layer(step_of, x, (h0,), _directions(weights, 4), lengths, inside)
    return y, h_n


def _one_step(
    layer: Callable[..., tuple[Tensor, ...]], x: Tensor, states: tuple[Tensor | None, ...], weights: Weights
) -> tuple[Tensor, ...]:
    starts = (None if s is None else s.unsqueeze(0) for s in states)
    return tuple(s.squeeze(0) for s in layer(x.unsqueeze(0), *starts, weights)[1:])


def lstm_cell(x: Tensor, h: Tensor | None, c: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor]:
    """One LSTM step. x [B, I], h and c [B, H] (None: zeros), weights [W, R, b_ih, b_hh] -> (h, c).

    Any floating dtype; errors are torch's own. The equations of torch.nn.LSTMCell.
    """
    h_next, c_next = _one_step(lstm, x, (h, c), [*weights, None])
    return h_next, c_next


def gru_cell(x: Tensor, h: Tensor | None, weights: Weights) -> Tensor:
    """One GRU step. x [B, I], h [B, H] (None: zeros), weights [W, R, b_ih, b_hh] -> h.

    Any floating dtype; errors are torch's own. The equations of torch.nn.GRUCell.
    """
    return _one_step(gru, x, (h,), weights)[0]


def rnn_cell(x: Tensor, h: Tensor | None, weights: Weights, relu: bool = False) -> Tensor:
    """One RNN step, tanh or relu. x [B, I], h [B, H] (None: zeros), weights [W, R, b_ih, b_hh] -> h.

    Any floating dtype; errors are torch's own. The equations of torch.nn.RNNCell.
    """
    return _one_step(functools.partial(rnn, relu=relu), x, (h,), weights)[0]


class MlpStep(NamedTuple):
    """loss (penalty included), penalty, logits [Nr + Nf], scalars as ``ops.discriminator.SCALARS``.

    All of the samples' dtype, a floating one; loss and penalty are scalars.
    """

    loss: Tensor
    penalty: Tensor
    logits: Tensor
    scalars: Tensor


class Smooth(NamedTuple):
    """A smooth activation of a discriminator's dense layers: its value, and its first derivative, which can
    be differentiated again. Functions of what the layer gave, and of ELU's alpha.

    value, derivative: of tensors of any shape and floating dtype.
    """

    value: Callable[[Tensor, float], Tensor]
    derivative: Callable[[Tensor, float], Tensor]


def _gated(x: Tensor, w: Tensor, dw: Tensor | float) -> Tensor:
    """The derivative of x sigmoid(w) by x, dw being w's."""
    s = torch.sigmoid(w)
    return s + x * s * torch.sigmoid(-w) * dw


def _gelu(x: Tensor, _: float) -> Tensor:
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * torch.erfc(-x / math.sqrt(2)) + x * density


def _gelu_tanh(x: Tensor, _: float) -> Tensor:
    k, a = 2 * math.sqrt(2 / math.pi), 0.044715
    return _gated(x, k * (x + a * x**3), k * (1 + 3 * a * x * x))


SMOOTH = {
    "tanh": Smooth(lambda x, _: torch.tanh(x), lambda x, _: 1 - torch.tanh(x) ** 2),
    "sigmoid": Smooth(lambda x, _: torch.sigmoid(x), lambda x, _: torch.sigmoid(x) * torch.sigmoid(-x)),
    "silu": Smooth(lambda x, _: F.silu(x), lambda x, _: _gated(x, x, 1.0)),
    "gelu": Smooth(lambda x, _: F.gelu(x), _gelu),
    "gelu_tanh": Smooth(lambda x, _: F.gelu(x, approximate="tanh"), _gelu_tanh),
    "elu": Smooth(
        lambda x, alpha: F.elu(x, alpha),
        # so that what lies above 0 sends nothing infinite back
        lambda x, alpha: torch.where(x <= 0, alpha * torch.exp(x.clamp(max=0)), 1.0),
    ),
}
"""The smooth activations that a fused discriminator step takes, by name."""


def dropout_factors(
    key: Tensor, layer: int, group: int, shape: tuple[int, int], rate: float, like: Tensor
) -> Tensor:
    """What Dropout multiplies by, 0 or 1 / (1 - rate), of this shape, rows by elements: of a discriminator's
    layer number ``layer`` (from 0), of what that reads; group: 0 for real samples, 1 for fake, 2 for a
    penalty's points. It is of like's dtype and device.

    key: an int64 scalar. The result is [rows, n]; errors are torch's own. Philox of Salmon et al. 2011, as
    the kernels have it.
    """
    rows, n = shape
    at = torch.arange(rows, device=like.device)
    dropped = _philox.below(key, DISCRIMINATOR, 3 * layer + group, at, n, rate)
    return like.new_full((), 1 / (1 - rate)).masked_fill(dropped, 0)


class _Dense(NamedTuple):
    """A discriminator of dense layers, as ``ops.discriminator.mlp_discriminator_step`` has it."""

    weights: Sequence[Tensor]
    biases: Weights
    slopes: Sequence[float]
    activations: Sequence[str]
    dropouts: Sequence[float]
    key: Tensor | None
    twice: tuple[bool, bool, bool]  # of which groups the second half are samples with noise

    def dropped(self, x: Tensor, layer: int, group: int) -> tuple[Tensor, Tensor | float]:
        """What layer number ``layer`` reads of x, and the factors."""
        rate = self.dropouts[layer] if self.dropouts else 0.0
        if not rate:
            return x, 1.0
        assert self.key is not None
        samples = len(x) // 2 if self.twice[group] else len(x)
        factors = dropout_factors(self.key, layer, group, (samples, x.shape[1]), rate, x)
        if self.twice[group]:
            factors = torch.cat((factors, factors))
        return x * factors, factors

    def activated(self, a: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """What stands behind layer number ``layer`` makes of what that gave, and its derivative."""
        slope, name = self.slopes[layer], self.activations[layer] if self.activations else ""
        if name in SMOOTH:
            return SMOOTH[name].value(a, slope), SMOOTH[name].derivative(a, slope)
        # At NaN, torch's relu passes a gradient on and its leaky_relu scales it.
        passes = a > 0 if slope else ~(a <= 0)
        derivative = torch.where(passes, torch.ones_like(a), torch.full_like(a, slope)).detach()
        return F.leaky_relu(a, slope) if slope else F.relu(a), derivative

    def logits(self, x: Tensor, group: int) -> tuple[Tensor, list[Tensor | float]]:
        """[N], and what a gradient is multiplied by behind each layer, from the samples on."""
        x, factors = self.dropped(x, 0, group)
        masks = [factors]
        for i, (W, b) in enumerate(zip(self.weights[:-1], self.biases[:-1], strict=True)):
            y, derivative = self.activated(F.linear(x, W, b), i)
            x, factors = self.dropped(y, i + 1, group)
            masks.append(derivative * factors)
        return F.linear(x, self.weights[-1], self.biases[-1]).squeeze(-1), masks

    def input_gradient(self, masks: Sequence[Tensor | float], n: int) -> Tensor:
        """The gradient of each of n logits by its input [n, n0]; differentiable by the weights."""
        u = self.weights[-1].expand(n, -1)
        for W, mask in zip(reversed(self.weights[:-1]), reversed(masks[1:]), strict=True):
            u = (u * mask) @ W
        return u * masks[0]


def mlp_discriminator_step(
    real: Tensor | None,
    fake: Tensor,
    mixed: Tensor | None,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    slopes: Sequence[float],
    loss: str,
    generator: bool = False,
    target: float = 1.0,
    r1: float = 0.0,
    r2: float = 0.0,
    gp: float = 0.0,
    near_real: float = 0.0,
    near_fake: float = 0.0,
    counted: int = 0,
    activations: Sequence[str] = (),
    dropouts: Sequence[float] = (),
    key: Tensor | None = None,
) -> MlpStep:
    """The step of ``ops.discriminator.mlp_discriminator_step``: GAN losses of ``fusegen.losses``, R1 and R2
    (Mescheder et al. 2018, arXiv:1801.04406), WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028).

    real [Nr, n], fake [Nf, n] and mixed [Nm, n]: samples, the last for ``gp``; real is None in a
    generator's step that does not pair. weights [n_l, n_{l-1}] and biases [n_l] or None: of the layers, the
    last giving one logit. slopes: what stands behind each layer but the last, a LeakyReLU of this slope, or
    ReLU at 0. activations: a layer's name in ``SMOOTH``, where it has a smooth one instead; slopes then
    hold ELU's alpha. dropouts: how likely an element that a layer reads is dropped; key: an int64, of which
    the masks are made. loss: one of ``LOSSES``. generator: its turn. target: of real samples. r1, r2, gp:
    weights of the penalties. near_real, near_fake: weights of approximate penalties; where one is not 0,
    the second half of real, or of fake, are the same samples with noise. counted: how many features get a
    gradient and count in ||grad D||; 0 for all. Any floating dtype; errors are torch's own.
    """
    dtype = fake.dtype
    real, fake, mixed = _wide(real), _wide(fake), _wide(mixed)
    weights, biases = [_wide(w) for w in weights], [_wide(b) for b in biases]
    if generator:  # the discriminator, and what it makes of real samples, stay as they are
        weights = [w.detach() for w in weights]
        biases = [None if b is None else b.detach() for b in biases]
        real = None if real is None else real.detach()
    if counted:
        real, fake = None if real is None else _counted(real, counted), _counted(fake, counted)
    D = _Dense(
        weights, biases, slopes, activations, dropouts, key, twice=(near_real > 0, near_fake > 0, False)
    )
    f, fake_masks = D.logits(fake, 1)
    r, real_masks = (None, []) if real is None else D.logits(real, 0)
    nan = fake.new_full((), torch.nan)
    norms = [nan, nan, nan]
    penalty = fake.new_zeros(())
    if generator:
        total = losses.generator_loss(loss, f, r)
    else:
        assert r is not None
        every = torch.cat((r, f))
        for weight, group in ((near_real, 0), (near_fake, 1)):
            if weight:
                own, noisy = (r if group == 0 else f).chunk(2)
                penalty = penalty + weight / 2 * (noisy - own).square().mean()
                r, f = (own, f) if group == 0 else (r, own)
        total = losses.discriminator_loss(loss, r, f, 1 - target)
        for i, (factor, masks) in enumerate(((r1, real_masks), (r2, fake_masks))):
            if factor:
                v = D.input_gradient(masks, len(r if i == 0 else f))[:, : counted or None]
                penalty = penalty + factor / 2 * v.square().sum(1).mean()
                norms[i] = v.norm(dim=1).mean()
        if gp:
            assert mixed is not None
            v = D.input_gradient(D.logits(mixed, 2)[1], len(mixed))[:, : counted or None]
            norm = v.norm(dim=1)
            penalty = penalty + gp * (norm - 1).square().mean()
            norms[2] = norm.mean()
    total = total + penalty
    of_real = (nan, nan) if r is None else (r.mean(), r.sign().mean())
    stats = (of_real[0], f.mean(), of_real[1], f.sign().mean())
    scalars = torch.stack([t.detach().double() for t in (total, penalty, *stats, *norms)])
    if generator:
        every = f if r is None else torch.cat((r, f))
    logits = every.detach().to(dtype)
    return MlpStep(total, penalty, logits, scalars)
