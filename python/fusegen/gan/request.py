"""What a step is asked for, and what it gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..ops.discriminator import SCALARS
from .blocks import HeldLabels
from .chain import Chain
from .modules import hooked
from .objective import Objective

STATS = SCALARS[2:]
Labels = tuple[Tensor | None, Tensor | None]


class Request(NamedTuple):
    """A step, its arguments checked.

    chain: what D is, or why it is not known as one. real is None in a generator's turn that does not pair,
    and without gradient in one that does; mixed is None without WGAN-GP. dim: along which samples lie;
    together: along which D is promised to treat them one by one, None where nothing was promised. pac: how
    many lie in each of these samples, packed. generator: of dropout's masks, None for torch's own. reason:
    why no route before took it. labels: of real and of fake samples, for a D that takes some.
    """

    D: nn.Module
    chain: Chain | str
    objective: Objective
    real: Tensor | None
    fake: Tensor
    mixed: Tensor | None
    dim: int
    together: int | None
    pac: int = 1
    generator: torch.Generator | None = None
    reason: str = ""
    labels: Labels = (None, None)

    @property
    def samples(self) -> tuple[Tensor | None, Tensor, Tensor | None]:
        return self.real, self.fake, self.mixed

    @property
    def network(self) -> nn.Module:
        """D without what holds its labels, of which ``objective`` tells; with it where it has hooks."""
        return self.D.D if type(self.D) is HeldLabels and not hooked(self.D) else self.D

    @property
    def mixed_labels(self) -> Tensor | None:
        """Those of mixed samples, their pairs': of real samples, without those with noise behind them."""
        of_real = self.labels[0]
        return of_real if of_real is None or self.mixed is None else of_real[: self.mixed.shape[self.dim]]

    def labels_of(self, order: Sequence[int]) -> Tensor | None:
        """Those of the groups in this order; None without."""
        of = [*self.labels, self.mixed_labels]
        parts = [of[group] for group in order if self.samples[group] is not None]
        return None if None in self.labels else torch.cat([t for t in parts if t is not None])

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many real, fake and mixed samples there are along the first dim."""
        real, fake, mixed = self.samples
        return 0 if real is None else len(real), len(fake), 0 if mixed is None else len(mixed)


@dataclass(frozen=True)
class StepOutput:
    """What a step gives.

    loss: a scalar with gradient, penalties included. penalty: their part of it, without gradient.
    real_logits [Nr] and fake_logits [Nf], without gradient (real_logits None in a generator's step that
    does not pair). path: what ran, "fused_mlp", "fused_conv",
    "closed_form", "recurrent" or "autograd", and reason: why. stats: see there. key: of the fused step's
    dropout masks, an int64 for ``dropout_masks``; None where it drew none (autograd runs torch's dropout).
    With ``pac``, N counts packed samples.
    """

    loss: Tensor
    real_logits: Tensor | None
    fake_logits: Tensor
    penalty: Tensor
    path: str
    reason: str
    # STATS, or the norms alone: the general path leaves the rest to whoever reads it, since a dozen small
    # operators cost as much as a small network's layer.
    _scalars: Tensor | dict[str, Tensor] = field(repr=False)
    key: Tensor | None = None

    @property
    def stats(self) -> dict[str, float]:
        """mean_real and mean_fake, the mean logits; sign_real and sign_fake, the mean signs; norm_real,
        norm_fake and norm_mixed, the mean length of D's input gradient on real, fake and mixed samples.

        All seven keys are always there, as the kernels write one tensor of seven numbers. A figure that this
        step did not compute is NaN: norm_real without an exact r1, norm_fake without r2, norm_mixed without
        gp, and those of real samples in a generator's step that has none. Such a NaN is no sign of
        divergence.

        sign_real is r_t of Karras et al. 2020 (arXiv:2006.06676, eq. 1): near 1 on training samples, the
        discriminator has overfitted and the generator's gradient is about to vanish; they aim at 0.6.
        Reading waits for the device.
        """
        scalars = self._scalars
        if isinstance(scalars, dict):
            scalars = _stats(self.real_logits, self.fake_logits, scalars)
        return dict(zip(STATS, scalars.tolist(), strict=True))


def output(
    objective: Objective,
    loss: Tensor,
    r: Tensor | None,
    f: Tensor,
    *,
    penalty: Tensor | None = None,
    norms: dict[str, Tensor] | None = None,
    path: str,
    reason: str,
) -> StepOutput:
    """What a step gives of its loss and of all logits; penalty and norms, the mean lengths of input
    gradients, where there was an exact penalty."""
    r, f, norms = None if r is None else r.detach(), f.detach(), norms or {}
    penalty = loss.new_zeros(()) if penalty is None else penalty.detach()
    near = objective.near_penalty(r, f)
    if near is not None:
        penalty = penalty + near
        r, f = objective.own(r, f)
    scalars = _stats(r, f, norms) if torch.compiler.is_compiling() else norms
    return StepOutput(loss, r, f, penalty, path, reason, _scalars=scalars)


@torch.no_grad()
def _stats(r: Tensor | None, f: Tensor, norms: dict[str, Tensor]) -> Tensor:
    """STATS as float64 [7], NaN for what was not computed."""
    nan = f.new_full((), math.nan)
    values = {"mean_fake": f.mean(), "sign_fake": f.sign().mean(), **norms}
    if r is not None:
        values |= {"mean_real": r.mean(), "sign_real": r.sign().mean()}
    return torch.stack([values.get(name, nan).double() for name in STATS])
