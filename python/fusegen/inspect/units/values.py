"""What units held step by step, of a recording or as a tensor, and the memory that it may take."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch import Tensor

from ..recording.recorded import Plane

_PART_BYTES = 16 << 20  # of what is made of a part of the steps


def values_of(what: str, given: Plane | Tensor, array: str | None) -> tuple[Tensor, Tensor]:
    """(values [T, B, U], mask [T, B]): of a plane ``array``, by default c where there is one and h elsewhere.

    Raises TypeError or ValueError for something else, and for a plane of which steps were left out.
    """
    if isinstance(given, Plane):
        if given.steps_chosen is not None:
            raise ValueError(f"{what}: expected a recording of all steps, and {given!r} has some of them")
        name = array or ("c" if "c" in given.arrays else "h")
        return given.array(name), given.mask
    if not isinstance(given, Tensor):
        raise TypeError(f"{what}: expected values as a Plane or a Tensor, got {type(given).__name__}")
    if array is not None:
        raise ValueError(f"{what}: array: expected none for a Tensor, got {array!r}")
    if given.dim() not in (2, 3) or not given.is_floating_point() or 0 in given.shape:
        raise ValueError(
            f"{what}: expected values [T, U] or [T, B, U] of floats, none of them 0, "
            f"got {given.dtype} {list(given.shape)}"
        )
    given = given if given.dim() == 3 else given.unsqueeze(1)
    return given, torch.ones(given.shape[:2], dtype=torch.bool)


def beside(what: str, name: str, given: object, values: Tensor) -> Tensor:
    """Integers [T, B] beside values [T, B, U], on the CPU; [T] stands for [T, 1]."""
    if not isinstance(given, Tensor) or given.is_floating_point() or given.dtype == torch.bool:
        came = given.dtype if isinstance(given, Tensor) else type(given).__name__
        raise TypeError(f"{what}: expected {name} as a Tensor of integers, got {came}")
    T, B = values.shape[:2]
    if given.shape not in ((T, B), (T,)) or (given.dim() == 1 and B != 1):
        raise ValueError(f"{what}: expected {name} [{T}, {B}], as values have it, got {list(given.shape)}")
    return given.cpu().long().view(T, B)


def parts(values: Tensor) -> Iterator[tuple[int, int]]:
    """Stretches of steps whose float64 values take no more than a little memory, so that a memory map can be
    longer than memory."""
    step = max(1, _PART_BYTES // max(1, values[0].numel() * 8))
    for begin in range(0, len(values), step):
        yield begin, min(begin + step, len(values))


def check_fits(what: str, size: int, hint: str) -> None:
    """Raises MemoryError, with a hint, where ``size`` bytes are more than the machine has left."""
    free = free_memory()
    if free is not None and size > free:
        raise MemoryError(
            f"{what}: this takes {size / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free: {hint}"
        )


def free_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            told = dict(line.split(":", 1) for line in file)
        return int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
