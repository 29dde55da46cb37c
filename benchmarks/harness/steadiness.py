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

    def __str__(self) -> str:
        usual = self.usual()
        steady = sum(abs(reading / usual - 1) <= TOLERANCE for reading in self.readings)
        return f"{usual * 1e3:.3f} ms; {steady} of {len(self.readings)} readings within {TOLERANCE:.0%} of it"


@cache
def of_this_run(threads: int) -> Steadiness:
    """One for all suites of a run."""
    return Steadiness(arithmetic(threads))
