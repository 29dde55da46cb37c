"""Checks of what the GANs are given: each names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ..._arguments import whole
from .._sequences import check_integers

Integers = int | Sequence[int] | Tensor | None


def check_not_empty(samples: Tensor) -> None:
    """Raises ValueError for a tensor without elements."""
    if samples.numel() == 0:
        raise ValueError(f"samples: expected at least one, got shape {list(samples.shape)}")


def integers(name: str, given: Integers, n: int, least: int, most: int) -> Tensor:
    """int64 [n] from an integer for all, a sequence of n of them or an integer tensor [n].

    Raises TypeError for another type, ValueError for another number of them or one outside [least, most].
    """
    if isinstance(given, Integral) and not isinstance(given, bool):
        return torch.full((n,), whole(name, given, least, most))
    if isinstance(given, Tensor):
        check_integers(name, given)
        given = given.long().expand(n) if given.dim() == 0 else given.long()
    else:
        given = _listed(name, given)
        given = torch.tensor([whole(f"{name}[{i}]", x, least, most) for i, x in enumerate(given)]).long()
    if given.shape != (n,):
        raise ValueError(f"{name}: expected shape [{n}], got {list(given.shape)}")
    low, high = (int(end) for end in given.aminmax()) if n else (least, most)
    if low < least or high > most:
        raise ValueError(f"{name}: expected values from {least} to {most}, got {low} to {high}")
    return given


def _listed(name: str, given: Any) -> list[Any]:
    try:
        if isinstance(given, str | bytes):
            raise TypeError
        return list(given)
    except TypeError:
        raise TypeError(
            f"{name}: expected an integer, a sequence of them or an integer tensor, "
            f"got {type(given).__name__} {given!r}"
        ) from None


def source_device(generator: torch.Generator | None, like: Tensor) -> torch.device:
    """Where to draw: on the generator's device, or that of ``like``. Raises TypeError for another type."""
    if generator is None:
        return like.device
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator, got {type(generator).__name__}")
    return generator.device
