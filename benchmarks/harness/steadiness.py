"""Whether the machine stood still: a loop of arithmetic of known length, timed between rounds.

A round of a benchmark counts only if the loop took its usual time before and after it. What else runs on the
machine, a hypervisor that takes a core away and a clock that steps down all make it longer. Drift slower than
a round needs no guard: contestants are compared within a round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import cache
from time import perf_counter

import torch

# Share of the usual time. Where another process wanted a core, the loop took from 1.2 to 100 times
# as long.
TOLERANCE = 0.05
BUSY = 0.2  # the share of readings that may be off before it is said
LOOP_SECONDS = 1e-3
# The best of a few is read, so that a single interrupt is not taken for a neighbour.
REPEATS = 3
BEGINNING = 40  # readings before the first round
# Elements that torch gives to one thread at least (at::internal::GRAIN_SIZE): with so many each, all work.
GRAIN = 32768


def arithmetic(threads: int) -> Callable[[], None]:
    """A loop on `threads` of torch's threads that computes nearly all of the time: inverse error functions
    (some forty operations a number), in place in each core's own cache."""
    numbers = torch.linspace(-0.9, 0.9, GRAIN * threads)
    out = torch.empty_like(numbers)

    def once() -> None:
        torch.erfinv(numbers, out=out)

    once()
    passes = max(1, round(LOOP_SECONDS / min(seconds(once) for _ in range(5))))

    def loop() -> None:
        for _ in range(passes):
            once()

    return loop


def seconds(loop: Callable[[], None]) -> float:
    start = perf_counter()
    loop()
    return perf_counter() - start


class Steadiness:
    """Readings of a loop over a run, and how far one lies from their median."""

    def __init__(self, loop: Callable[[], None], clock: Callable[[Callable], float] = seconds):
        self.loop, self.clock = loop, clock
        self.readings: list[float] = []
        for _ in range(BEGINNING):
            self.read()

    def read(self) -> float:
        """Seconds that the loop takes now."""
        self.readings.append(min(self.clock(self.loop) for _ in range(REPEATS)))
        return self.readings[-1]

    def usual(self) -> float:
        return statistics.median(self.readings)

    @property
    def steady(self) -> int:
        """How many readings lie within the tolerance of their median."""
        usual = self.usual()
        return sum(abs(reading / usual - 1) <= TOLERANCE for reading in self.readings)

    @property
    def drift(self) -> float:
        """The median of the last quarter of the readings over that of the first, less 1."""
        quarter = max(1, len(self.readings) // 4)
        first, last = self.readings[:quarter], self.readings[-quarter:]
        return statistics.median(last) / statistics.median(first) - 1

    def busy(self) -> str:
        """What to say of a machine that did other work, or whose clock changed; "" where it stood still."""
        found = []
        if (share := 1 - self.steady / len(self.readings)) > BUSY:
            found.append(f"{share:.0%} of its readings were more than {TOLERANCE:.0%} off their median")
        if abs(self.drift) > TOLERANCE:
            more = "more" if self.drift > 0 else "less"
            found.append(f"it took {abs(self.drift):.0%} {more} time at the end than at the beginning")
        if not found:
            return ""
        return (
            "this machine was busy, and these figures may be off. A loop that does the same work each time "
            f"was timed between the rounds: {', and '.join(found)}. Close other programs and run it again"
        )

    def __str__(self) -> str:
        usual, steady = self.usual(), self.steady
        return f"{usual * 1e3:.3f} ms; {steady} of {len(self.readings)} readings within {TOLERANCE:.0%} of it"


@cache
def of_this_run(threads: int) -> Steadiness:
    """One for all suites of a run."""
    return Steadiness(arithmetic(threads))
