"""What a step minimises: a loss of the logits (``fusegen.losses``), and in the discriminator's turn penalties
of the gradients of logits by their samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import losses

GROUPS = ("real", "fake", "mixed")  # of samples, in this order everywhere
MIXED = 2
PENALTIES = ("r1", "r2", "gp")  # of each group's


class Objective(NamedTuple):
    """loss: one of ``losses.LOSSES``. generator: whose turn it is. smoothing: of real samples' labels. r1, r2
    and gp: the weights of exact penalties, of real, fake and mixed samples. near_real and near_fake: those of
    approximate ones, w in w/2 mean (D(x + noise) - D(x))^2: such a group is twice as long, its samples with
    noise behind the others. counted: how many channels (or features) of a sample count in the lengths of
    input gradients, the first ones; None: all."""

    loss: str
    generator: bool = False
    smoothing: float = 0.0
    r1: float = 0.0
    r2: float = 0.0
    gp: float = 0.0
    near_real: float = 0.0
    near_fake: float = 0.0
    counted: int | None = None

    @property
    def approximate(self) -> bool:
        return self.near_real > 0 or self.near_fake > 0

    @property
    def weights(self) -> tuple[float, float, float]:
        return self.r1, self.r2, self.gp

    @property
    def penalised(self) -> tuple[bool, bool, bool]:
        """Which of real, fake and mixed samples a penalty looks at."""
        return self.r1 > 0, self.r2 > 0, self.gp > 0

    @property
    def penalties(self) -> list[str]:
        """The names of the exact ones that there are."""
        return [name for name, weight in zip(PENALTIES, self.weights, strict=True) if weight]

    def of(self, r: Tensor | None, f: Tensor) -> Tensor:
        """The loss of logits r [Nr] and f [Nf], a scalar, exact penalties left out."""
        near = self.near_penalty(r, f)
        r, f = self.own(r, f)
        if self.generator or r is None:  # a discriminator's turn has both
            return losses.generator_loss(self.loss, f, r)
        loss = losses.discriminator_loss(self.loss, r, f, self.smoothing)
        return loss if near is None else loss + near

    def own(self, r: Tensor | None, f: Tensor) -> tuple[Tensor | None, Tensor]:
        """The logits of the samples themselves, those with noise left out."""
        if r is not None and self.near_real:
            r = r[: len(r) // 2]
        return r, f[: len(f) // 2] if self.near_fake else f

    def near_penalty(self, r: Tensor | None, f: Tensor) -> Tensor | None:
        """The approximate penalties, a scalar; None without."""
        total = None
        for weight, z in ((self.near_real, r), (self.near_fake, f)):
            if weight and z is not None:
                plain, noisy = z.chunk(2)
                one = weight / 2 * (noisy - plain).square().mean()
                total = one if total is None else total + one
        return total

    def exact_penalty(
        self, counts: Sequence[int], squares: Tensor, norms: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of the input gradients' squared lengths and lengths, one for each sample that a penalty looks at,
        group by group: the penalty, each one's factor in its derivative, and the groups' mean lengths."""
        total, factors, means, at = squares.new_zeros(()), [], [], 0
        for group, n in enumerate(counts):
            if self.penalised[group]:
                square, norm = squares[at : at + n], norms[at : at + n]
                at += n
                total = total + self.penalty(group, norm if group == MIXED else square)
                factors.append(self.penalty_slope(group, norm))
                means.append(norm.detach().mean())
        return total, torch.cat(factors), torch.stack(means)

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
