"""Sequences as what each step adds to what the steps before foretell, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .._arguments import number
from .whitening import within

LOGS = 4.0  # a positive feature whose largest value is so many times its least is learnt as its logarithm
FLOOR = 0.005  # of a feature's deviation: forecasts lean on nothing that is smaller
LEAST = 1e-4  # of a feature's deviation: what is smaller is not made larger
REACH, KNOTS = 3.0, 25  # of the curves that make a channel normal: deviations to each side, and quantiles
COEFFICIENTS = 160  # most values of steps before that foretell a step


@dataclass(frozen=True)
class Innovations:
    """A map of sequences [T, N, F] to [T, N, K], inverted on the data that it was fitted to.

    Each step is foretold linearly from the steps before it (by least squares, step for step over the windows;
    from ``order`` steps on, all later ones by the same coefficients), and what remains is given, in units of
    its deviation and less what the features before it say of it (a Cholesky factor): a causal whitening.
    Independent standard normal values in the place of the K channels are then a Gaussian process with the
    data's covariances and distributions step for step; whatever else the data have is for a generator to
    learn. A wandering price becomes its changes, a sine its curvature. At last each channel of each step is
    bent to a normal distribution (by ``curves``, linear between quantiles), so that heavy tails and lumps are
    there as the data have them. Channels are features, those left out that others determine; features that
    do not depend on each other stay apart.

    shift [F]: a feature x is learnt as log(x + shift), or as it is where shift is NaN (`LOGS`). mean, scale
    [F]: of that. kept: the features that make the channels; spread [K, F]: all features from them.
    coefficients: for t = 0 to order, [t K, K], constants [K] and factors [K, K], lower triangular. curves
    [order + 1, K, KNOTS]: what stands for normal values from -REACH to REACH. All float64.
    """

    shift: Tensor
    mean: Tensor
    scale: Tensor
    kept: tuple[int, ...]
    spread: Tensor
    coefficients: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    factors: tuple[Tensor, ...]
    curves: Tensor

    @classmethod
    def fit(
        cls,
        values: Tensor,
        lengths: Tensor | None = None,
        *,
        least: Tensor | None = None,
        most: Tensor | None = None,
        floor: float = FLOOR,
    ) -> Innovations:
        """Of sequences [T, N, F] in [-1, 1]; lengths [N], what lies past them is not looked at. least, most:
        [F], what -1 and 1 stand for; without them no feature is learnt as its logarithm.

        Raises ValueError for an empty tensor, another shape, or values that do not vary.
        """
        if values.dim() != 3 or 0 in values.shape:
            raise ValueError(f"values: expected shape [T, N, F], got {list(values.shape)}")
        number("floor", floor, 0, open_below=True)
        shift = _shift(values.shape[2], least, most)
        u, inside = _straight(values, shift), within(values, lengths)
        rows = u[inside]
        mean, scale = rows.mean(0), rows.std(0, correction=0)
        varies = scale > max(1e-6 * scale.amax().item(), 1e-12)
        if not bool(varies.any()):
            raise ValueError("values: expected some that differ, got one constant for each feature")
        scale = torch.where(varies, scale, 1.0)
        v = (u - mean) / scale
        kept, spread = _independent(torch.where(varies, v[inside], 0.0))
        v = v[..., kept]
        coefficients, constants, factors = zip(*_regressions(v, inside, floor**2), strict=True)
        own = cls(
            shift=shift,
            mean=mean,
            scale=scale,
            kept=tuple(kept),
            spread=spread,
            coefficients=coefficients,
            constants=constants,
            factors=factors,
            curves=v.new_zeros(0, 0, 0),
        )
        return replace(own, curves=_curves(own._forecast_errors(v), inside, own.order))

    def __call__(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """float32 [T, N, K], zero past the lengths."""
        inside = within(values, lengths)
        v = ((_straight(values, self.shift) - self.mean) / self.scale)[..., list(self.kept)]
        y = self._forecast_errors(torch.where(inside[..., None], v, 0.0))
        out = torch.stack([_straightened(x, self.curves[min(t, self.order)]) for t, x in enumerate(y)])
        return torch.where(inside[..., None], out, 0.0).float()

    def _forecast_errors(self, v: Tensor) -> Tensor:
        """[T, N, K], before they are bent."""
        out = torch.zeros_like(v)
        for t in range(len(v)):
            n = min(t, self.order)
            left = v[t] - _before(v, t, n) @ self.coefficients[n] - self.constants[n]
            out[t] = torch.linalg.solve_triangular(self.factors[n], left.T, upper=False).T
        return out

    def inverse(self, innovations: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The sequences [T, N, F] that `innovations` stands for, float32, zero past the lengths."""
        v = self.levels(innovations)
        u = v @ self.spread * self.scale + self.mean
        most = 10 * (1 + self.shift)  # ten times the largest value: what lies beyond would overflow
        x = torch.where(self.shift.isnan(), u, torch.minimum(u, most.log()).exp() - self.shift)
        return torch.where(within(innovations, lengths)[..., None], x, 0.0).float()

    def levels(self, innovations: Tensor) -> Tensor:
        """What innovations [T, N, K] add up to, the kept features in units of their deviations: float64
        [T, N, K]."""
        at = [min(t, self.order) for t in range(len(innovations))]
        return self._added_up(bent(innovations.double(), self.curves[at]))

    def _added_up(self, errors: Tensor) -> Tensor:
        v = torch.zeros_like(errors)
        for t in range(len(v)):
            n = min(t, self.order)
            foretold = _before(v, t, n) @ self.coefficients[n] + self.constants[n]
            v[t] = errors[t] @ self.factors[n].T + foretold
        return v

    def levels_of(self, steps: int) -> Levels:
        """`levels` of up to so many steps as a module, differentiable, in float32."""
        n = steps * len(self)
        each = torch.eye(n, dtype=torch.float64).view(n, steps, len(self)).movedim(1, 0)
        none = self._added_up(torch.zeros(steps, 1, len(self), dtype=torch.float64))
        flat = lambda x: x.movedim(0, 1).reshape(-1, n).float()
        curves = self.curves[[min(t, self.order) for t in range(steps)]].float()
        return Levels(curves, flat(self._added_up(each) - none), flat(none)[0])

    @property
    def order(self) -> int:
        """How many steps before foretell a step, at most."""
        return len(self.constants) - 1

    def __len__(self) -> int:
        """K"""
        return len(self.kept)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads: tensors as lists."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        lists = {name: [each.tolist() for each in x] for name, x in own.items() if name in _LISTS}
        logs = ~self.shift.isnan()
        plain = {name: x.tolist() for name, x in own.items() if isinstance(x, Tensor)}
        shift = [s if log else None for s, log in zip(self.shift.tolist(), logs.tolist(), strict=True)]
        return {**plain, **lists, "kept": list(self.kept), "shift": shift}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Innovations:
        """What `to_json` gave. Raises KeyError for a missing part."""
        array = lambda x: torch.tensor(x, dtype=torch.float64)
        K = len(content["kept"])
        return cls(
            shift=array([float("nan") if s is None else s for s in content["shift"]]),
            mean=array(content["mean"]),
            scale=array(content["scale"]),
            kept=tuple(content["kept"]),
            spread=array(content["spread"]),
            coefficients=tuple(array(each).view(-1, K) for each in content["coefficients"]),
            constants=tuple(map(array, content["constants"])),
            factors=tuple(map(array, content["factors"])),
            curves=array(content["curves"]),
        )


