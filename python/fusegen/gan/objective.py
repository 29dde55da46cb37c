"""What a step minimises: a loss of the logits (``fusegen.losses``), and in the discriminator's turn penalties
of the gradients of logits by their samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import losses

GROUPS = ("real", "fake", "mixed")  # of samples, in this order everywhere
MIXED = 2
PENALTIES = ("r1", "r2", "gp")  # of each group's


class Objective(NamedTuple):
    """loss: one of ``losses.LOSSES``. generator: whose turn it is. smoothing: of real samples' labels. r1, r2
    and gp: the penalties' weights, of real, fake and mixed samples."""

    loss: str
    generator: bool = False
    smoothing: float = 0.0
    r1: float = 0.0
    r2: float = 0.0
    gp: float = 0.0

    @property
    def weights(self) -> tuple[float, float, float]:
        return self.r1, self.r2, self.gp

    @property
    def penalised(self) -> tuple[bool, bool, bool]:
        """Which of real, fake and mixed samples a penalty looks at."""
        return self.r1 > 0, self.r2 > 0, self.gp > 0

    @property
    def penalties(self) -> list[str]:
        """The names of those that there are."""
        return [name for name, weight in zip(PENALTIES, self.weights, strict=True) if weight]

    def of(self, r: Tensor | None, f: Tensor) -> Tensor:
        """The loss of logits r [Nr] and f [Nf], a scalar, penalties left out."""
        if self.generator or r is None:  # a discriminator's turn has both
            return losses.generator_loss(self.loss, f, r)
        return losses.discriminator_loss(self.loss, r, f, self.smoothing)

    def penalty(self, group: int, lengths: Tensor) -> Tensor:
        """A group's penalty, a scalar, of the lengths [N] of its input gradients, squared for R1 and R2."""
        weight = self.weights[group]
        if group == MIXED:
            return weight * (lengths - 1).square().mean()
        return weight / 2 * lengths.mean()

    def penalty_slope(self, group: int, norms: Tensor) -> Tensor:
        """The factor [N] of each sample's input gradient in the penalty's derivative by that; 0 where
        WGAN-GP's has none, at length 0."""
        weight, n = self.weights[group], len(norms)
        if group == MIXED:
            return torch.where(norms == 0, 0.0, 2 * weight * (norms - 1) / norms / n)
        return torch.full_like(norms, weight / n)
