"""What a run does besides learning: it measures and tells; with a folder it logs, samples and saves too."""

import contextlib
import math
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .learner import Learner, learning_rate
from .progress import Progress
from .run import Log, Run
from .seeds import random_state, restore_random
from .watching import telling
from .watching.divergence import DIVERGED
from .watching.stopping import SIGNALS, Asked, Signals

# (steps done, measures) of each evaluation, in order.
History = list[tuple[int, dict[str, float]]]

_UNREAD = 100  # steps whose losses may lie on the device unread


class Stopped(Exception):
    """The run was asked to stop. number: of the signal; step, path: the last checkpoint, 0 and None where
    there is none. measured: whether its measure had been taken; saved: whether the checkpoint is of now, or
    the run was only about to begin or to go on."""

    def __init__(
        self, number: int, step: int, path: Path | None, *, measured: bool = True, saved: bool = True
    ):
        by = f"stopped by {signal.Signals(number).name}"
        while_ = "" if measured else ", while it was measured"
        if path is None:
            told = f"{by} before the first checkpoint: nothing is saved"
        elif saved:
            told = f"{by} at step {step}{while_}; saved in {path}"
        else:
            told = f"{by} before it went on; {path} is the last checkpoint, of step {step}"
        super().__init__(told)
        self.number, self.step, self.path = number, step, path


class Collapsed(Exception):
    """The run was asked to stop when this goes wrong, and has saved itself, where it has a folder.

    what: its name; step: after which it was seen; best: the best checkpoint and its step.
    """

    def __init__(self, what: str, step: int, best: tuple[Path, int] | None = None):
        where = f"; the best checkpoint is {best[0]}, of step {best[1]}" if best else ""
        super().__init__(f"stopped for {what} at step {step}{where}")
        self.what, self.step, self.best = what, step, best


@dataclass(frozen=True)
class Marks:
    """The steps after which something is due. They follow from the options, so a resumed run has the same."""

    evaluations: frozenset[int]

    @classmethod
    def spread(cls, steps: int, evaluations: int) -> "Marks":
        return cls(frozenset(round(steps * i / evaluations) for i in range(1, evaluations + 1)))


@dataclass
class Reporter:
    """What a run without a folder does besides learning: it measures and tells.

    The losses of each step stay on the device until something is made of them: the log, a measure, a
    checkpoint. They are then read at once, and the first that is not finite ends the run.
    """

    learner: Learner
    progress: Progress
    marks: Marks
    history: History = field(default_factory=list)
    looked: Mapping[str, float] = field(default_factory=dict)  # what the watch saw at the last evaluation
    _unread: list[tuple[int, Mapping[str, Tensor]]] = field(default_factory=list)
    _loss: float | None = None

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        pass

    def keep(self, losses: Mapping[str, Tensor]) -> None:
        """What is to be done after a step. Raises FloatingPointError, Collapsed, and as `Recorder` does."""
        self._unread.append((self.learner.done, losses))
        stop = self.stop()
        evaluated, saved = self.learner.done in self.marks.evaluations, self.saves(stop)
        if evaluated or saved or self.logs() or len(self._unread) >= _UNREAD or self._last:
            self.log(self._read())
        self.progress.advance(self._loss, self.learner.watch.standing)
        self.settle(evaluated=evaluated, saved=saved, stop=stop)
        self.progress.went_on()

    def settle(self, *, evaluated: bool, saved: bool, stop: int | None = None) -> None:
        """What is due after the last step that was done: the measure, then the checkpoint."""
        watch = self.learner.watch
        best = False
        try:
            if evaluated:
                best = self.evaluate()
                stop = self.stop()
        finally:
            for line in watch.news():
                self.progress.say(f"  step {self.learner.done:>5}: {line}")
        if saved:
            self.save(best, stop)
        if evaluated and watch.stops and not (self._last and watch.stops != DIVERGED):
            raise Collapsed(watch.stops, self.learner.done, self.best_checkpoint())
        if self._last and DIVERGED in watch.standing:
            self._say_the_best()

    def _say_the_best(self) -> None:
        """Names what is left of a run that ended worse than it began."""
        best = self.best_checkpoint()
        where = f"; the best checkpoint is {best[0]}, of step {best[1]}" if best else ""
        self.progress.say(f"  step {self.learner.done:>5}: it ended in {DIVERGED}{where}")

    @property
    def _last(self) -> bool:
        return self.learner.done == self.learner.options.steps

    def _read(self) -> dict[str, float]:
        """The losses of the last step, means over all processes. Raises FloatingPointError where one of them
        or of those before is not finite, naming the first."""
        watch = self.learner.watch
        values = torch.stack([loss for _, losses in self._unread for loss in losses.values()])
        means = iter(self.learner.workers.mean(values.tolist()))
        read: dict[str, float] = {}
        for step, losses in self._unread:
            read = {name: next(means) for name in losses}
            for name, loss in read.items():
                if not math.isfinite(loss):
                    raise FloatingPointError(f"the {name} is {loss} at step {step}; a lower lr may help")
            watch.losses(step, read)
        self._unread.clear()
        self._loss = next(iter(read.values()))
        return read

    def evaluate(self) -> bool:
        """Measures on the first process. Returns whether it is the best so far."""
        measures, self.looked = self._taken()
        learner = self.learner
        self.history.append((learner.done, measures))
        name, value = next(iter(measures.items()))
        learner.watch.measured(learner.done, value, self.looked)
        shown = telling.measures(measures, learner.task.better)
        self.progress.measured(telling.measures({name: value}, learner.task.better))
        self.progress.line(learner.done, self._loss, shown, learner.watch.standing)
        if learner.done == 0:
            return False
        if math.isnan(value):
            raise FloatingPointError(f"{name}: it is {value} at step {learner.done}; a lower lr may help")
        sign = -1 if learner.task.better == "higher" else 1
        # Of equals the one that learnt more.
        best = learner.best is None or sign * value <= sign * learner.best
        if best:
            learner.best = value
        return best

    def _taken(self) -> tuple[dict[str, float], Mapping[str, float]]:
        """All measures, and what the watch sees, by the first process for all. Raises Asked on all."""
        learner, both, asked = self.learner, None, None
        if learner.workers.first:
            try:
                with self.at_once():
                    both = learner.task.evaluate(learner.measured), learner.watch.look(learner.measured)
            except Asked as error:
                asked = error.number
        both, asked = learner.workers.broadcast((both, asked))
        if asked is not None:
            raise Asked(asked)
        return both

    def at_once(self) -> contextlib.AbstractContextManager[None]:
        """What is done inside is left when a signal comes, by Asked."""
        return contextlib.nullcontext()

    def best_checkpoint(self) -> tuple[Path, int] | None:
        """The best checkpoint and its step."""
        return None

    def stop(self) -> int | None:
        """The signal that any process of the run was sent."""
        return None

    def logs(self) -> bool:
        """Whether the losses of this step go to the log."""
        return False

    def log(self, losses: dict[str, float]) -> None:
        pass

    def saves(self, stop: int | None) -> bool:
        """Whether a checkpoint is due."""
        return False

    def save(self, best: bool, stop: int | None) -> None:
        pass


