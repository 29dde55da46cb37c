"""The two turns of a GAN's training: each network's loss on samples that both have seen, updates left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..losses import discriminator_loss
from .request import StepOutput
from .step import discriminator_step, generator_step

if TYPE_CHECKING:
    from ..models.gan import GAN
    from .options import GanOptions


def discriminator_turn(
    model: GAN,
    real: Tensor,
    fake: Tensor,
    options: GanOptions,
    step: int,
    generator: torch.Generator | None = None,
) -> StepOutput:
    """The discriminator's loss with the penalties that are due at ``step`` (from 0).

    real and fake: as ``model.critic_input`` gives them, fake without gradient. generator: of the interpolates
    of a gradient penalty. Errors as in ``discriminator_step``.
    """
    weights = options.penalties(step)
    if weights and options.penalty_noise:
        return _by_differences(model, (real, fake), options, weights, generator)
    return discriminator_step(
        model.critic(bool(weights)),
        real,
        fake,
        options.loss,
        label_smoothing=options.label_smoothing,
        generator=generator,
        r1=weights.get("r1", 0.0),
        r2=weights.get("r2", 0.0),
        gp=weights.get("gp", 0.0),
    )


def generator_turn(model: GAN, real: Tensor, fake: Tensor, options: GanOptions) -> StepOutput:
    """The generator's loss through the discriminator, which learns nothing.

    real and fake: as ``model.critic_input`` gives them; gradients go to fake alone. Errors as in
    ``generator_step``.
    """
    return generator_step(model.critic(False), fake, options.loss, real=real)


def _by_differences(
    model: GAN,
    samples: tuple[Tensor, Tensor],
    options: GanOptions,
    weights: dict[str, float],
    generator: torch.Generator | None,
) -> StepOutput:
    """The discriminator's loss with R1 and R2 by finite differences: r1/2 mean ((D(x + s e) - D(x)) / s)^2, e
    standard normal, s ``penalty_noise``, whose mean over e is R1 but for terms of order s^2 (Lin et al. 2025,
    arXiv:2501.08316, section 3.3). No second backward, which a recurrent layer pays for dearly; all samples
    pass D together."""
    s = options.penalty_noise
    names = [name for name in ("r1", "r2") if name in weights]
    noisy = [model.near(samples[("r1", "r2").index(name)], s, generator) for name in names]
    D, dim = model.critic(False), model.sample_dim
    counts = [x.shape[dim] for x in (*samples, *noisy)]
    r, f, *near = D(torch.cat((*samples, *noisy), dim)).flatten().split(counts)
    loss = discriminator_loss(options.loss, r, f, options.label_smoothing)
    penalty = loss.new_zeros(())
    for name, moved in zip(names, near, strict=True):
        at = r if name == "r1" else f
        penalty = penalty + weights[name] / 2 * ((moved - at) / s).square().mean()
    return StepOutput(
        loss + penalty,
        r.detach(),
        f.detach(),
        penalty.detach(),
        path="autograd",
        reason="penalties are taken by finite differences",
        _scalars={},
    )
