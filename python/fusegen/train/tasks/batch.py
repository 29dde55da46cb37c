"""Whether there are as many samples as a step reads."""

from __future__ import annotations


def check_batch(batch: int, usual: int, count: int, what: str, *, held_out: int = 0) -> None:
    """Raises ValueError where a step would read more than there are to learn from, saying what to give.

    batch: samples in a step; usual: as many as where nobody says. count: how many there are to learn from,
    of `what`; held_out: how many besides are held out.
    """
    if batch <= count:
        return
    whose = f"the default, {batch}, is" if batch == usual else f"{batch} is"
    besides = f" ({held_out:,} of {count + held_out:,} are held out)" if held_out else ""
    fits = fitting(count)
    most = f", {count} at most" if fits < count else ""
    way_out = f"; give --batch {fits}{most}" if count else ""
    raise ValueError(
        f"batch: {whose} too large for these data: there are {count:,} {what} to learn from{besides}{way_out}"
    )


def fitting(count: int) -> int:
    """A batch of which there are a few in `count` samples: a power of two, a quarter of them or less where
    that is possible."""
    return max(1, 1 << max(0, (count // 4).bit_length() - 1)) if count else 1
