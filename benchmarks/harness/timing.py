"""Interleaved timing: every contestant in every round, ratios taken within a round.

The order is shuffled for each round: in a fixed or rotating one, each would always follow the same other, and
its caches.
"""

from __future__ import annotations

import gc
import random
import statistics
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, sleep

from harness.steadiness import TOLERANCE, Steadiness

# A turn shorter than this repeats its call, so that the clock and the scheduler stay small beside it.
TURN_SECONDS = 4e-3
# A machine that never stands still is given up on after so many times the rounds that are asked for at least.
PATIENCE = 3


@dataclass
class Timing:
    """Seconds per call, one sample per round that counts; `dropped` others did not. unsteady: why rounds are
    among the samples in which the machine did not stand still; "" if there are none."""

    samples: list[float]
    dropped: int = 0
    unsteady: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def quantile(self, q: float) -> float:
        """Linear interpolation between order statistics, as numpy's default."""
        ordered = sorted(self.samples)
        at = q * (len(ordered) - 1)
        low = int(at)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def paired_ratio(numerator: Timing, denominator: Timing) -> float:
    """Median over rounds of numerator / denominator: drift of the machine within a run cancels."""
    return statistics.median(a / b for a, b in zip(numerator.samples, denominator.samples, strict=True))


@contextmanager
def no_gc():
    """Collect once, then keep the collector out of the timed region."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def host_clock(runner, calls: int) -> float:
    """Mean seconds of `calls` calls, by the host's clock."""
    return sum(_timed(runner) for _ in range(calls)) / calls


@dataclass
class Round:
    """Seconds per call by contestant, and what the steady loop took before and after."""

    seconds: dict[str, float]
    loop: tuple[float, float] = (1.0, 1.0)

    def off(self, usual: float) -> float:
        """The loop's larger distance from its usual time, as a share of that."""
        return max(abs(reading / usual - 1) for reading in self.loop)


def interleaved(
    runners: dict,
    *,
    seconds: float,
    min_rounds: int = 5,
    max_rounds: int = 40,
    clock=host_clock,
    steadiness: Steadiness | None = None,
) -> dict[str, Timing]:
    """Time `runners` (name -> peers.Runner), warm-up apart: rounds until `seconds` have passed, min_rounds at
    least.

    In a round each has one turn: one untimed call, where calls are short, to take caches and threads back
    from the one before it, then as many timed calls as fill TURN_SECONDS. With `steadiness`, rounds beside
    which its loop was more than TOLERANCE off its median are dropped; if so few are left after PATIENCE times
    min_rounds, the steadiest min_rounds count, and each Timing says so.
    """
    order = random.Random(0)
    rounds: list[Round] = []
    with no_gc():
        calls = {}
        for name, runner in runners.items():
            first = clock(runner, 1)
            # A long call needs no second to be warm.
            calls[name] = 1 if first > 0.1 else max(1, round(TURN_SECONDS / clock(runner, 1)))
            sleep(runner.rest)
        start = perf_counter()
        before = steadiness.read() if steadiness else 1.0
        steady = 0
        while True:
            timed_out = perf_counter() - start >= seconds
            if steady >= min_rounds and (timed_out or steady >= max_rounds):
                break
            if len(rounds) >= PATIENCE * min_rounds and timed_out:
                break
            taken = one_round(runners, calls, order, clock)
            after = steadiness.read() if steadiness else 1.0
            rounds.append(Round(taken, (before, after)))
            before = after
            usual = steadiness.usual() if steadiness else 1.0
            steady = sum(each.off(usual) <= TOLERANCE for each in rounds)
    return timings(rounds, usual, min_rounds)


def one_round(runners: dict, calls: dict[str, int], order: random.Random, clock) -> dict[str, float]:
    """Seconds per call of each, in the order of `runners`; their turns are taken in a new one."""
    names, taken = list(runners), {}
    order.shuffle(names)
    for name in names:
        runner = runners[name]
        if calls[name] > 1:
            clock(runner, 1)
        taken[name] = clock(runner, calls[name])
        sleep(runner.rest)
    return {name: taken[name] for name in runners}


def timings(rounds: list[Round], usual: float, min_rounds: int) -> dict[str, Timing]:
    """Of each contestant, the rounds that count."""
    kept, unsteady = [each for each in rounds if each.off(usual) <= TOLERANCE], ""
    if len(kept) < min_rounds:
        unsteady = f"unsteady machine: {len(kept)} of {len(rounds)} rounds stood still"
        closest = sorted(range(len(rounds)), key=lambda i: rounds[i].off(usual))[:min_rounds]
        kept = [rounds[i] for i in sorted(closest)]
    dropped = len(rounds) - len(kept)
    return {
        name: Timing([each.seconds[name] for each in kept], dropped, unsteady) for name in rounds[0].seconds
    }


def _timed(runner) -> float:
    runner.reset()
    start = perf_counter()
    own = runner.run()
    return perf_counter() - start if own is None else own
