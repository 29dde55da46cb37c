"""fusegen.nn.LSTM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..ops import spec
from ._base import Call, Layers, Recurrent


class PairOfStates(Layers):
    """hx and what comes out are (h, c)."""

    if TYPE_CHECKING:
        __call__: Call[tuple[Tensor, Tensor]]
    _no_states = (None, None)

    def _given_states(self, hx: Any, rank: int) -> tuple[Tensor, ...]:
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

    def _result(self, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return states


class LSTM(PairOfStates, Recurrent):
    """torch.nn.LSTM on fusegen's kernels: the same arguments, parameters, results and errors, and more.

    ``forward`` takes ``lengths=`` for ragged batches and ``resets=`` for sequences that start anew. The
    equations are those of torch.nn.LSTM: Hochreiter & Schmidhuber 1997 with forget gates; ``proj_size > 0``
    gives the projected form of arXiv:1402.1128.

    The arguments up to ``dtype`` are those of torch.nn.LSTM. The others act in training, zoneout in
    evaluation too. Their masks are made from one random key for each call, which torch's generator gives, or
    ``generator=`` of the call.

    Args:
        recurrent_dropout: how likely an element of h is set to zero where the next step's gates read it, in
            [0, 1); the others are divided by 1 - p. One mask for a sequence (Gal & Ghahramani 2016).
        recurrent_dropout_on: "state" drops h as above; "candidate" drops elements of tanh(a_g) instead, with
            a new mask at every step (Semeniuta et al. 2016).
        zoneout: how likely a unit of (h, c) keeps its old value at a step, in [0, 1); in evaluation the unit
            takes the mean of the old and the new value (Krueger et al. 2017).
        weight_drop: how likely an element of a recurrent matrix is zero during a call, in [0, 1) (DropConnect
            as in Merity et al. 2018).
        recompute: an int k of at least 1 makes training keep the cell states of every k-th step only and
            compute the rest again in backward: less memory, more time, the same bits. None keeps everything.

    Dtypes: float32, bfloat16, float16, and on the CPU float64. Raises TypeError or ValueError, naming the
    argument, for a wrong option.
    """

    _spec = spec.LSTM

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_on: str = "state",
        zoneout: tuple[float, float] = (0.0, 0.0),
        weight_drop: float = 0.0,
        recompute: int | None = None,
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            proj_size=proj_size,
            device=device,
            dtype=dtype,
            recompute=recompute,
        )
        self._regularise(
            recurrent_dropout=recurrent_dropout,
            recurrent_dropout_on=recurrent_dropout_on,
            zoneout=zoneout,
            weight_drop=weight_drop,
        )
