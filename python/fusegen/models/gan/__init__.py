"""GANs: of dense layers, of convolutions, and of recurrent layers over sequences."""

from .base import GAN
from .dcgan import DCGAN
from .mlp import MLPGAN
from .recurrent import RecurrentGAN

__all__ = ["DCGAN", "GAN", "MLPGAN", "RecurrentGAN"]
