"""Generative models on fusegen's layers; each is a plain `torch.nn.Module`."""

from .text_lstm import TextLSTM

__all__ = ["TextLSTM"]
