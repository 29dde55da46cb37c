"""What a GAN's training step does, in numbers."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from .. import losses
from .._arguments import number, whole
from . import checks


@dataclass(frozen=True)
class GanOptions:
    """What ``gan_step`` does.

    loss, r1, r2, gp, approximate_r1, approximate_r2, label_smoothing: those of ``discriminator_step``.
    penalty_every: k computes the penalties (there must be one) at every k-th step only, the first included,
    with k times their weight (lazy regularisation, Karras et al. 2020, arXiv:1912.04958, appendix B): on
    average the gradient is that of every step. (Their correction of Adam's rates is for a penalty with an
    optimiser step of its own; here loss and penalty share one.) pac: how many samples D sees at once, as in
    ``discriminator_step``. generator_every: k trains the generator at every k-th step only. clip: the
    gradient of each network is cut to this length; 0 for no limit.

    Raises TypeError or ValueError, naming the option, also for one that changes nothing without another:
    approximate_r1 without r1, approximate_r2 without r2, penalty_every above 1 without a penalty.
    """

    loss: str = "non_saturating"
    r1: float = 0.0
    r2: float = 0.0
    gp: float = 0.0
    approximate_r1: float | None = None
    approximate_r2: float | None = None
    penalty_every: int = 1
    label_smoothing: float = 0.0
    generator_every: int = 1
    clip: float = 0.0
    pac: int = 1

    def __post_init__(self) -> None:
        losses.check_loss(self.loss, self.label_smoothing)
        for name in ("r1", "r2", "gp", "clip"):
            number(name, getattr(self, name), 0)
        for name in ("penalty_every", "generator_every", "pac"):
            whole(name, getattr(self, name), 1)
        if self.penalty_every > 1 and not (self.r1 or self.r2 or self.gp):
            raise ValueError(
                f"penalty_every: expected 1 without a penalty, got {self.penalty_every}; give r1=, r2= or gp="
            )
        for name in ("r1", "r2", "gp"):
            weight = getattr(self, name)
            if weight and self.penalty_every > sys.float_info.max / weight:
                raise ValueError(
                    f"{name}, penalty_every: expected a finite product, the weight of a lazy penalty, "
                    f"got {weight} and {self.penalty_every}"
                )
        for name in ("r1", "r2"):
            lazy = float(getattr(self, name)) * self.penalty_every
            checks.deviation(f"approximate_{name}", getattr(self, f"approximate_{name}"), name, lazy)

    def penalties(self, step: int) -> dict[str, float]:
        """The weights at this step, by name; empty where there is no penalty."""
        if step % self.penalty_every:
            return {}
        given = {"r1": self.r1, "r2": self.r2, "gp": self.gp}
        return {name: float(w) * self.penalty_every for name, w in given.items() if w}
