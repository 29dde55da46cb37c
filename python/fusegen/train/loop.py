"""The training loop: a warm-up and a cosine, a progress bar, held-out measures on the way."""

import math
import sys
from collections.abc import Callable

from .compare import Comparison
from .options import FitOptions
from .step import Task, make_optimizer, training_step

WARM_UP = 0.05  # of all steps
FINAL_RATE = 0.02  # of the highest learning rate

# (steps done, measures) of each evaluation, in order.
History = list[tuple[int, dict[str, float]]]


def learning_rate(step: int, options: FitOptions) -> float:
    """Linear from 0 over the first `WARM_UP` of the steps, then half a cosine to `FINAL_RATE` of the top."""
    rise = max(1, round(WARM_UP * options.steps))
    if step < rise:
        return options.lr * (step + 1) / rise
    through = (step - rise) / max(1, options.steps - rise)
    return options.lr * (FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * through)) / 2)


def fit(
    task: Task,
    options: FitOptions,
    *,
    evaluations: int = 10,
    comparison: Comparison | None = None,
    say: Callable[[str], None] | None = None,
) -> History:
    """Trains `task.model` in place for `options.steps` steps and returns the measures taken.

    evaluations: how many, evenly spread and the last at the end, besides one before the first step.
    comparison: a twin to time against, in bursts spread over the run.
    say: takes each line meant for people; by default they are printed, above the progress bar.

    Raises FloatingPointError when the loss is no longer finite.
    """
    history: History = []
    optimizer = make_optimizer(task.model, options.lr)
    carried = None
    marks = {round(options.steps * i / evaluations) for i in range(1, evaluations + 1)}
    with _Progress(options.steps, say) as progress:

        def evaluate(done: int) -> None:
            history.append((done, task.evaluate()))
            measures = "   ".join(f"{name} {value:.3f}" for name, value in history[-1][1].items())
            progress.say(f"  step {done:>5} of {options.steps}   {measures}")

        evaluate(0)
        task.model.train()
        for step in range(options.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, options)
            batch, carried = task.batch(step), task.carry(step, carried)
            if comparison is not None and comparison.due(step, options.steps):
                loss, carried = comparison.pair(task, optimizer, batch, carried, options.clip)
            else:
                loss, carried = training_step(task, task.model, optimizer, batch, carried, options.clip)
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss} at step {step + 1}; a lower lr may help")
            progress.advance(loss)
            if step + 1 in marks:
                evaluate(step + 1)
    return history


class _Progress:
    """tqdm's bar where tqdm is installed and stderr is a terminal; the lines alone otherwise."""

    def __init__(self, steps: int, say: Callable[[str], None] | None):
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            self._bar = None
        else:
            # disable=None: none where stderr is not a terminal. leave: the lines tell the story afterwards.
            self._bar = tqdm(total=steps, unit="step", disable=None, dynamic_ncols=True, leave=False)
        self._say = say or self._print

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
