"""Many judges of real-valued sequences, each with its spread, and errors that need no judge."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .._arguments import whole
from .sequences import PostHoc, discriminative_score, predictive_score

MOST_LAGS = 16  # of autocorrelations


@dataclass(frozen=True)
class Spread:
    """The mean of figures and their standard deviation (0 of a single one)."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, figures: list[float]) -> Spread:
        """That of at least one figure; ZeroDivisionError for none."""
        mean = math.fsum(figures) / len(figures)
        off = math.fsum((x - mean) ** 2 for x in figures)
        return cls(mean, math.sqrt(off / (len(figures) - 1)) if len(figures) > 1 else 0.0)


def judged(
    real: Tensor,
    fake: Tensor,
    *,
    real_lengths: Tensor | None = None,
    fake_lengths: Tensor | None = None,
    judges: int = 10,
    seed: int = 0,
    steps: int = 2000,
) -> dict[str, Spread]:
    """Scores of sequences [T, N, F] and [T, M, F] in [-1, 1] by so many judges, of seeds ``seed`` and on:

    "discriminative score (published judge)": a GRU of one layer and F / 2 units, as the code of Yoon et al.
    2019 has it, on values in [0, 1]; of few features it is too weak to tell much.
    "discriminative score (wide judge)": the same of 24 units.
    "predictive score (published)": of the last feature's next value from the others', by a GRU of F / 2
    units, 2.5 times as many steps; of the whole next step for a single feature.

    steps: of each discriminative judge. Errors as in ``discriminative_score``.

    real, fake: floating-point sequences of any dtype, time-major. real_lengths, fake_lengths: integers [N]
    and [M], how many steps of each are its own, where they are padded; None: all. They are compared in
    float32.
    """
    whole("judges", judges, 1)
    whole("steps", steps, 1)
    sides = {"real_lengths": real_lengths, "fake_lengths": fake_lengths}
    real, fake = (real + 1) / 2, (fake + 1) / 2
    features, seeds = real.shape[-1], range(seed, seed + judges)
    narrow = max(1, features // 2)
    found = {}
    for name, hidden in (("published judge", narrow), ("wide judge", 24)):
        how = PostHoc(steps=steps, hidden_size=hidden, num_layers=1)
        found[f"discriminative score ({name})"] = Spread.of(
            [discriminative_score(real, fake, **sides, options=how, seed=s) for s in seeds]
        )
    how = PostHoc(steps=5 * steps // 2 or 1, hidden_size=narrow, num_layers=1)
    target = features - 1 if features > 1 else None
    found["predictive score (published)"] = Spread.of(
        [predictive_score(real, fake, **sides, target=target, options=how, seed=s) for s in seeds]
    )
    return found


def series_errors(
    real: Tensor,
    fake: Tensor,
    *,
    real_lengths: Tensor | None = None,
    fake_lengths: Tensor | None = None,
) -> dict[str, float]:
    """What differs between sequences [T, N, F] and [T, M, F], 0 for the same:

    "marginal error": the Wasserstein distance of a feature's values, in units of its deviation, the mean over
    features; "marginal error of changes": of its changes from step to step (heavy tails and jumps are there).
    "autocorrelation error": the mean absolute difference of the features' autocorrelations over lags 1 to 16;
    "autocorrelation error of sizes of changes": the same of |change|, 0 where calm and wild stretches alike
    are lost. "cross-correlation error": the mean absolute difference of correlations between features.

    real, fake: floating-point sequences of any dtype, time-major. real_lengths, fake_lengths: integers [N]
    and [M], how many steps of each are its own, where they are padded; None: all. They are compared in
    float64. Lower is better of all. Raises TypeError or ValueError as ``discriminative_score``. No paper:
    the first sentences are the definitions.
    """
    sides = [_Side(real, real_lengths), _Side(fake, fake_lengths)]
    changes = [side.changed() for side in sides]
    errors = {"marginal error": _marginal(*sides)}
    if len(real) > 1 and all(side.inside.any() for side in changes):
        errors["marginal error of changes"] = _marginal(*changes)
        errors["autocorrelation error"] = _autocorrelation(*sides)
    if len(real) > 2 and all(side.inside[1:].any() for side in changes):
        sizes = [_Side(side.x.abs(), inside=side.inside) for side in changes]
        errors["autocorrelation error of sizes of changes"] = _autocorrelation(*sizes)
    if real.shape[2] > 1:
        a, b = (_correlations(side.rows) for side in sides)
        pairs = ~torch.eye(len(a), dtype=torch.bool)
        errors["cross-correlation error"] = (a - b)[pairs].abs().mean().item()
    return errors


class _Side:
    """Sequences in float64 and which of their steps lie inside, [T, N]."""

    def __init__(self, x: Tensor, lengths: Tensor | None = None, inside: Tensor | None = None) -> None:
        self.x = x.double()
        if inside is None:
            inside = torch.ones(x.shape[:2], dtype=torch.bool)
            if lengths is not None:
                inside = torch.arange(len(x)).unsqueeze(1) < lengths
        self.inside = inside

    @property
    def rows(self) -> Tensor:
        """[n, F]"""
        return self.x[self.inside]

    def changed(self) -> _Side:
        return _Side(self.x.diff(dim=0), inside=self.inside[1:])


def _marginal(real: _Side, fake: _Side) -> float:
    a, b = real.rows, fake.rows
    at = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    levels = [_quantiles(x, at) for x in (a, b)]
    scale = a.std(0, correction=0).clamp(min=1e-12)
    return ((levels[0] - levels[1]).abs().mean(0) / scale).mean().item()


def _quantiles(x: Tensor, at: Tensor) -> Tensor:
    """[len(at), F] of x [n, F], by sorting: torch.quantile takes no more than 16 million values."""
    ordered = x.sort(0).values
    return ordered[(at * len(x)).long().clamp(max=len(x) - 1)]


def _autocorrelation(real: _Side, fake: _Side) -> float:
    lags = range(1, min(len(real.x) - 1, MOST_LAGS) + 1)
    errors = [(a - b).abs().mean() for a, b in zip(_lagged(real, lags), _lagged(fake, lags), strict=True)]
    return torch.stack(errors).mean().item()


def _lagged(side: _Side, lags: range) -> Iterator[Tensor]:
    """Autocorrelations [F] by lag."""
    rows = side.rows
    centred = side.x - rows.mean(0)
    variance = rows.var(0, correction=0).clamp(min=1e-24)
    for lag in lags:
        both = side.inside[lag:] & side.inside[:-lag]
        yield (centred[lag:] * centred[:-lag])[both].mean(0) / variance if both.any() else variance * 0


def _correlations(rows: Tensor) -> Tensor:
    """[F, F]; of a constant feature 0."""
    centred = rows - rows.mean(0)
    unit = centred / centred.square().sum(0).sqrt().clamp(min=1e-12)
    return unit.T @ unit
