"""The GAN step: a discriminator's loss on real and fake samples with its penalties, and a generator's.

out = discriminator_step(D, real, fake, loss="non_saturating", r1=10.0)
out.loss.backward()

``gan_step`` does both, updates included, for the models of ``fusegen.models``. ``DiffAugment`` changes images
on their way to the discriminator, for small sets of them.
"""

from ..losses import LOSSES, discriminator_loss, generator_loss
from .augment import DiffAugment
from .blocks import HeldLabels, MinibatchStd, Projection, Residual
from .masks import DropoutMasks, dropout_masks
from .options import GanOptions
from .request import StepOutput
from .step import DiscriminatorStep, discriminator_step, generator_step
from .training import GanReport, Optimizers, gan_step

__all__ = [
    "LOSSES",
    "DiffAugment",
    "DiscriminatorStep",
    "DropoutMasks",
    "GanOptions",
    "GanReport",
    "HeldLabels",
    "MinibatchStd",
    "Optimizers",
    "Projection",
    "Residual",
    "StepOutput",
    "discriminator_loss",
    "discriminator_step",
    "dropout_masks",
    "gan_step",
    "generator_loss",
    "generator_step",
]
