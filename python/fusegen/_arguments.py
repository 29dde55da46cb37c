"""Checks of arguments: each names the argument, what was expected and what came."""

import math
import sys
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import cast

import torch
from torch import Tensor


def whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """`value` as an int in [least, most].

    Raises TypeError for another type (bool included), ValueError outside.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__} {value!r}")
    integer = int(value)
    if integer < least or (most is not None and integer > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: expected an integer {bounds}, got {value}")
    return integer


def number(
    name: str,
    value: object,
    least: float,
    most: float = math.inf,
    *,
    open_below: bool = False,
    open_above: bool = False,
) -> float:
    """`value` as a finite float between least and most (each end included unless open).

    Raises TypeError for another type (bool included), ValueError outside.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__} {value!r}")
    real = cast(float, value)  # Real says nothing of comparisons
    too_low = real <= least if open_below else real < least
    too_high = real >= most if open_above else real > most
    # Not math.isfinite, for which an int may be too large.
    if not abs(real) <= sys.float_info.max or too_low or too_high:
        low = f"above {least:g}" if open_below else f"at least {least:g}"
        high = "" if math.isinf(most) else f" and {'below' if open_above else 'at most'} {most:g}"
        raise ValueError(f"{name}: expected a number {low}{high}, got {value}")
    return float(real)


def wholes(name: str, value: object, least: int) -> tuple[int, ...]:
    """`value`, a sequence of integers of at least `least` each, as a tuple.

    Raises TypeError for another type (of the whole or of an element), ValueError for an element too small.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(f"{name}: expected a sequence of integers, got {type(value).__name__} {value!r}")
    return tuple(whole(f"{name}[{i}]", v, least) for i, v in enumerate(value))


def flag(name: str, value: object) -> bool:
    """`value` as it is. Raises TypeError unless it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__} {value!r}")
    return value


def choice(name: str, value: object, options: Iterable[str]) -> str:
    """`value` as it is. Raises ValueError unless it is one of `options`."""
    options = tuple(options)
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {value!r}")
    return value


def check_floats(name: str, x: object) -> None:
    """Raises TypeError unless x is a dense floating-point tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {x.dtype}")
    if x.layout is not torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got layout {x.layout}")
