"""Time per training step beside the same model on torch.nn: same weights, same batches, same run."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from .. import revert
from .task import Task
from .update import make_optimizer, training_step

BURSTS = 6  # spread over a run, so that one busy moment of the machine does not decide
PAIRS = 5  # steps in a burst; its first pair warms the caches and is not counted


@dataclass
class Comparison:
    """Training steps of a model and of its twin on torch.nn in turn, with a clock on both.

    Before each pair the twin takes over the weights, so both compute the same thing; which goes first
    alternates. Only the model's own steps train it: what it learns is the same with and without a comparison.

    ours, theirs: seconds, one for each counted pair. loss_difference: the largest seen between the two.

    optimizer: the twin's. pairs: how many pairs of steps there were so far. ``with_torch_nn`` makes one,
    and raises ValueError.
    """

    twin: nn.Module
    optimizer: torch.optim.Optimizer
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    loss_difference: float = 0.0
    pairs: int = 0

    @classmethod
    def with_torch_nn(cls, model: nn.Module, lr: float) -> "Comparison":
        """A twin of `model`: a copy with torch.nn's layers, and the optimiser that `fit` would give it."""
        twin = revert(copy.deepcopy(model))
        return cls(twin, make_optimizer(twin, lr))

    @staticmethod
    def due(step: int, steps: int) -> bool:
        """Whether step `step` of `steps` belongs to a burst."""
        return step % max(PAIRS, steps // BURSTS) < PAIRS

    def pair(
        self, task: Task, batch: Any, carried: Any, clip: float, own: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """One step of each on one batch. `own` takes the model's and returns its losses; so does this."""
        self.twin.train(task.model.training)
        with torch.no_grad():
            for theirs, ours in zip(self.twin.parameters(), task.model.parameters(), strict=True):
                theirs.copy_(ours)

        def timed(step):
            start = perf_counter()
            result = step()
            return perf_counter() - start, result

        def twins_step():
            with torch.random.fork_rng():
                return training_step(task, self.twin, self.optimizer, batch, carried, clip)[0].item()

        if self.pairs % 2:
            (ours, losses), (theirs, loss) = timed(own), timed(twins_step)
        else:
            (theirs, loss), (ours, losses) = timed(twins_step), timed(own)
        if self.pairs % PAIRS:
            self.ours.append(ours)
            self.theirs.append(theirs)
        self.pairs += 1
        difference = abs(next(iter(losses.values())).item() - loss)
        self.loss_difference = max(self.loss_difference, difference)
        return losses

    def medians(self) -> tuple[float, float]:
        """Seconds per training step: (the model's, the twin's). Raises ValueError before the second pair."""
        if not self.ours:
            raise ValueError("medians: no pair of steps has been counted yet")
        return median(self.ours), median(self.theirs)
