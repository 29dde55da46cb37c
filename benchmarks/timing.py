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
from time import perf_counter

# A turn shorter than this repeats its call, so that the clock and the scheduler stay small beside it.
TURN_SECONDS = 4e-3


@dataclass
class Timing:
    """Seconds per call, one sample per round."""

    samples: list[float]

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


def interleaved(
    runners: dict, *, seconds: float, min_rounds: int = 5, max_rounds: int = 40
) -> dict[str, Timing]:
    """Time `runners` (name -> peers.Runner), warm-up apart: rounds until `seconds` have passed, min_rounds at
    least.

    In a round each has one turn: one untimed call, where calls are short, to take caches and threads back
    from the one before it, then as many timed calls as fill TURN_SECONDS.
    """
    names, order = list(runners), random.Random(0)
    samples = {name: [] for name in runners}
    with no_gc():
        calls = {}
        for name, runner in runners.items():
            first = _timed(runner)
            # A long call needs no second to be warm.
            calls[name] = 1 if first > 0.1 else max(1, round(TURN_SECONDS / _timed(runner)))
        start = perf_counter()
        rounds = 0
        while rounds < min_rounds or (rounds < max_rounds and perf_counter() - start < seconds):
            order.shuffle(names)
            for name in names:
                if calls[name] > 1:
                    _timed(runners[name])
                samples[name].append(sum(_timed(runners[name]) for _ in range(calls[name])) / calls[name])
            rounds += 1
    return {name: Timing(values) for name, values in samples.items()}


def _timed(runner) -> float:
    runner.reset()
    start = perf_counter()
    own = runner.run()
    return perf_counter() - start if own is None else own
