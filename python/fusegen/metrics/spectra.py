"""Measures of sounds: their spectra, beside an autoregressive fit."""

from __future__ import annotations

import torch
from torch import Tensor

from .._arguments import whole

FLOOR_DB = -80.0  # below the loudest frequency of the data: what is quieter counts as this


def log_spectral_distance(real: Tensor, fake: Tensor) -> float:
    """The root mean square, over frequencies and channels, of the difference in decibels between the mean
    power spectra of sounds (Gray and Markel 1976, "Distance measures for speech processing"), under a Hann
    window. 0 for the same; lower is better. What lies 80 dB or more below the loudest frequency of the data
    counts as 80 dB below it.

    real: the data, [T, N, C], of any floating-point dtype: N sounds of T steps, T at least 2, and C channels.
    fake: what was generated, [T, M, C]; M may be another number. It is computed in float64.

    Raises TypeError or ValueError, naming the argument, for sounds that do not fit, and ValueError for data
    that are silent.
    """
    for name, x in (("real", real), ("fake", fake)):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            found = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name}: expected a floating-point tensor, got {found}")
        if x.dim() != 3 or 0 in x.shape or len(x) < 2:
            raise ValueError(f"{name}: expected shape [T, N, C], T at least 2, got {list(x.shape)}")
    if real.shape[0] != fake.shape[0] or real.shape[2] != fake.shape[2]:
        raise ValueError(
            f"real, fake: expected the same steps and channels, got {list(real.shape)} and {list(fake.shape)}"
        )
    powers = [_power(x) for x in (real, fake)]
    least = powers[0].amax() * 10 ** (FLOOR_DB / 10)
    if not least:
        raise ValueError("real: expected a sound, got silence")
    levels = [10 * power.clamp(min=least).log10() for power in powers]
    return (levels[0] - levels[1]).square().mean().sqrt().item()


class AutoregressiveFit:
    """The Gaussian autoregressive process of so many steps that fits sequences best: each step a linear map
    of those before it and noise, by least squares over all windows (the covariance method of linear
    prediction: Makhoul 1975, "Linear prediction: A tutorial review", Proceedings of the IEEE 63 (4), pages
    561 to 580); the beginning, which has not so many steps before it, by processes of fewer. A baseline to
    compare generators with.

    samples: a Tensor [T, N, F] of any real dtype: N sequences of T steps and F features. It is fitted in
    float64. order: how many steps before it each step depends on, 0 or more, T - 1 at most (a larger number
    counts as T - 1). The default, 16, is an order of the linear prediction of speech coders.

    Raises TypeError or ValueError for another ``order``, and ValueError for samples of another shape.
    """

    def __init__(self, samples: Tensor, order: int = 16) -> None:
        if samples.dim() != 3 or 0 in samples.shape:
            raise ValueError(f"samples: expected shape [T, N, F], got {list(samples.shape)}")
        x = samples.double()
        self.steps = len(x)
        self.order = min(whole("order", order, 0), self.steps - 1)
        self.mean = x.mean((0, 1))
        centred = x - self.mean
        self._parts = [self._regressed(centred, n) for n in range(self.order + 1)]

    def _regressed(self, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """(coefficients [n F, F], a root of the covariance of what remains [F, F])."""
        T, _, F = x.shape
        # The first steps are begun by their own: sounds may begin in silence, or at their loudest.
        at = range(n, T) if n == self.order else [n]
        y = torch.cat([x[t] for t in at])
        past = torch.cat([_before(x, t, n) for t in at])
        coefficients = torch.linalg.lstsq(past, y, driver="gelsd").solution if n else y.new_zeros(0, F)
        left = y - past @ coefficients
        values, vectors = torch.linalg.eigh(left.T @ left / len(left))
        return coefficients, vectors * values.clamp(min=0).sqrt()

    def sample(self, n: int, generator: torch.Generator | None = None, steps: int | None = None) -> Tensor:
        """float32 [steps, n, F]; steps: by default those of the samples."""
        steps = self.steps if steps is None else whole("steps", steps, 1)
        F = len(self.mean)
        x = torch.zeros(steps, whole("n", n, 1), F, dtype=torch.float64)
        noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        for t in range(steps):
            k = min(t, self.order)
            coefficients, root = self._parts[k]
            x[t] = _before(x, t, k) @ coefficients + noise[t] @ root.T
        return (x + self.mean).float()


def _power(x: Tensor) -> Tensor:
    """The mean power spectrum of [T, N, C]: [frequencies, C]."""
    window = torch.hann_window(len(x), periodic=False, dtype=torch.float64)
    # A Hann window of two steps has nothing in it.
    window = window if window.any() else torch.ones_like(window)
    return torch.fft.rfft(x.double() * window[:, None, None], dim=0).abs().square().mean(1)


def _before(x: Tensor, t: int, n: int) -> Tensor:
    """The n steps before step t side by side: [N, n F]."""
    return x[t - n : t].movedim(0, 1).reshape(x.shape[1], -1)
