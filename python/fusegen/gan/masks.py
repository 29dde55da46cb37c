"""Dropout's masks in a fused step: the key that they are made of, and what they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import reference
from .._arguments import whole
from ..ops import random
from .chain import parse


class DropoutMasks(NamedTuple):
    """Of what one map of D reads, n elements a row: bool [rows, n], true where an element is kept.

    real, fake, mixed: of real samples [Nr, n], of fake ones [Nf, n], and of the interpolates of ``gp`` [Nm,
    n].
    """

    real: Tensor
    fake: Tensor
    mixed: Tensor


def draw_key(generator: torch.Generator | None) -> Tensor:
    """A key for the masks of one step, an int64 on the CPU, from torch's generator there, or this one (one of
    a GPU is waited for)."""
    if generator is None or generator.device.type == "cpu":
        return random.draw_key(generator)
    drawn = torch.empty((), dtype=torch.int64, device=generator.device)
    return drawn.random_(-(2**63), None, generator=generator).cpu()


def dropout_masks(
    D: nn.Module, key: Tensor, *, real: int = 0, fake: int = 0, mixed: int = 0
) -> list[DropoutMasks | None]:
    """The masks that a fused step drew by ``key`` (``StepOutput.key``): for each linear map of D, in their
    order, those of what it reads; None where no Dropout stands before it.

    real, fake and mixed: how many samples there were of each (packed ones, with ``pac``), mixed being the
    interpolates of ``gp``. Kept elements were multiplied by 1 / (1 - p); of several Dropouts in a row p is
    that of all of them together. Masks lie where D's weights do. D has to be in the mode it was in.

    Raises ValueError for a D that no fused step runs, or counts below 0; TypeError for another key.

    Of each map a ``DropoutMasks``, bool [samples, n]. Philox (Salmon et al. 2011) makes them from the key,
    an int64 scalar.
    """
    found = parse(D)
    if isinstance(found, str):
        raise ValueError(f"D: {found}")
    if not isinstance(key, Tensor) or key.dtype != torch.int64 or key.dim():
        raise TypeError(f"key: expected an int64 tensor without dims, got {key!r}")
    rows = [whole(name, n, 0) for name, n in (("real", real), ("fake", fake), ("mixed", mixed))]
    masks: list[DropoutMasks | None] = []
    for i, (m, rate) in enumerate(zip(found.layers, found.dropouts, strict=True)):
        if not isinstance(m, nn.Linear):
            raise ValueError(
                f"D: {type(m).__name__} stands where a fused step with Dropout knows dense layers"
            )
        if not rate:
            masks.append(None)
            continue
        factors = (
            reference.dropout_factors(key, i, group, (n, m.in_features), rate, m.weight.detach())
            for group, n in enumerate(rows)
        )
        masks.append(DropoutMasks(*(f > 0 for f in factors)))
    return masks