class Levels(nn.Module):
    """Innovations [T, B, K] -> what they add up to, [T, B, K]: bent by curves [S, K, KNOTS] of up to S steps,
    times a matrix [S K, S K] with a constant [S K] added, both flattened step by step.

    All of the data, not learnt, and in no state dict: `Innovations.levels_of` makes it.
    """

    curves: Tensor
    matrix: Tensor
    constant: Tensor

    def __init__(self, curves: Tensor, matrix: Tensor, constant: Tensor) -> None:
        super().__init__()
        for name, each in (("curves", curves), ("matrix", matrix), ("constant", constant)):
            self.register_buffer(name, each, persistent=False)

    def forward(self, innovations: Tensor) -> Tensor:
        """Raises ValueError for more steps than are known."""
        T, B, K = innovations.shape
        if len(self.curves) < T:
            raise ValueError(f"samples: levels are known for {len(self.curves)} steps, got {T}")
        n = T * K
        flat = bent(innovations, self.curves[:T]).movedim(1, 0).reshape(B, n)
        # Causal: the first steps' levels are those of a shorter sequence.
        return (flat @ self.matrix[:n, :n] + self.constant[:n]).view(B, T, K).movedim(1, 0)


def bent(x: Tensor, curves: Tensor) -> Tensor:
    """x [T, B, K] by curves [T, K, KNOTS], beyond whose ends the last pieces go on."""
    place = (x + REACH) * ((KNOTS - 1) / (2 * REACH))
    below = place.detach().floor().clamp(0, KNOTS - 2)
    index = below.long().movedim(1, 2)
    low, high = (curves.gather(2, index + i).movedim(2, 1) for i in (0, 1))
    return low + (high - low) * (place - below)


