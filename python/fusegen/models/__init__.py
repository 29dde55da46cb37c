"""Generative models on fusegen's layers; each is a plain `torch.nn.Module`."""

from .gan import DCGAN, GAN, MLPGAN, RecurrentGAN
from .latent import Elbo
from .seq2seq import Decoded, Seq2Seq
from .seqvae import SequenceVAE
from .text_lstm import TextLSTM
from .vae import VAE, ConvVAE

__all__ = [
    "DCGAN",
    "GAN",
    "MLPGAN",
    "VAE",
    "ConvVAE",
    "Decoded",
    "Elbo",
    "RecurrentGAN",
    "Seq2Seq",
    "SequenceVAE",
    "TextLSTM",
]
