"""The training loop of every task: progress, measures and samples on the way, checkpoints, a clean stop."""

import contextlib
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .compare import Comparison
from .learner import FINAL_RATE, WARM_UP, Learner, learning_rate
from .options import FitOptions, RunOptions
from .run import Log, Run
from .step import Task
from .workers import Workers

__all__ = ["FINAL_RATE", "WARM_UP", "History", "Stopped", "fit", "learning_rate"]

# (steps done, measures) of each evaluation, in order.
History = list[tuple[int, dict[str, float]]]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """The run was asked to stop and has saved itself. number: of the signal; step, path: the checkpoint."""

    def __init__(self, number: int, step: int, path: Path):
        super().__init__(f"stopped by {signal.Signals(number).name} at step {step}; saved in {path}")
        self.number, self.step, self.path = number, step, path


def fit(
    task: Task,
    options: FitOptions,
    *,
    setup: RunOptions | None = None,
    evaluations: int | None = None,
    run: Run | None = None,
    resume: str | None = None,
    workers: Workers | None = None,
    comparison: Comparison | None = None,
    say: Callable[[str], None] | None = None,
) -> History:
    """Trains `task.model` in place until `options.steps` steps are done and returns the measures taken.

    setup: on what, and how much is kept; by default one process on the CPU in float32. evaluations: how many,
    evenly spread and the last at the end, besides one before the first step; by default setup's.
    run: where the log, samples and checkpoints go; without one nothing is written. resume: the checkpoint of
    `run` to go on from, as in `Checkpoints.find`.
    comparison: a twin to time against, in bursts spread over the run.
    say: takes each line meant for people; by default they are printed, above the progress bar.

    Raises FloatingPointError when the loss is no longer finite or the first measure is NaN, Stopped after
    SIGTERM or Ctrl-C (with a run; without one KeyboardInterrupt is let through), CheckpointError for a
    checkpoint that cannot be used, and OSError where nothing can be written: the checkpoints before stay
    whole.
    """
    setup = setup or RunOptions(device="cpu")
    workers = workers or Workers(setup.device, setup.timeout)
    learner = Learner(task, options, setup, workers)
    if run is not None and resume is not None:
        _go_on(learner, run, resume)
    if run is not None and workers.first:
        run.keep_config()  # not before: options that the checkpoint refuses must not stay
    marks = Marks.spread(options.steps, setup.evaluations if evaluations is None else evaluations)
    with _Progress(options.steps, learner.done, say, quiet=not workers.first) as progress:
        keeper = _Keeper(learner, run, progress, marks) if run else _Teller(learner, progress)
        with keeper:
            if learner.done == 0:
                keeper.evaluate()
            task.model.train()
            while learner.done < options.steps:
                compared = comparison is not None and comparison.due(learner.done, options.steps)
                losses, stop = keeper.agree(learner.advance(comparison if compared else None))
                for name, loss in losses.items():
                    if not math.isfinite(loss):
                        raise FloatingPointError(
                            f"the {name} is {loss} at step {learner.done}; a lower lr may help"
                        )
                progress.advance(next(iter(losses.values())))
                keeper.log(losses)
                best = keeper.evaluate() if learner.done in marks.evaluations else False
                keeper.save(best, stop)
    return keeper.history


def _go_on(learner: Learner, run: Run, resume: str) -> None:
    """Loads a checkpoint. Raises CheckpointError, ValueError where it is past the last step."""
    path, state = run.checkpoints.find(resume), run.load(resume)
    if state["step"] > learner.options.steps:
        raise ValueError(
            f"steps: expected at least {state['step']}, which {path} has done, got {learner.options.steps}"
        )
    learner.load_state_dict(state, path)
    # A run may have been killed before it had done so, or be taken back to an earlier step.
    if state.get("is_best") and learner.workers.first:
        run.checkpoints.make_best(path)


@dataclass(frozen=True)
class Marks:
    """The steps after which something is due. They follow from the options, so a resumed run has the same."""

    evaluations: frozenset[int]

    @classmethod
    def spread(cls, steps: int, evaluations: int) -> "Marks":
        return cls(frozenset(round(steps * i / evaluations) for i in range(1, evaluations + 1)))


