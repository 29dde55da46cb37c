"""What a contestant is: a Peer prepares a Runner for a problem, or says why not."""

from __future__ import annotations

from typing import Protocol

import torch


class Unavailable(Exception):
    """This peer cannot run here; the message says what it lacks."""


class NotCompared(Exception):
    """This case is none of this peer's: nothing is lacking."""


class Runner(Protocol):
    """A peer, ready to run one problem again and again.

    rest: seconds after a turn until its threads have let go of the cores. remark: for the note of its rows.
    compared: by which kind of the table of tolerances its results are checked; None for the problem's.
    """

    rest: float
    remark: str
    compared: str | None

    def reset(self) -> None:
        """Untimed, before each run: drop gradients, select a backend."""

    def run(self) -> float | None:
        """Timed: forward, and backward if the case trains. A returned number replaces the clock's seconds."""

    def results(self) -> dict[str, torch.Tensor]:
        """Of the last run, in torch's layout. Layer: y [T,B,H], h_n [B,H], c_n [B,H] (LSTM); cell: h_n, c_n.

        Training: dx as x, dweight_ih, dweight_hh, dbias_ih, dbias_hh; cell: dh, dc too. Empty: nothing to
        check.
        """

    def close(self) -> None:
        """Release what prepare() took."""


class Peer(Protocol):
    name: str

    def prepare(self, problem) -> Runner: ...


class BaseRunner:
    """Nothing to reset, release, wait for or remark."""

    rest = 0.0
    remark = ""
    compared: str | None = None

    def reset(self) -> None:
        return

    def close(self) -> None:
        return
