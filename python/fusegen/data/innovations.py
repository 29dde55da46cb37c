"""Sequences as what each step adds to what the steps before foretell, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .._arguments import number
from .curved import GAINS, Curved
from .whitening import within

LOGS = 4.0  # a positive feature whose largest value is so many times its least is learnt as its logarithm
FLOOR = 0.005  # of a feature's deviation: forecasts lean on nothing that is smaller
FINE = 0.001  # in its place, where forecasts that lean on smaller things foretell better
PRODUCTS = 10  # times that floor, for products: what they add to must not run away
LEAST = 1e-4  # of a feature's deviation: what is smaller is not made larger
DITHER = 1e-3  # of a feature's deviation: noise that hides what is too small to matter
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

    Where a step is foretold better so, by products of two and three of the leading components of each
    channel's own past too (`Curved`): a sine of any frequency follows from its first two values, but not
    linearly.

    shift [F]: a feature x is learnt as log(x + shift), or as it is where shift is NaN (`LOGS`). mean, scale
    [F]: of that. kept: the features that make the channels; spread [K, F]: all features from them.
    coefficients: for t = 0 to order, [t K, K], constants [K] and factors [K, K], lower triangular. curves
    [order + 1, K, KNOTS]: what stands for normal values from -REACH to REACH. curved: for t = 1 to order, or
    empty where forecasts are linear. All float64. dither: noise of so many deviations, the same each time, is
    added to values before they are looked at: what is smaller is then as random in the data as in what is
    drawn.
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
    curved: tuple[Curved, ...] = ()
    dither: float = 0.0

    @classmethod
    def fit(
        cls,
        values: Tensor,
        lengths: Tensor | None = None,
        *,
        least: Tensor | None = None,
        most: Tensor | None = None,
        floor: float | None = FLOOR,
        curved: bool | None = None,
        dither: float = 0.0,
    ) -> Innovations:
        """Of sequences [T, N, F] in [-1, 1]; lengths [N], what lies past them is not looked at. least, most:
        [F], what -1 and 1 stand for; without them no feature is learnt as its logarithm. curved: whether
        products foretell a step too; None: where they lower the errors of the last fifth of the sequences,
        fitted to the others, by a tenth. floor: a ridge, in deviations: forecasts lean on nothing that is
        smaller; None: 0.001 in place of 0.005 where there are no products and that lowers the same errors by
        a tenth, as it does for sounds, whose steps follow almost wholly from those before.

        Raises ValueError for an empty tensor, another shape, or values that do not vary.
        """
        if values.dim() != 3 or 0 in values.shape:
            raise ValueError(f"values: expected shape [T, N, F], got {list(values.shape)}")
        if floor is not None:
            floor = number("floor", floor, 0, open_below=True)
        dither = number("dither", dither, 0)
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
        v = _dithered(v[..., kept], dither)
        K, usual = len(kept), floor or FLOOR
        if curved is None:
            curved = _foretells_better(v, inside, (K, usual**2), (0, usual**2))
        if floor is None:
            fine = not curved and _foretells_better(v, inside, (0, FINE**2), (0, FLOOR**2))
            floor = FINE if fine else FLOOR
        found = list(_regressions(v, inside, floor**2, curved))
        coefficients, constants, factors = zip(*(each[:3] for each in found), strict=True)
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
            curved=tuple(each for *_, each in found[1:] if each is not None),
            dither=dither,
        )
        return replace(own, curves=_curves(own._forecast_errors(v), inside, own.order))

    def __call__(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """float32 [T, N, K], zero past the lengths."""
        inside = within(values, lengths)
        v = ((_straight(values, self.shift) - self.mean) / self.scale)[..., list(self.kept)]
        v = _dithered(v, self.dither)
        y = self._forecast_errors(torch.where(inside[..., None], v, 0.0))
        out = torch.stack([_straightened(x, self.curves[min(t, self.order)]) for t, x in enumerate(y)])
        return torch.where(inside[..., None], out, 0.0).float()

    def _forecast_errors(self, v: Tensor) -> Tensor:
        """[T, N, K], before they are bent."""
        out = torch.zeros_like(v)
        for t in range(len(v)):
            n = min(t, self.order)
            left = v[t] - self._foretold(_before(v, t, n), n)
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
            v[t] = errors[t] @ self.factors[n].T + self._foretold(_before(v, t, n), n)
        return v

    def _foretold(self, before: Tensor, n: int) -> Tensor:
        """[N, K] from the n steps before, [N, n K]."""
        linear = before @ self.coefficients[n] + self.constants[n]
        return linear + self.curved[n - 1](before) if n and self.curved else linear

    def levels_of(self, steps: int) -> Levels | CurvedLevels:
        """`levels` of up to so many steps as a module, differentiable, in float32."""
        if self.curved:
            return CurvedLevels(self, steps)
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
        curved = [each.to_json() for each in self.curved]
        besides = {"kept": list(self.kept), "dither": self.dither}
        return {**plain, **lists, **besides, "shift": shift, "curved": curved}

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
            curved=tuple(map(Curved.from_json, content.get("curved", ()))),
            dither=content.get("dither", 0.0),
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


class CurvedLevels(nn.Module):
    """`Levels` where forecasts are not linear: step after step, by the forecasts of `form`, in float32."""

    curves: Tensor

    def __init__(self, form: Innovations, steps: int) -> None:
        super().__init__()
        self.steps, self.last = steps, min(form.order, steps - 1)
        at = [min(t, form.order) for t in range(steps)]
        self.register_buffer("curves", form.curves[at].float(), persistent=False)
        for t in range(self.last + 1):
            parts = {
                "coefficients": form.coefficients[t],
                "constants": form.constants[t],
                "factors": form.factors[t],
            }
            for name, each in (parts | (form.curved[t - 1].tensors() if t else {})).items():
                self.register_buffer(f"{name}_{t}", each.float(), persistent=False)

    def forward(self, innovations: Tensor) -> Tensor:
        """Raises ValueError for more steps than are known."""
        T = len(innovations)
        if self.steps < T:
            raise ValueError(f"samples: levels are known for {self.steps} steps, got {T}")
        errors = bent(innovations, self.curves[:T])
        found: list[Tensor] = []
        for t in range(T):
            n = min(t, self.last)
            own = lambda name, n=n: getattr(self, f"{name}_{n}")
            now = errors[t] @ own("factors").T + own("constants")
            if n:
                before = torch.stack(found[t - n :], 1).flatten(1)
                curved = Curved(own("centres"), own("ways"), own("weights"))
                now = now + before @ own("coefficients") + curved(before)
            found.append(now)
        return torch.stack(found)


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


_Step = tuple[Tensor, Tensor, Tensor, Curved | None]


def _regressions(v: Tensor, inside: Tensor, noise: float, curved: bool) -> Iterator[_Step]:
    """(coefficients, constants, factor, products) of each step from those before: t = 0, 1, ..., the last
    pooled over all later steps. noise: added to the variances of what foretells."""
    K = v.shape[2]
    for t, x, y in _foretelling(v, inside):
        coefficients, constant, products = _regression(x, y, K if curved and t else 0, noise)
        remains = y - x @ coefficients - constant - (0.0 if products is None else products(x))
        covariance = remains.T @ remains / len(x) + LEAST**2 * torch.eye(K, dtype=v.dtype)
        yield coefficients, constant, torch.linalg.cholesky(covariance), products


def _foretelling(v: Tensor, inside: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(t, the steps before [n, t K], the step itself [n, K]) of each step that is foretold by its own."""
    T, K = len(v), v.shape[2]
    windows = inside.sum(1)
    enough = [t for t in range(T) if int(windows[t]) > 1]
    last = min(len(enough) - 1, max(1, COEFFICIENTS // K)) if len(enough) > 1 else 0
    for t in range(last + 1):
        steps = range(t, T) if t == last else [t]
        yield (
            t,
            torch.cat([_before(v, i, t)[inside[i]] for i in steps]),
            torch.cat([v[i][inside[i]] for i in steps]),
        )


def _regression(x: Tensor, y: Tensor, K: int, noise: float) -> tuple[Tensor, Tensor, Curved | None]:
    """Of y [n, ·] by x [n, t K], by its products too where K is not 0."""
    curved = Curved.of(x, K, noise) if K else None
    products = x.new_zeros(len(x), 0) if curved is None else curved.products(x)
    every = torch.cat((x, products, x.new_ones(len(x), 1)), 1)
    squares = every.T @ every / len(x)
    squares.diagonal()[:-1] += noise
    squares.diagonal()[x.shape[1] : -1] += (PRODUCTS**2 - 1) * noise
    solved = torch.linalg.solve(squares, every.T @ y / len(x))
    linear, bending = solved[: x.shape[1]], solved[x.shape[1] : -1]
    return linear, solved[-1], None if curved is None else replace(curved, weights=bending)


_Way = tuple[int, float]


def _foretells_better(v: Tensor, inside: Tensor, way: _Way, usual: _Way) -> bool:
    """Whether the squared errors of the last fifth of the sequences, fitted to the others, are lower by a
    tenth one way than the usual one: in the geometric mean over steps and channels. A way: the channels whose
    products foretell too (0: none), and the noise of `_regression`."""
    fifth = v.shape[1] // 5
    if not fifth:
        return False
    gains = []
    seen, unseen = (
        _foretelling(v[:, part], inside[:, part]) for part in (slice(-fifth), slice(-fifth, None))
    )
    for (t, x, y), (_, held, truth) in zip(seen, unseen, strict=False):
        if t:
            errors = []
            for channels, noise in (way, usual):
                coefficients, constant, curved = _regression(x, y, channels, noise)
                left = truth - held @ coefficients - constant - (0.0 if curved is None else curved(held))
                errors.append(left.square().mean(0) + LEAST**2)
            gains.append((errors[0] / errors[1]).log())
    return bool(gains) and torch.stack(gains).mean().exp().item() < GAINS


def _dithered(v: Tensor, deviation: float) -> Tensor:
    if not deviation:
        return v
    noise = torch.randn(v.shape, dtype=v.dtype, generator=torch.Generator().manual_seed(0))
    return v + deviation * noise


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
