"""The two turns of a GAN's training: each network's loss on samples that both have seen, updates left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

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
    of a gradient penalty and of dropout's masks. Errors as in ``discriminator_step``, and ValueError
    for packed samples with labels under a penalty.
    """
    weights = options.penalties(step)
    if options.pac > 1 and weights and model.num_classes:
        raise ValueError(
            f"pac: expected 1 where a penalty looks at samples with labels, got {options.pac}: labels are "
            "held constant by where they stand in one sample"
        )
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
        approximate_r1=options.approximate_r1 if weights else None,
        approximate_r2=options.approximate_r2 if weights else None,
        pac=options.pac,
    )


def generator_turn(
    model: GAN,
    real: Tensor,
    fake: Tensor,
    options: GanOptions,
    generator: torch.Generator | None = None,
) -> StepOutput:
    """The generator's loss through the discriminator, which learns nothing.

    generator: of the masks of a discriminator's dropout. real and fake: as ``model.critic_input`` gives them;
    gradients go to fake alone. Errors as in ``generator_step``.
    """
    return generator_step(
        model.critic(False), fake, options.loss, real=real, generator=generator, pac=options.pac
    )
