"""The signals that ask a run to stop: between steps, or at once while it reads, measures or draws."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Asked(BaseException):
    """A signal asked the run to stop, while it did what can be left at any point. number: of the signal."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class Signals:
    """What was received of SIGTERM, SIGHUP and Ctrl-C. A second Ctrl-C raises KeyboardInterrupt at once.

    A first signal raises Asked inside ``at_once``; elsewhere it is kept in `received`.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self._leaves = False

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """What is done inside ends with Asked when a signal comes, or has come before."""
        self._leaves = True
        try:
            self._leave()
            yield
        finally:
            self._leaves = False
        self._leave()  # where the exception was swallowed, as in a callback

    def _leave(self) -> None:
        if self.received:
            raise Asked(self.received[0])

    def handle(self, number: int, frame: Any) -> None:
        again = number == signal.SIGINT and number in self.received
        self.received.append(number)
        if self._leaves and len(self.received) == 1:
            raise Asked(number)
        if again:
            raise KeyboardInterrupt


_active: list[Signals] = []


@contextlib.contextmanager
def collected() -> Iterator[Signals]:
    """The signals that are received inside; what is nested shares the outer one's. SIGHUP stays ignored where
    it is, as under nohup. Only the main thread receives any."""
    if _active and threading.current_thread() is threading.main_thread():
        yield _active[0]
        return
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    caught = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signals.handle) for number in caught}
    _active.append(signals)
    try:
        yield signals
    finally:
        _active.pop()
        for number, handler in before.items():
            signal.signal(number, handler)
