"""Whether what is asked for fits in memory, said before any of it is made."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path

GB = 10**9
_GROUP = Path("/sys/fs/cgroup/memory.max")  # of a container, as it sees itself
_LARGEST = 10**40  # beyond which nobody asks


def memory() -> int:
    """Bytes that this process may have: the memory of the machine, or what a container or ``ulimit -v``
    leaves of it."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        found.append(limit)
    try:
        group = _GROUP.read_text().strip()
    except OSError:
        group = "max"
    return min(*found, int(group)) if group.isdecimal() else min(found)


def check_fits(
    cost: Callable[..., float],
    asked: Mapping[str, int],
    usual: Mapping[str, int],
    made: str,
    *,
    most: int | None = None,
) -> None:
    """Raises ValueError where something would take more memory than there is, naming one of the arguments
    that say how large it is: the one that is the most times as large as it usually is.

    cost: the bytes it takes, by the arguments in `asked`, growing with each. usual: their usual values. made:
    what takes them, in words that begin a sentence's part. most: bytes, where less is allowed than there is.
    """
    there = memory()
    limit = there if most is None else min(there, most)
    taken = cost(**asked)
    if taken <= limit:
        return
    name = max(asked, key=lambda each: asked[each] / max(1, usual[each]))
    fits = _largest(lambda value: cost(**{**asked, name: value}) <= limit, asked[name])
    expected = f"at most {fits:,}" if fits else "less"
    beside = "".join(f" beside {each} {value:,}" for each, value in asked.items() if each != name)
    whose = "is all there is" if limit == there else "is the most allowed"
    raise ValueError(
        f"{name}: expected {expected}{beside}, got {asked[name]:,}: {made} would take about {told(taken)} of "
        f"memory, and {told(limit)} {whose}"
    )


def told(count: float) -> str:
    """Bytes in words: 24 GB."""
    for unit, size in (("TB", 10**12), ("GB", GB), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:,.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count / 1000:,.3g} kB"


def _largest(fits: Callable[[int], bool], above: int) -> int:
    """The largest whole number below `above` that fits; 0 where none does. `above` does not."""
    low, high = 0, min(above, _LARGEST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
