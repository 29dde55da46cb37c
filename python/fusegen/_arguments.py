"""Checks of plain arguments: each names the argument, what was expected and what came."""

import math
from numbers import Integral, Real


def whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """`value` as an int in [least, most].

    Raises TypeError for another type (bool included), ValueError outside.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__} {value!r}")
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: expected an integer {bounds}, got {value}")
    return int(value)


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
    too_low = value <= least if open_below else value < least
    too_high = value >= most if open_above else value > most
    if not math.isfinite(value) or too_low or too_high:
        low = f"above {least:g}" if open_below else f"at least {least:g}"
        high = "" if math.isinf(most) else f" and {'below' if open_above else 'at most'} {most:g}"
        raise ValueError(f"{name}: expected a number {low}{high}, got {value}")
    return float(value)
