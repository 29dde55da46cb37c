"""fusegen.nn.GRU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..ops import spec
from ._base import Call, Recurrent, refuse


class GRU(Recurrent):
    """torch.nn.GRU on fusegen's kernels: the same arguments, parameters, results and errors, and more.

    ``forward`` takes ``lengths=`` for ragged batches and ``resets=`` for sequences that start anew. The
    equations are those of torch.nn.GRU (Cho et al. 2014, with the reset gate after the recurrent product).

    The arguments up to ``dtype`` are those of torch.nn.GRU. The others act as those of ``LSTM``.

    Args:
        recurrent_dropout: how likely an element of h is set to zero where the next step's gates read it, in
            [0, 1).
        recurrent_dropout_on: "state", or "candidate", which is n.
        zoneout: one number, how likely a unit of h keeps its old value at a step, in [0, 1).
        weight_drop: how likely an element of a recurrent matrix is zero during a call, in [0, 1).
        recompute: an int k of at least 1 makes training keep nothing but the output and compute the gates
            again in backward, k steps at a time: less memory, more time, the same bits. None keeps
            everything.

    Dtypes: float32, bfloat16, float16, and on the CPU float64. Raises TypeError or ValueError, naming the
    argument, for a wrong option.
    """

    if TYPE_CHECKING:
        __call__: Call[Tensor]
    _spec = spec.GRU

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
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
        refuse("GRU", refused)
        super().__init__(
            "GRU",
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
