"""Layers and cells with layer norms in the recurrence, and with block-diagonal recurrent matrices."""

from .cells import (
    BlockDiagonalGRUCell,
    BlockDiagonalLSTMCell,
    BlockDiagonalRNNCell,
    LayerNormGRUCell,
    LayerNormLSTMCell,
)
from .layers import BlockDiagonalGRU, BlockDiagonalLSTM, BlockDiagonalRNN, LayerNormGRU, LayerNormLSTM
from .parameters import Normalised, normalised_module

__all__ = [
    "BlockDiagonalGRU",
    "BlockDiagonalGRUCell",
    "BlockDiagonalLSTM",
    "BlockDiagonalLSTMCell",
    "BlockDiagonalRNN",
    "BlockDiagonalRNNCell",
    "LayerNormGRU",
    "LayerNormGRUCell",
    "LayerNormLSTM",
    "LayerNormLSTMCell",
    "Normalised",
    "normalised_module",
]
