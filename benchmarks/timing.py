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

import torch

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


def host_clock(runner, calls: int) -> float:
    """Mean seconds of `calls` calls, by the host's clock."""
    return sum(_timed(runner) for _ in range(calls)) / calls


class CudaClock:
    """Mean seconds of `calls` calls between two events each, on the stream they run on.

    Before each, the L2 cache is emptied by a write of twice its size, which also gives the host a start of
    some microseconds: a call whose launches take the host longer than its work the GPU still shows that.
    """

    def __init__(self):
        size = 2 * torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self.flush = torch.empty(max(size, 1 << 20), dtype=torch.uint8, device="cuda")

    def __call__(self, runner, calls: int) -> float:
        pairs = []
        for _ in range(calls):
            runner.reset()
            self.flush.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            runner.run()
            end.record()
            pairs.append((start, end))
        torch.cuda.synchronize()
        return sum(start.elapsed_time(end) for start, end in pairs) / calls / 1e3


def interleaved(
    runners: dict, *, seconds: float, min_rounds: int = 5, max_rounds: int = 40, clock=host_clock
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
            first = clock(runner, 1)
            # A long call needs no second to be warm.
            calls[name] = 1 if first > 0.1 else max(1, round(TURN_SECONDS / clock(runner, 1)))
        start = perf_counter()
        rounds = 0
        while rounds < min_rounds or (rounds < max_rounds and perf_counter() - start < seconds):
            order.shuffle(names)
            for name in names:
                if calls[name] > 1:
                    clock(runners[name], 1)
                samples[name].append(clock(runners[name], calls[name]))
            rounds += 1
    return {name: Timing(values) for name, values in samples.items()}


def _timed(runner) -> float:
    runner.reset()
    start = perf_counter()
    own = runner.run()
    return perf_counter() - start if own is None else own
