"""The modules: torch.nn's recurrent layers and cells by name, arguments, state dict and behaviour, on
fusegen's kernels; and those with layer norms or a block-diagonal recurrent matrix, which torch.nn lacks.

Under ``torch.autocast`` results have the dtypes of torch.nn's, which differ among them. On the CPU an RNN
and its cell give autocast's dtype. A GRU, its cell and ``LSTMCell`` promote it with the dtype of the state
that is given to them (h, of the LSTM c; of zeros that nobody gave, the input's): float32 in gives float32
out. An LSTM gives autocast's dtype throughout, except for c beside a projection and for ragged batches,
which follow the cell. The kernels compute in autocast's dtype: a wider result costs a pass over it and
holds no more digits, and c of an LSTM that is carried from call to call is rounded to 16 bits each time, as
torch.nn's is.
"""

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
