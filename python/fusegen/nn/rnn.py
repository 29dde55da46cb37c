"""fusegen.nn.RNN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..ops import spec
from ._base import Call, Recurrent, refuse

_MODES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}


class RNN(Recurrent):
    """torch.nn.RNN on fusegen's kernels: the same arguments, parameters, results and errors, and more.

    ``forward`` takes ``lengths=`` for ragged batches and ``resets=`` for sequences that start anew. Elman
    1990: h = tanh(W x + b_ih + R h + b_hh), or relu by ``nonlinearity``.

    The arguments up to ``dtype`` are those of torch.nn.RNN. The others act as those of ``LSTM``.

    Args:
        recurrent_dropout: how likely an element of h is set to zero where the next step reads it, in [0, 1).
        recurrent_dropout_on: "state", or "candidate", which is the new h.
        zoneout: one number, how likely a unit of h keeps its old value at a step, in [0, 1).
        weight_drop: how likely an element of a recurrent matrix is zero during a call, in [0, 1).
        recompute: taken as by the other layers, and without effect: an RNN keeps nothing but its output
            anyway.

    Dtypes: float32, bfloat16, float16, and on the CPU float64. Raises TypeError or ValueError, naming the
    argument, for a wrong option.
    """

    if TYPE_CHECKING:
        __call__: Call[Tensor]
    _spec = spec.RNN

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_on: str = "state",
        zoneout: float = 0.0,
        weight_drop: float = 0.0,
        recompute: int | None = None,
        **refused: Any,
    ) -> None:
        refuse("RNN", refused)
        if nonlinearity not in _MODES:
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        self.nonlinearity = nonlinearity
        super().__init__(
            _MODES[nonlinearity],
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
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