class Recorder(Reporter):
    """What a run with a folder does: it logs, samples and saves too, and is stopped by signals."""

    def __init__(self, learner: Learner, progress: Progress, marks: Marks, run: Run, signals: Signals):
        super().__init__(learner, progress, marks)
        self.run, self._signals = run, signals
        self._open = contextlib.ExitStack()
        self._log: Callable[[int, dict[str, float]], None] = lambda step, values: None
        self._log_sample: Callable[[int, Mapping[str, str | bytes]], None] = lambda step, sample: None

    def __enter__(self) -> "Recorder":
        if self.learner.workers.first:
            log = Log(self.run.folder, self.learner.done, tensorboard=self.learner.setup.tensorboard)
            self._open.callback(log.close)
            self._log, self._log_sample = log, log.sample
            if log.missing:
                self.progress.say(f"  {log.missing}")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._open.close()
        learner = self.learner
        # After a failure too: the curves show what led to it. Not after what came from outside.
        ended = kind is None or issubclass(kind, Stopped | Collapsed | FloatingPointError)
        if ended and learner.task.curves and learner.workers.first and self.history:
            self.run.save_curves()

    def best_checkpoint(self) -> tuple[Path, int] | None:
        step = self.run.checkpoints.load("best")["step"] if self.learner.workers.first else 0
        return self.run.checkpoints.best, self.learner.workers.broadcast(step)

    def stop(self) -> int | None:
        # Where nobody reads the output, its terminal was closed, whose signal need not come.
        if self.progress.gone and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._signals.received.append(signal.SIGHUP)
        sent = self.learner.workers.any([number in self._signals.received for number in SIGNALS])
        return next((number for number, any_of in zip(SIGNALS, sent, strict=True) if any_of), None)

    def at_once(self) -> contextlib.AbstractContextManager[None]:
        return self._signals.at_once()

    def evaluate(self) -> bool:
        """Raises Stopped, the step saved as one that is yet to be measured, after a signal; before the first
        step Asked."""
        learner = self.learner
        random = random_state(learner.workers.device)
        try:
            best = super().evaluate()
        except Asked as asked:
            if not learner.done:
                raise
            restore_random(random, learner.workers.device)
            self.save(False, asked.number, measured=False)
            raise AssertionError("a checkpoint for a signal ends the run") from asked
        step, measures = self.history[-1]
        self._log(step, {**measures, **self.looked, **learner.watch.logged()})
        if learner.workers.first and learner.done:
            sampling = learner.task.sampling(seed=learner.options.seed)
            with contextlib.suppress(Asked):  # `fusegen sample` draws it at any time
                with self.at_once():
                    sample = learner.task.sample(sampling, learner.measured)
                self.run.save_sample(step, sample)
                self._log_sample(step, sample)
        return best

    def logs(self) -> bool:
        return self.learner.done % self.learner.setup.log_every == 0 or self._last

    def log(self, losses: dict[str, float]) -> None:
        if self.logs():
            step = self.learner.done
            rate = {"lr": learning_rate(step - 1, self.learner.options)}
            self._log(step, {**losses, **rate, **self.learner.watch.logged()})

    def saves(self, stop: int | None) -> bool:
        step, every = self.learner.done, self.learner.setup.checkpoint_every
        due = step in self.marks.evaluations or self._last or (every and step % every == 0)
        return bool(due) or stop is not None

    def save(self, best: bool, stop: int | None, measured: bool = True) -> None:
        """Raises Stopped after a signal, OSError where it cannot be written. measured: whether the measure of
        this step was taken, where one is due; else a resumed run takes it first."""
        learner, step = self.learner, self.learner.done
        state = {"run": self.run.id, "is_best": best, "measured": measured, **learner.state_dict()}
        error = None
        if learner.workers.first:
            try:
                self.run.checkpoints.save(step, state, best=best)
            except OSError as caught:
                error = (caught.errno, caught.strerror or str(caught))
        if error := learner.workers.broadcast(error):
            there = self.run.checkpoints.steps()
            last = f"that of step {there[-1]} is whole" if there else "there is none yet"
            raise OSError(error[0], f"the checkpoint of step {step} is not saved: {error[1]}; {last}")
        if stop is not None and not (self._last and measured):
            raise Stopped(stop, step, self.run.checkpoints.path(step), measured=measured)
