"""Independent sines: the made-up series that generators of series are compared on."""

from __future__ import annotations

import torch

from ..._arguments import whole
from .._memory import check_fits
from ..series import Series


def sines(steps: int = 24, count: int = 10_000, features: int = 5, seed: int = 0) -> Series:
    """sin(f t + p), t = 0, 1, ..., each feature of each sequence with an f and a p of its own from U[0, 0.1]:
    as the published code of TimeGAN (Yoon et al. 2019) draws its "sines", at (sin + 1) / 2 in [0, 1].

    The paper's text says sin(2 pi f t + p), f from U[0, 1] and p from U[-pi, pi], which is another set of
    sequences; published figures are of the code's. The same seed gives the same sequences. Raises TypeError
    or ValueError, naming the argument.

    steps, count, features: the shape [steps, count, features].
    """
    shape = whole("count", count, 1), whole("features", features, 1)
    steps = whole("steps", steps, 1)
    values = 32 * count * features  # a step in float64, twice over, and in float32
    check_fits(lambda steps: steps * values, {"steps": steps}, {"steps": 24}, "the sines")
    random = torch.Generator().manual_seed(whole("seed", seed, 0, 2**63 - 1))
    frequency, phase = 0.1 * torch.rand(2, *shape, generator=random, dtype=torch.float64)
    t = torch.arange(steps, dtype=torch.float64)[:, None, None]
    return Series(
        name="sines",
        values=torch.sin(frequency * t + phase).float(),
        lengths=None,
        low=torch.zeros(features, dtype=torch.float64),
        high=torch.ones(features, dtype=torch.float64),
        features=tuple(f"sine {i}" for i in range(features)),
    )
