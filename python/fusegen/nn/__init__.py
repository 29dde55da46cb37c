"""The modules: torch.nn's recurrent layers and cells by name, arguments, state dict and behaviour, on
fusegen's kernels."""

from .cells import GRUCell, LSTMCell, RNNCell
from .gru import GRU
from .lstm import LSTM
from .rnn import RNN

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]
