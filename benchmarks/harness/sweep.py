"""The shared way through a grid: set up, check, time interleaved, make rows. Suites say what is run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter

import torch

from harness import cap
from harness.check import Mismatch, verify
from harness.cuda import CudaClock, precision
from harness.peer import NotCompared, Peer, Runner, Unavailable
from harness.problem import Case, Problem
from harness.record import Row, row, saw
from harness.steadiness import of_this_run
from harness.timing import host_clock, interleaved, paired_ratio

OURS = ("fused", "frozen", "auto", "graph")
FROZEN = ("onnxruntime", "openvino", "onednn")  # these pack the weights of layers before inference
WRONG, FAILED = "wrong result", "failed"  # units of rows that are no timing
TIME_IS_UP = "time is up"  # the note of a row whose value is the number of cases that were not begun


@dataclass
class Budget:
    """Wall time for a whole grid, shared out as it goes: what quick cases leave over, slow ones get.

    firm: no case is begun after the time is up, where else each gets its `min_rounds`.
    """

    seconds: float
    cases: int
    min_rounds: int = 5
    firm: bool = False
    start: float = field(default_factory=perf_counter)

    def next(self) -> float:
        """Seconds for the timing of the next case."""
        share = self.left() / max(self.cases, 1)
        self.cases -= 1
        return max(share, 0.2)

    def left(self) -> float:
        return self.seconds - (perf_counter() - self.start)

    @property
    def over(self) -> bool:
        return self.firm and self.left() <= 0


def sweep(
    suite: str,
    cases: list[Case],
    peers: list[Peer],
    budget: Budget,
    make: Callable[[Case], Problem] = Problem,
    note: Callable[[str, Problem, Runner], str] | None = None,
    finish: Callable[[Row], Row] = lambda entry: entry,
    said: set[str] | None = None,
) -> list[Row]:
    """Rows of every case and contestant, printed and kept as they come; `make` gives a case its tensors,
    `note` a contestant's row a remark, `finish` a row its last form. `said`: what need not be said again. A
    case that our own side gets wrong is a row too, and no timing.
    """
    rows, said = [], set() if said is None else said
    on_gpu = any(device_of(case) == "cuda" for case in cases)
    clock = CudaClock() if on_gpu else host_clock
    for i, case in enumerate(cases):
        if budget.over:
            left = [one.name for one in cases[i:]]
            print(f"  not begun, the time is up: {'; '.join(left)}", file=sys.stderr)
            rows.append(Row(suite, value=len(left), unit=FAILED, note=TIME_IS_UP))
            saw(rows[-1:])
            break
        start = perf_counter()
        share = budget.next()
        with precision(case.dtype) if device_of(case) == "cuda" else nullcontext():
            problem = make(case)
            with prepared(suite, problem, peers, said) as (runners, errors, new):
                notes = {
                    name: note(name, problem, runner) if note else runner.remark
                    for name, runner in runners.items()
                }
                # Setting up and checking come out of the share.
                left = max(share - (perf_counter() - start), 0.0)
                timings = interleaved(
                    runners,
                    seconds=left,
                    min_rounds=budget.min_rounds,
                    clock=clock,
                    steadiness=None if on_gpu else of_this_run(torch.get_num_threads()),
                )
        new += [
            timing_row(suite, problem, name, timings, errors[name], notes.get(name, "")) for name in timings
        ]
        print(line(case, new), flush=True)
        new = list(map(finish, new))
        saw(new)
        rows += new
        if on_gpu:
            torch.cuda.empty_cache()  # pools of graphs that are gone
    return rows


def device_of(case) -> str:
    return getattr(case, "device", "cpu")


@contextmanager
def prepared(
    suite: str, problem: Problem, peers: list[Peer], said: set[str]
) -> Iterator[tuple[dict[str, Runner], dict, list[Row]]]:
    """The peers that can run this problem and compute it rightly, their errors, and a row for each of our own
    that cannot.

    A peer that cannot is named once with its reason, and so is one whose result differs from float64's, with
    whose of the two sides float64 agrees; a wrong result of ours is printed each time.
    """
    runners: dict[str, Runner] = {}
    errors: dict[str, float] = {}
    wrong: list[Row] = []
    differ: dict[str, str] = {}
    try:
        for peer in peers:
            try:
                runner = peer.prepare(problem)
                runners[peer.name] = runner
                runner.reset()
                runner.run()
                errors[peer.name] = verify(problem, runner.results(), runner.compared)
            except NotCompared:
                continue
            except Unavailable as reason:
                say_once(said, f"{peer.name}: {reason}")
            except (Mismatch, RuntimeError) as reason:
                if peer.name in runners:
                    runners.pop(peer.name).close()
                unit, why = (WRONG if isinstance(reason, Mismatch) else FAILED), failure(reason)
                if peer.name.split()[0] not in OURS and isinstance(reason, Mismatch):
                    differ[peer.name] = why
                    continue
                print(f"  {peer.name} left out, {unit}: {problem.case.name}: {why}", file=sys.stderr)
                if peer.name.split()[0] in OURS:
                    wrong.append(row(suite, problem, peer.name, float("nan"), unit=unit, note=why))
        for name, why in differ.items():
            if name not in said:
                said.add(name)
                print(f"  left out: {name}: {why}; {sided(errors, wrong)}", file=sys.stderr)
        yield runners, errors, wrong
    finally:
        for runner in runners.values():
            runner.close()


def sided(errors: dict[str, float], wrong: list[Row]) -> str:
    """With whom float64 sides, of a case in which a peer's result is another than it allows."""
    ours = {name: error for name, error in errors.items() if name.split()[0] in OURS}
    if ours and not wrong:
        name, error = max(ours.items(), key=lambda item: item[1])
        return f"float64 sides with fusegen, whose error is {error:.1e} ({name}); said of this case alone"
    if wrong:
        return "float64 sides with neither: fusegen's result is another too"
    return "no result of fusegen's was read beside it"


