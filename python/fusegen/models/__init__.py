"""Generative models on fusegen's layers; each is a plain `torch.nn.Module`."""

from .latent import Elbo
from .sequence_vae import SequenceVAE
from .text_lstm import TextLSTM
from .vae import VAE, ConvVAE

__all__ = ["VAE", "ConvVAE", "Elbo", "SequenceVAE", "TextLSTM"]