@dataclass
class _Teller:
    """What a run without a folder does besides learning: it measures and tells."""

    learner: Learner
    progress: "_Progress"
    history: History = field(default_factory=list)

    def __enter__(self) -> "_Teller":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def agree(self, losses: dict[str, float]) -> tuple[dict[str, float], int | None]:
        """The losses' means over all processes, and the signal that any of them was sent."""
        means, _ = self.learner.workers.mean(list(losses.values()), [])
        return dict(zip(losses, means, strict=True)), None

    def evaluate(self) -> bool:
        """Measures on the first process. Returns whether it is the best so far."""
        learner = self.learner
        first = learner.workers.first
        measures = learner.workers.broadcast(learner.task.evaluate(learner.measured) if first else None)
        self.history.append((learner.done, measures))
        shown = "   ".join(f"{name} {value:.3f}" for name, value in measures.items())
        self.progress.say(f"  step {learner.done:>5} of {learner.options.steps}   {shown}")
        if learner.done == 0:
            return False
        name, value = next(iter(measures.items()))
        if math.isnan(value):
            raise FloatingPointError(f"{name}: it is {value} at step {learner.done}; a lower lr may help")
        sign = -1 if learner.task.better == "higher" else 1
        best = learner.best is None or sign * value < sign * learner.best
        if best:
            learner.best = value
        return best

    def log(self, losses: dict[str, float]) -> None:
        pass

    def save(self, best: bool, stop: int | None) -> None:
        pass


class _Keeper(_Teller):
    """What a run with a folder does: it logs, samples and saves too, and is stopped by signals."""

    def __init__(self, learner: Learner, run: Run, progress: "_Progress", marks: Marks):
        super().__init__(learner, progress)
        self.run, self.marks = run, marks
        self._received: list[int] = []
        self._open = contextlib.ExitStack()
        self._log: Callable[[int, dict[str, float]], None] = lambda step, values: None

    def __enter__(self) -> "_Keeper":
        self._open.enter_context(_signals(self._received))
        if self.learner.workers.first:
            log = Log(self.run.folder, self.learner.done, tensorboard=self.learner.setup.tensorboard)
            self._open.callback(log.close)
            self._log = log
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def agree(self, losses: dict[str, float]) -> tuple[dict[str, float], int | None]:
        received = [number in self._received for number in SIGNALS]
        means, sent = self.learner.workers.mean(list(losses.values()), received)
        stop = next((number for number, any_of in zip(SIGNALS, sent, strict=True) if any_of), None)
        return dict(zip(losses, means, strict=True)), stop

    def evaluate(self) -> bool:
        best = super().evaluate()
        learner = self.learner
        step, measures = self.history[-1]
        self._log(step, measures)
        if learner.workers.first and learner.done:
            sampling = learner.task.sampling(seed=learner.options.seed)
            self.run.save_sample(step, learner.task.sample(sampling, learner.measured))
        return best

    def log(self, losses: dict[str, float]) -> None:
        step = self.learner.done
        if step % self.learner.setup.log_every == 0 or step == self.learner.options.steps:
            self._log(step, {**losses, "lr": learning_rate(step - 1, self.learner.options)})

    def save(self, best: bool, stop: int | None) -> None:
        """Saves where it is due. Raises Stopped after a signal, OSError where it cannot be written."""
        learner, step = self.learner, self.learner.done
        every = learner.setup.checkpoint_every
        due = step in self.marks.evaluations or step == learner.options.steps or (every and step % every == 0)
        if not due and stop is None:
            return
        state = {"run": self.run.id, "is_best": best, **learner.state_dict()}
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
        if stop is not None and step < learner.options.steps:
            raise Stopped(stop, step, self.run.checkpoints.path(step))


@contextlib.contextmanager
def _signals(received: list[int]) -> Iterator[None]:
    """Collects SIGTERM and Ctrl-C; a second Ctrl-C interrupts at once."""

    def handle(number: int, frame: Any) -> None:
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """tqdm's bar where tqdm is installed and stderr is a terminal; the lines alone otherwise."""

    def __init__(self, steps: int, done: int, say: Callable[[str], None] | None, *, quiet: bool = False):
        self._bar = None
        if not quiet:
            with contextlib.suppress(ModuleNotFoundError):
                from tqdm import tqdm

                # disable=None: none where stderr is not a terminal. leave: the lines tell the story.
                shown = {"unit": "step", "disable": None, "dynamic_ncols": True, "leave": False}
                self._bar = tqdm(total=steps, initial=done, **shown)
        self._say = (lambda line: None) if quiet else say or self._print

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, line: str) -> None:
        self._say(line)

    def _print(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        else:
            print(line)
        sys.stdout.flush()

    def advance(self, loss: float) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            self._bar.update()
