"""What each measured size stands for, in the tables that "auto" obeys."""

from __future__ import annotations

from itertools import pairwise
from math import isqrt

from fusegen._choice import ANY

LARGEST = ANY[1]


def ranges(sizes: set[int]) -> dict[int, tuple[int, int]]:
    """What each measured size stands for: closed intervals that cover 1..LARGEST without a gap."""
    ordered = sorted(sizes)
    ends = [isqrt(a * b) for a, b in pairwise(ordered)]
    return {
        size: (low, high)
        for size, low, high in zip(ordered, [1, *(end + 1 for end in ends)], [*ends, LARGEST], strict=True)
    }
