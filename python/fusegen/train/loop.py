"""The training loop of every task."""

import contextlib
from collections.abc import Callable

from .compare import Comparison
from .learner import Learner
from .options import FitOptions, RunOptions
from .progress import Progress
from .recorder import Collapsed, History, Marks, Recorder, Reporter, Stopped
from .run import Run
from .task import Task
from .watching.stopping import Asked, collected
from .workers import Workers

__all__ = ["Collapsed", "History", "Stopped", "fit"]


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

    Losses are read from the device when they are logged, or a measure or a checkpoint is due; nothing is
    saved after a step whose loss is not finite.

    Raises FloatingPointError when a loss is no longer finite or the first measure is NaN, Stopped after
    SIGTERM, SIGHUP or Ctrl-C (with a run; without one KeyboardInterrupt is let through): after the step at
    hand, at once while it measures or draws. Collapsed where the watch stops the run, which options ask for,
    CheckpointError for a checkpoint that cannot be used, and OSError where nothing can be written: the
    checkpoints before stay whole.

    workers: this process among those of the run; alone by default.
    """
    setup = setup or RunOptions(device="cpu")
    workers = workers or Workers(setup.device, setup.timeout)
    with contextlib.ExitStack() as opened:
        signals = None if run is None else opened.enter_context(collected())
        try:
            measured = True
            with contextlib.nullcontext() if signals is None else signals.at_once():
                learner = Learner(task, options, setup, workers)
                if run is not None and resume is not None:
                    measured = _go_on(learner, run, resume)
            if run is not None and workers.first:
                run.keep_config()  # not before: options that the checkpoint refuses must not stay
            marks = Marks.spread(options.steps, setup.evaluations if evaluations is None else evaluations)
            quiet = not workers.first
            progress = opened.enter_context(
                Progress(options.steps, learner.done, say, reads=task.reads, quiet=quiet)
            )
            reporter = Reporter(learner, progress, marks)
            if run is not None and signals is not None:
                reporter = Recorder(learner, progress, marks, run, signals=signals)
            with reporter:
                if learner.done == 0:
                    reporter.evaluate()
                elif not measured:
                    reporter.settle(evaluated=True, saved=True)
                task.model.train()
                while learner.done < options.steps:
                    compared = comparison is not None and comparison.due(learner.done, options.steps)
                    reporter.keep(learner.advance(comparison if compared else None))
        except Asked as asked:  # before the first step, or before the run goes on
            raise stopped_before(run, asked.number) from None
    return reporter.history


def stopped_before(run: Run | None, number: int) -> Stopped:
    """What a signal raises before there is anything new to save."""
    steps = run.checkpoints.steps() if run is not None else []
    if run is None or not steps:
        return Stopped(number, 0, None)
    return Stopped(number, steps[-1], run.checkpoints.path(steps[-1]), saved=False)


def _go_on(learner: Learner, run: Run, resume: str) -> bool:
    """Loads a checkpoint. Returns whether its measure was taken, or none was due. Raises CheckpointError,
    ValueError where it is past the last step."""
    path, state = run.checkpoints.find(resume), run.load(resume)
    if state["step"] > learner.options.steps:
        raise ValueError(
            f"steps: expected at least {state['step']}, which {path} has done, got {learner.options.steps}"
        )
    learner.load_state_dict(state, path)
    # A run may have been killed before it had done so, or be taken back to an earlier step.
    if state.get("is_best") and learner.workers.first:
        run.checkpoints.make_best(path)
    return bool(state.get("measured", True))  # before it was noted, it always was
