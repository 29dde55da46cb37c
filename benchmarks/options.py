"""What the command line asks of a suite."""

from __future__ import annotations

from dataclasses import dataclass

from peers import Peer
from problem import Case
from sweep import Budget


@dataclass(frozen=True)
class Options:
    """What to run: cases with all the words `only` in their name, contestants named in `peers` (empty: all).

    minutes: wall time of each suite that times; None for the suite's own.
    """

    quick: bool = False
    only: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    minutes: float | None = None

    @property
    def partial(self) -> bool:
        """Whether the rows are fewer or shorter read than the bars ask for."""
        return self.quick or bool(self.only or self.peers)

    def cases(self, cases: list[Case]) -> list[Case]:
        return [
            case for case in cases if all(word.lower() in case.name.lower().split() for word in self.only)
        ]

    def contestants(self, peers: list[Peer]) -> list[Peer]:
        return [peer for peer in peers if not self.peers or peer.name in self.peers]

    def budget(self, cases: int, minutes: float, quick_minutes: float) -> Budget:
        chosen = self.minutes or (quick_minutes if self.quick else minutes)
        return Budget(chosen * 60, cases, min_rounds=3 if self.quick else 5)