def failure(error: Exception) -> str:
    """The first line of what went wrong."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def say_once(said: set[str], message: str) -> None:
    if message not in said:
        said.add(message)
        print(f"  left out: {message}", file=sys.stderr)


def timing_row(suite: str, problem: Problem, name: str, timings: dict, error: float, note: str = "") -> Row:
    timing, on_gpu = timings[name], device_of(problem.case) == "cuda"
    uncapped = cap.remark(name, name.split()[0] in OURS)
    note = "; ".join(filter(None, (note, uncapped, timing.unsteady)))
    ratios = {f"ratio_{ours}": paired_ratio(timing, timings[ours]) for ours in OURS if ours in timings}
    return row(
        suite, problem, name, timing.median * 1e3,
        p20=timing.quantile(0.2) * 1e3, p80=timing.quantile(0.8) * 1e3, rounds=len(timing.samples),
        gflops=problem.flops / timing.median / 1e9 if problem.flops else "",
        gbs=problem.bytes / timing.median / 1e9 if on_gpu and problem.bytes else "",
        error=error, note=note, dropped=timing.dropped, **ratios,
    )  # fmt: skip


def counterpart(entry: Row) -> tuple[str, float | str]:
    """Which of our own a peer's row is compared with: the frozen one where the peer's weights are packed
    beforehand. And its time over that one's, "" where that was not read beside it."""
    if entry.suite == "rnn" and entry.mode == "inference" and entry.peer in FROZEN:
        return "frozen", entry.ratio_frozen
    return "fused", entry.ratio_fused


def line(case: Case, rows: list[Row]) -> str:
    """One case: milliseconds of each contestant, and beside each peer how many times longer it took than
    which of ours."""
    parts = [f"{case.name:44}"]
    for entry in rows:
        text = f"{entry.peer} {entry.value:.3f}" if entry.unit == "ms" else f"{entry.peer} {entry.unit}"
        ours, ratio = counterpart(entry)
        if entry.peer not in OURS and ratio != "":
            text += f" ({ratio:.2f}x {ours})"
        parts.append(text)
    return "  ".join(parts)
