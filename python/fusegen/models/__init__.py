"""Generative models on fusegen's layers; each is a plain `torch.nn.Module`."""

from .gan import DCGAN, GAN, MLPGAN, RecurrentGAN
from .text_lstm import TextLSTM

__all__ = ["DCGAN", "GAN", "MLPGAN", "RecurrentGAN", "TextLSTM"]
