"""The shared way through a grid: set up, check, time interleaved, make rows. Suites say what is run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from check import Mismatch, verify
from peers import NotCompared, Peer, Runner, Unavailable
from problem import Case, Problem
from record import Row, row
from timing import interleaved, paired_ratio

OURS = ("fused", "frozen", "auto")


@dataclass
class Budget:
    """Wall time for a whole grid, shared out as it goes: what quick cases leave over, slow ones get."""

    seconds: float
    cases: int
    min_rounds: int = 5
    start: float = field(default_factory=perf_counter)

    def next(self) -> float:
        """Seconds for the timing of the next case."""
        left = self.seconds - (perf_counter() - self.start)
        share = left / max(self.cases, 1)
        self.cases -= 1
        return max(share, 0.2)


def sweep(
    suite: str,
    cases: list[Case],
    peers: list[Peer],
    budget: Budget,
    make: Callable[[Case], Problem] = Problem,
) -> list[Row]:
    """Rows of every case and contestant, printed as they come; `make` gives a case its tensors."""
    rows, said = [], set()
    for case in cases:
        start = perf_counter()
        share = budget.next()
        problem = make(case)
        with prepared(problem, peers, said) as (runners, errors):
            # Setting up and checking come out of the share.
            left = max(share - (perf_counter() - start), 0.0)
            timings = interleaved(runners, seconds=left, min_rounds=budget.min_rounds)
        new = [timing_row(suite, problem, name, timings, errors[name]) for name in timings]
        print(line(case, new), flush=True)
        rows += new
    return rows


@contextmanager
def prepared(problem: Problem, peers: list[Peer], said: set[str]) -> Iterator[tuple[dict[str, Runner], dict]]:
    """The peers that can run this problem and compute it rightly, and their errors.

    A peer that cannot is named once with its reason; a wrong result by a peer is printed each time, by us
    raised.
    """
    runners: dict[str, Runner] = {}
    errors: dict[str, float] = {}
    try:
        for peer in peers:
            try:
                runner = peer.prepare(problem)
                runners[peer.name] = runner
                runner.reset()
                runner.run()
                errors[peer.name] = verify(problem, runner.results())
            except NotCompared:
                continue
            except Unavailable as reason:
                say_once(said, f"{peer.name}: {reason}")
            except Mismatch as reason:
                if peer.name.split()[0] in OURS:
                    raise
                runners.pop(peer.name).close()
                print(f"  {peer.name} left out, its result is wrong: {reason}", file=sys.stderr)
        yield runners, errors
    finally:
        for runner in runners.values():
            runner.close()


def say_once(said: set[str], message: str) -> None:
    if message not in said:
        said.add(message)
        print(f"  left out: {message}", file=sys.stderr)


def timing_row(suite: str, problem: Problem, name: str, timings: dict, error: float) -> Row:
    timing = timings[name]
    ratios = {f"ratio_{ours}": paired_ratio(timing, timings[ours]) for ours in OURS if ours in timings}
    return row(
        suite, problem, name, timing.median * 1e3,
        p20=timing.quantile(0.2) * 1e3, p80=timing.quantile(0.8) * 1e3, rounds=len(timing.samples),
        gflops=problem.flops / timing.median / 1e9 if problem.flops else "", error=error, **ratios,
    )  # fmt: skip


def line(case: Case, rows: list[Row]) -> str:
    """One case: milliseconds of ours, and beside each peer how many times longer it took than ours."""
    parts = [f"{case.name:44}"]
    for entry in rows:
        text = f"{entry.peer} {entry.value:.3f}"
        if entry.peer not in OURS and entry.ratio_fused != "":
            text += f" ({entry.ratio_fused:.2f}x)"
        parts.append(text)
    return "  ".join(parts)
