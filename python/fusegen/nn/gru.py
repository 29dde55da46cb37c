"""fusegen.nn.GRU."""

from __future__ import annotations

from ..ops import recurrent
from ._base import Recurrent


class GRU(Recurrent):
    """torch.nn.GRU on fusegen's kernels: the same arguments, parameters, results and errors, and
    ``lengths=``.

    GRU(input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False,
    device=None, dtype=None). Equations as in torch.nn.GRU (Cho et al. 2014, the reset gate after the
    recurrent product).
    """

    _cell = "gru"

    def __init__(self, *args, **kwargs):
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__("GRU", *args, **kwargs)

    def _layer(self, x, states, weights, lengths, packed):
        return recurrent.gru((x, *states), weights, (lengths,), packed)
