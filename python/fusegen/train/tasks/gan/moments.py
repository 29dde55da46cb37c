"""Moments of series, which a generator is to keep: means, variances, covariances over a few steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ....models.gan.recurrent import within

LAGS = 8  # steps over which covariances are looked at, at most


class Moments:
    """How far moments of drawn series are from those of the data: mean and second moment of each feature
    at each step, and covariances of all features over 0 to 8 steps, pooled over the steps (moment matching,
    Li et al. 2015, arXiv:1502.02761, for first and second moments; TimeGAN, Yoon et al. 2019, has the first).

    values: the data, [T, N, F], lengths [N] where they are ragged. levels: as in ``RecurrentGAN``; moments
    of what it gives count as much.
    """

    def __init__(
        self, values: Tensor, lengths: Tensor | None = None, levels: nn.Module | None = None
    ) -> None:
        self._levels = levels
        with torch.no_grad():
            self._of_data = [_moments(x, lengths) for x in self._seen(values)]

    def _seen(self, x: Tensor) -> list[Tensor]:
        return [x] if self._levels is None else [x, self._levels(x)]

    def __call__(self, fake: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The mean squared difference, summed over kinds of moments: of series [T, B, F], B at least 2, with
        gradient. Its two halves are multiplied, so that it is right on average: the squared difference of a
        small sample's moments would be least for series that vary too little. It may lie below 0."""
        halves = [slice(0, fake.shape[1] // 2), slice(fake.shape[1] // 2, None)]
        total = fake.new_zeros(())
        for x, wanted in zip(self._seen(fake), self._of_data, strict=True):
            found = [_moments(x[:, half], None if lengths is None else lengths[half]) for half in halves]
            for a, b, m in zip(*found, wanted, strict=True):
                m = m.to(a)
                total = total + ((a - m) * (b - m)).mean()
        return total


def _moments(x: Tensor, lengths: Tensor | None) -> Sequence[Tensor]:
    """Means [T, F], second moments [T, F], covariances over lags [L, F, F], of what lies within lengths."""
    T, B, _ = x.shape
    inside = x.new_ones(T, B) if lengths is None else within(lengths, T).to(x)
    x = x * inside[..., None]
    count = inside.sum(1).clamp(min=1)[:, None]
    means, squares = x.sum(1) / count, x.square().sum(1) / count
    lagged = []
    for lag in range(min(LAGS, T - 1) + 1):
        pairs = inside[lag:].sum().clamp(min=1)
        lagged.append(torch.einsum("tbf,tbg->fg", x[lag:], x[: T - lag]) / pairs)
    return means, squares, torch.stack(lagged)
