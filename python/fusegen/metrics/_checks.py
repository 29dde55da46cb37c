"""Checks of what the measures are given."""

from __future__ import annotations

import torch
from torch import Tensor


def checked_features(real: Tensor, fake: Tensor, *, least: int) -> tuple[Tensor, Tensor]:
    """Both as float64 [N, D] and [M, D], at least ``least`` rows each.

    Raises TypeError or ValueError naming the argument: wrong type, rank, sizes, NaN or infinity.
    """
    for name, x in (("real", real), ("fake", fake)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a tensor of features, got {type(x).__name__}")
        if x.dim() != 2 or x.shape[1] == 0:
            raise ValueError(f"{name}: expected features [N, D], got shape {list(x.shape)}")
        if x.shape[0] < least:
            raise ValueError(f"{name}: expected at least {least} samples, got {x.shape[0]}")
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"{name}: the features hold NaN or infinity")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"real, fake: expected the same number of features, got {real.shape[1]} and {fake.shape[1]}"
        )
    return real.detach().double(), fake.detach().double()
