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


def check_tokens(
    name: str, x: object, vocab_size: int | None = None, *, dims: tuple[int, ...] = (1, 2)
) -> None:
    """Raises TypeError unless ``x`` is a tensor of integers, ValueError for another rank than ``dims`` say
    and for values that are not from 0 to ``vocab_size`` - 1, where that is given."""
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name}: expected an integer tensor, got {found}")
    if x.dim() not in dims:
        shapes = " or ".join("[N]" if each == 1 else "[T, B]" for each in dims)
        raise ValueError(f"{name}: expected shape {shapes}, got {list(x.shape)}")
    if vocab_size is not None and x.numel():
        wide = (
            x.long() if x.dtype in (torch.uint16, torch.uint32, torch.uint64) else x
        )  # of them torch has no
        low, high = (int(end) for end in wide.aminmax())
        if low < 0 or high >= vocab_size:
            raise ValueError(f"{name}: expected values from 0 to {vocab_size - 1}, got {low} to {high}")
