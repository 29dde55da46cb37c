"""What the command line asks of a suite."""

from __future__ import annotations

from dataclasses import dataclass

from harness.peer import Peer
from harness.problem import GATES, Case
from harness.sweep import Budget


@dataclass(frozen=True)
class Options:
    """What to run: cases with all the words `only` in their name, contestants named in `peers` (empty: all).

    minutes: wall time of each suite that times; None for the suite's own. part: (k, n), the k-th of n shares
    of the cases, each of about the same work. threads: None where none were asked for; suites whose cases
    bring their own number then run each (harness/threads.py).
    """

    quick: bool = False
    only: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    minutes: float | None = None
    device: str = "cpu"
    part: tuple[int, int] = (1, 1)
    threads: int | None = None

    @property
    def partial(self) -> bool:
        """Whether the rows are fewer or read for another time than the bars ask for. (On a GPU, `minutes` is
        firm, its cases are read whole, and a row counts those that it left.)"""
        timed = self.minutes is not None and self.device == "cpu"
        return self.quick or timed or bool(self.only or self.peers)

    def cases(self, cases: list[Case]) -> list[Case]:
        chosen = [
            case for case in cases if all(word.lower() in case.name.lower().split() for word in self.only)
        ]
        return share(chosen, *self.part)

    def contestants(self, peers: list[Peer]) -> list[Peer]:
        return [peer for peer in peers if not self.peers or peer.name in self.peers]

    def budget(self, cases: int, minutes: float, quick_minutes: float) -> Budget:
        chosen = self.minutes or (quick_minutes if self.quick else minutes)
        rounds = 3 if self.quick else 5
        return Budget(chosen * 60, cases, min_rounds=rounds, firm=self.device == "cuda")


def work(case: Case) -> float:
    """About how long a case takes against others: its products, and a part of each step that stays. Cases
    that are no plain layers say so themselves."""
    if hasattr(case, "work"):
        return case.work
    products = GATES[case.cell] * case.H * (case.I + case.H) * case.B
    return case.T * (products + 5e7) * (3 if case.train else 1)


def share(cases: list[Case], k: int, n: int) -> list[Case]:
    """The k-th of n shares (from 1), in the order of `cases`: each case goes, the heaviest first, to the
    share that has least so far."""
    if n == 1:
        return cases
    loads, dealt = [0.0] * n, {}
    for case in sorted(cases, key=work, reverse=True):
        lightest = loads.index(min(loads))
        loads[lightest] += work(case)
        dealt[case] = lightest
    return [case for case in cases if dealt[case] == k - 1]
