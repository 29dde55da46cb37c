"""fusegen.nn.LSTM."""

from __future__ import annotations

from torch import Tensor

from ..ops import recurrent
from ._base import Recurrent


class LSTM(Recurrent):
    """torch.nn.LSTM on fusegen's kernels: the same arguments, parameters, results and errors, and
    ``lengths=``.

    LSTM(input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
    bidirectional=False, proj_size=0, device=None, dtype=None). Equations as in torch.nn.LSTM: Hochreiter &
    Schmidhuber 1997 with forget gates; ``proj_size > 0`` gives the projected form of arXiv:1402.1128.
    """

    _cell = "lstm"
    _per_direction = 5
    _no_states = (None, None)

    def __init__(self, *args, **kwargs):
        super().__init__("LSTM", *args, **kwargs)

    def _given_states(self, hx, rank: int) -> tuple[Tensor, ...]:
        if not isinstance(hx, (tuple, list)) or len(hx) != 2 or not all(isinstance(s, Tensor) for s in hx):
            raise TypeError(
                f"LSTM: expected hx to be a tuple of two Tensors (h_0, c_0), got {type(hx).__name__}"
            )
        if hx[0].dim() != rank or hx[1].dim() != rank:
            batched = "batched" if rank == 3 else "unbatched"
            raise RuntimeError(
                f"For {batched} {rank}-D input, hx and cx should also be {rank}-D "
                f"but got ({hx[0].dim()}-D, {hx[1].dim()}-D) tensors"
            )
        return tuple(hx)

    def _result(self, states):
        return states

    def _layer(self, x, states, weights, lengths, packed):
        return recurrent.lstm((x, *states), weights, (lengths,), packed)
