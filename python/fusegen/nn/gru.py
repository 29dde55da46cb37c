"""fusegen.nn.GRU."""

from __future__ import annotations

from typing import Any

import torch

from ..ops import spec
from ._base import Recurrent, refuse


class GRU(Recurrent):
    """torch.nn.GRU on fusegen's kernels: the same arguments, parameters, results and errors, and
    ``lengths=``.

    Equations as in torch.nn.GRU (Cho et al. 2014, the reset gate after the recurrent product).

    ``recurrent_dropout``, ``recurrent_dropout_on`` (the candidate is n), ``zoneout`` (one number, of h)
    and ``weight_drop`` as of ``LSTM``.

    ``recompute=k`` (an int of at least 1) makes training keep less and take longer: see
    ``fusegen.ops.functional``.

    Dtypes: float32, bfloat16, float16, and on the CPU float64. Raises TypeError or ValueError, naming the
    argument, for a wrong option.
    """

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
