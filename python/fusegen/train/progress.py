"""What a run tells people while it goes on."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from .watching import telling

WAITED = 5.0  # seconds from one line to the next while measuring
EVERY = 60.0  # seconds from one line to the next where there is no bar


class Progress:
    """tqdm's bar where stderr is a terminal and tqdm is installed; a line a minute otherwise.

    reads: what a step reads, (how many, of what), for the speed. say: takes the lines; by default they are
    printed. Output that is gone, such as a terminal that was closed, ends nothing: `gone` says so.
    """

    def __init__(
        self,
        steps: int,
        done: int,
        say: Callable[[str], None] | None = None,
        *,
        reads: tuple[int, str] | None = None,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._steps, self._done, self._begun = steps, done, done
        self._reads, self._clock = reads, clock
        self._bar: Any = None
        self.gone = False
        if not quiet:
            with contextlib.suppress(ModuleNotFoundError):
                from tqdm import tqdm

                # disable=None: none where stderr is not a terminal. leave: the lines tell the story.
                shown = {"unit": "step", "disable": None, "dynamic_ncols": True, "leave": False}
                bar = tqdm(total=steps, initial=done, **shown)
                self._bar = None if bar.disable else bar
        self._say = (lambda line: None) if quiet else say or self._print
        self._start = self._told = self._went_on = clock()
        self._busy, self._since = 0.0, 0  # seconds and steps since the speed was last told
        self._speed = self._measure = ""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            with self._heard(sys.stderr):
                self._bar.close()

    def say(self, line: str) -> None:
        self._say(line)

    def _print(self, line: str) -> None:
        with self._heard(sys.stdout):
            if self._bar is not None:
                self._bar.write(line, file=sys.stdout)
            else:
                print(line)
            sys.stdout.flush()

    @contextlib.contextmanager
    def _heard(self, stream: TextIO) -> Iterator[None]:
        """What is written inside may find nobody: a closed terminal, or a pipe that nobody reads any more."""
        try:
            yield
        except OSError:
            self.gone = True
            silence(stream)

    def measured(self, measure: str) -> None:
        """The measure as last taken, with the direction that is better."""
        self._measure = measure

    def advance(self, loss: float | None, wrong: Sequence[str] = ()) -> None:
        """One step more. loss: as last read. wrong: the names of what goes wrong."""
        now = self._clock()
        self._busy, self._since, self._done = (
            self._busy + now - self._went_on,
            self._since + 1,
            self._done + 1,
        )
        parts = [f"loss {telling.figure(loss)}"] if loss is not None else []
        parts += [self._measure] if self._measure else []
        if self._bar is not None:
            if now - self._told >= 1:  # often enough to be read
                self._told = now
                self._take_speed()
            told = [*parts, *([self._speed] if self._speed else []), *wrong]
            with self._heard(sys.stderr):
                self._bar.set_postfix_str(", ".join(told), refresh=False)
                self._bar.update()
        elif now - self._told >= EVERY and self._done < self._steps:
            self._told = now
            self._take_speed()
            left = (now - self._start) / (self._done - self._begun) * (self._steps - self._done)
            self.say(
                "   ".join(
                    [self.head(self._done), *parts, *self._end(wrong), f"{telling.duration(left)} left"]
                )
            )
        self.went_on()

    def went_on(self) -> None:
        """Training goes on now: what came between two steps does not count in its speed."""
        self._went_on = self._clock()

    def line(self, step: int, loss: float | None, measure: str, wrong: Sequence[str] = ()) -> None:
        """Says what an evaluation found."""
        self._take_speed()
        parts = [f"loss {telling.figure(loss)}"] if loss is not None else []
        self.say("   ".join([self.head(step), *parts, measure, *self._end(wrong)]))
        self._told = self._clock()

    def head(self, step: int) -> str:
        return f"  step {step:>5} of {self._steps}"

    def _end(self, wrong: Sequence[str]) -> list[str]:
        return [*([self._speed] if self._speed else []), *(f"[{name}]" for name in wrong)]

    def _take_speed(self) -> None:
        """What was read a second, in the steps since this was last asked."""
        if self._since and self._busy > 0:
            count, unit = self._reads or (1, "steps")
            self._speed = f"{telling.figure(self._since * count / self._busy)} {unit}/s"
        self._busy, self._since = 0.0, 0


class Measuring:
    """What `fusegen evaluate` tells on stderr while it measures: a bar where that is a terminal and tqdm is
    installed, else a line at once, and one every few seconds after.

    Called before each part with (what it is, how many parts are done, of how many).
    """

    def __init__(self, say: Callable[[str], None] | None = None, clock: Callable[[], float] = time.monotonic):
        self._say, self._clock = say, clock
        self._start, self._told = clock(), -math.inf
        self._bar: Any = None

    def __call__(self, what: str, done: int, parts: int) -> None:
        now = self._clock()
        if self._say is None and self._bar is None:
            with contextlib.suppress(ModuleNotFoundError):
                from tqdm import tqdm

                self._bar = tqdm(total=parts, unit="part", disable=None, dynamic_ncols=True, leave=False)
        if self._bar is not None and not self._bar.disable:
            self._bar.total = parts
            self._bar.set_description_str(f"measuring {what}", refresh=False)
            self._bar.update(done - self._bar.n)
            self._bar.refresh()
        elif now - self._told >= WAITED:
            self._told = now
            past = now - self._start
            left = f", about {telling.duration(past / done * (parts - done))} left" if done else ""
            line = f"  measuring {what}, part {done + 1} of {parts}{left}"
            if self._say is not None:
                self._say(line)
            else:
                print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()


def silence(stream: TextIO) -> None:
    """Lets a stream that can no longer be written to lead nowhere: what lies in its buffer would be an error
    once more at every line, and when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