_LISTS = ("coefficients", "constants", "factors")


def _shift(features: int, least: Tensor | None, most: Tensor | None) -> Tensor:
    """float64 [F]: for x in [-1, 1], x + shift is proportional to the value that x stands for."""
    if least is None or most is None:
        return torch.full((features,), float("nan"), dtype=torch.float64)
    least, most = least.double(), most.double()
    return torch.where((least > 0) & (most > LOGS * least), 1 + 2 * least / (most - least), float("nan"))


def _straight(values: Tensor, shift: Tensor) -> Tensor:
    """Logarithms of the features that are learnt so; float64."""
    x = values.double()
    return torch.where(shift.isnan(), x, (x + shift).clamp(min=1e-12).log())


def _independent(rows: Tensor) -> tuple[list[int], Tensor]:
    """The features of rows [n, F] that are no linear function of others, and all from them [K, F]: a Cholesky
    factor with pivots."""
    left = rows.T @ rows / len(rows)
    kept: list[int] = []
    for _ in range(rows.shape[1]):
        j = int(left.diagonal().argmax())
        if left[j, j] < 1e-9:
            break
        kept.append(j)
        left = left - torch.outer(left[:, j], left[j]) / left[j, j]
    kept.sort()
    return kept, torch.linalg.lstsq(rows[:, kept], rows).solution


def _regressions(v: Tensor, inside: Tensor, noise: float) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(coefficients, constants, factor) of each step from those before: t = 0, 1, ..., the last pooled over
    all later steps. noise: added to the variances of what foretells."""
    T, K = len(v), v.shape[2]
    windows = inside.sum(1)
    enough = [t for t in range(T) if int(windows[t]) > 1]
    last = min(len(enough) - 1, max(1, COEFFICIENTS // K)) if len(enough) > 1 else 0
    found = []
    for t in range(last + 1):
        steps = range(t, T) if t == last else [t]
        x = torch.cat([_before(v, i, t)[inside[i]] for i in steps])
        y = torch.cat([v[i][inside[i]] for i in steps])
        x = torch.cat((x, x.new_ones(len(x), 1)), 1)
        squares = x.T @ x / len(x)
        squares.diagonal()[:-1] += noise
        solved = torch.linalg.solve(squares, x.T @ y / len(x))
        remains = y - x @ solved
        covariance = remains.T @ remains / len(x) + LEAST**2 * torch.eye(K, dtype=v.dtype)
        found.append((solved[:-1], solved[-1], torch.linalg.cholesky(covariance)))
    return found


def _curves(errors: Tensor, inside: Tensor, order: int) -> Tensor:
    """Quantiles [order + 1, K, KNOTS] of forecast errors [T, N, K], those of the last pooled over all later
    steps."""
    scores = torch.linspace(-REACH, REACH, KNOTS, dtype=torch.float64)
    at = torch.special.ndtr(scores)
    found = []
    for t in range(order + 1):
        rows = errors[t:][inside[t:]] if t == order else errors[t][inside[t]]
        ordered = rows.sort(0).values
        place = (at * len(rows) - 0.5).clamp(0, len(rows) - 1)
        below = place.floor().long().clamp(max=max(0, len(rows) - 2))
        above = (below + 1).clamp(max=len(rows) - 1)
        knots = ordered[below].lerp(ordered[above], (place - below)[:, None])
        # Strictly increasing, to be inverted where values are the same.
        least = (scores[1] - scores[0]) * 1e-3 * torch.arange(KNOTS, dtype=torch.float64)[:, None]
        found.append((knots - least).cummax(0).values + least)
    return torch.stack(found).movedim(1, 2).contiguous()


def _straightened(y: Tensor, curves: Tensor) -> Tensor:
    """The x [N, K] of which `bent` makes y, by one step's curves [K, KNOTS]."""
    below = torch.searchsorted(curves, y.T.contiguous(), right=True).sub(1).clamp(0, KNOTS - 2)
    low, high = curves.gather(1, below), curves.gather(1, below + 1)
    place = below + (y.T - low) / (high - low)
    return (place * (2 * REACH / (KNOTS - 1)) - REACH).T


def _before(v: Tensor, t: int, n: int) -> Tensor:
    """The n steps before step t side by side: [N, n K]."""
    return v[t - n : t].movedim(0, 1).reshape(v.shape[1], -1)
