"""The modules: torch.nn's recurrent layers and cells by name, arguments, state dict and behaviour, on
fusegen's kernels; and those with layer norms or a block-diagonal recurrent matrix, which torch.nn lacks."""

from .cells import GRUCell, LSTMCell, RNNCell
from .gru import GRU
from .lstm import LSTM
from .normalised import (
    BlockDiagonalGRU,
    BlockDiagonalGRUCell,
    BlockDiagonalLSTM,
    BlockDiagonalLSTMCell,
    BlockDiagonalRNN,
    BlockDiagonalRNNCell,
    LayerNormGRU,
    LayerNormGRUCell,
    LayerNormLSTM,
    LayerNormLSTMCell,
)
from .rnn import RNN

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BlockDiagonalGRU",
    "BlockDiagonalGRUCell",
    "BlockDiagonalLSTM",
    "BlockDiagonalLSTMCell",
    "BlockDiagonalRNN",
    "BlockDiagonalRNNCell",
    "GRUCell",
    "LSTMCell",
    "LayerNormGRU",
    "LayerNormGRUCell",
    "LayerNormLSTM",
    "LayerNormLSTMCell",
    "RNNCell",
]
