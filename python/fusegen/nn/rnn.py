"""fusegen.nn.RNN."""

from __future__ import annotations

from ..ops import recurrent
from ._base import Recurrent

_MODES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}


class RNN(Recurrent):
    """torch.nn.RNN on fusegen's kernels: the same arguments, parameters, results and errors, and
    ``lengths=``.

    RNN(input_size, hidden_size, num_layers=1, nonlinearity="tanh", bias=True, batch_first=False, dropout=0.0,
    bidirectional=False, device=None, dtype=None). Elman 1990: h = tanh(W x + b_ih + R h + b_hh), or relu.
    """

    _cell = "rnn"

    def __init__(self, *args, **kwargs):
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if len(args) > 3:
            self.nonlinearity = args[3]
            args = args[:3] + args[4:]
        else:
            self.nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if self.nonlinearity not in _MODES:
            raise ValueError(f"Unknown nonlinearity '{self.nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(_MODES[self.nonlinearity], *args, **kwargs)

    def _layer(self, x, states, weights, lengths, packed):
        return recurrent.rnn((x, *states), weights, (self.mode == "RNN_RELU", lengths), packed)
