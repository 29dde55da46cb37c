"""Time per training step beside the same model on torch.nn: same weights, same batches, same run."""

import copy
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn

from .. import revert
from .step import Task, make_optimizer, training_step

BURSTS = 6  # spread over a run, so that one busy moment of the machine does not decide
PAIRS = 5  # steps in a burst; its first pair warms the caches and is not counted


@dataclass
class Comparison:
    """Training steps of a model and of its twin on torch.nn in turn, with a clock on both.

    Before each pair the twin takes over the weights, so both compute the same thing; which goes first
    alternates. Only the model's own steps train it: what it learns is the same with and without a comparison.

    ours, theirs: seconds, one for each counted pair. loss_difference: the largest seen between the two.
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
        self, task: Task, optimizer: torch.optim.Optimizer, batch: Any, carried: Any, clip: float
    ) -> tuple[float, Any]:
        """One step of each on the same batch. Returns the model's own, as `training_step` does."""
        self.twin.train(task.model.training)
        with torch.no_grad():
            for theirs, ours in zip(self.twin.parameters(), task.model.parameters(), strict=True):
                theirs.copy_(ours)

        def timed(model, its_optimizer):
            start = perf_counter()
            result = training_step(task, model, its_optimizer, batch, carried, clip)
            return perf_counter() - start, result

        def timed_twin():
            with torch.random.fork_rng():
                return timed(self.twin, self.optimizer)

        if self.pairs % 2:
            own, other = timed(task.model, optimizer), timed_twin()
        else:
            other, own = timed_twin(), timed(task.model, optimizer)
        if self.pairs % PAIRS:
            self.ours.append(own[0])
            self.theirs.append(other[0])
        self.pairs += 1
        self.loss_difference = max(self.loss_difference, abs(own[1][0] - other[1][0]))
        return own[1]

    def medians(self) -> tuple[float, float]:
        """Seconds per training step: (the model's, the twin's). Raises ValueError before the second pair."""
        if not self.ours:
            raise ValueError("medians: no pair of steps has been counted yet")
        return median(self.ours), median(self.theirs)
