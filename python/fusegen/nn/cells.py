"""fusegen.nn.LSTMCell, GRUCell, RNNCell: torch.nn's cells on kernels of their own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import RNNCellBase

from .. import _backend
from ..ops import _common, torch_path
from ..ops.cells import gru_cell_step, lstm_cell_step, rnn_cell_step

_any_autocast = torch._C._is_any_autocast_enabled


class _Cell(RNNCellBase):
    """What the cells share: arguments at the door, weights by name, the backend choice."""

    _cell: str
    _op: str
    _frozen = None  # Packed of this cell, inside fusegen.frozen

    def _weights(self) -> list[Tensor | None]:
        own = self._parameters
        out = []
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            w = own.get(name)
            out.append(getattr(self, name) if w is None and name not in own else w)
        return out

    def _door(self, input: Tensor, states, names) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Batched input and states, checked; errors as torch.nn's cells raise them."""
        what = self._get_name()
        if not isinstance(input, Tensor):
            raise TypeError(f"{what}: expected input to be a Tensor, got {type(input).__name__}")
        if input.dim() not in (1, 2):
            raise ValueError(f"{what}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        for s, name in zip(states, names, strict=True):
            if s is not None and not isinstance(s, Tensor):
                raise TypeError(f"{what}: expected {name} to be a Tensor, got {type(s).__name__}")
            if s is not None and s.dim() not in (1, 2):
                raise ValueError(f"{what}: Expected {name} to be 1D or 2D, got {s.dim()}D instead")
        if input.dim() == 1:
            input = input.unsqueeze(0)
            states = tuple(None if s is None else s.unsqueeze(0) for s in states)
        if input.shape[1] != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {input.shape[1]} expected {self.input_size}"
            )
        for i, s in enumerate(states):
            if s is None:
                continue
            if s.dim() != 2 or s.shape[0] != input.shape[0]:
                raise RuntimeError(
                    f"Input batch size {input.shape[0]} doesn't match hidden{i} batch size {s.shape[0]}"
                )
            if s.shape[1] != self.hidden_size:
                raise RuntimeError(
                    f"hidden{i} has inconsistent hidden_size: got {s.shape[1]}, expected {self.hidden_size}"
                )
        return input, states

    def _fused(self, x: Tensor, states, weights) -> bool:
        """Checks that dtypes and devices fit together; then whether the fused cell runs, or torch's own."""
        dtype, any_autocast = x.dtype, _any_autocast()
        for t in (*states, *weights):
            if t is not None and ((t.dtype is not dtype and not any_autocast) or t.is_cpu is not x.is_cpu):
                _common.same_kind(
                    self._get_name(), x, [t], ["hidden" if any(t is s for s in states) else "weight"]
                )
        if dtype not in _common.DTYPES:
            _common.same_kind(self._get_name(), x, [], [])
        return not _backend.use_torch(self._op, x, self.hidden_size, x.shape[0], 1, *states, *weights)

    def _packed(self):
        return None if self._frozen is None or _any_autocast() else self._frozen.blobs(self)[0]

    def __getstate__(self):
        state = self.__dict__.copy()
        state.pop("_frozen", None)
        return state


class LSTMCell(_Cell):
    """torch.nn.LSTMCell on a fused kernel. LSTMCell(input_size, hidden_size, bias=True, device=None,
    dtype=None)."""

    _cell = "lstm"
    _op = "lstm_cell"

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device=None, dtype=None) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=4, device=device, dtype=dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """input [B, I] or [I], hx (h, c) each [B, H] or [H], zeros if None -> (h, c)."""
        if hx is None:
            hx = (None, None)
        elif not isinstance(hx, (tuple, list)) or len(hx) != 2:
            raise TypeError(
                f"LSTMCell: expected hx to be a tuple of two Tensors (h, c), got {type(hx).__name__}"
            )
        x, states = self._door(input, tuple(hx), ("hx[0]", "hx[1]"))
        weights = self._weights()
        if self._fused(x, states, weights):
            h, c = lstm_cell_step(x, *states, weights, self._packed())
        else:
            h, c = torch_path.cell("lstm", x, states, weights)
        return (h, c) if input.dim() == 2 else (h.squeeze(0), c.squeeze(0))


class GRUCell(_Cell):
    """torch.nn.GRUCell on a fused kernel. GRUCell(input_size, hidden_size, bias=True, device=None,
    dtype=None)."""

    _cell = "gru"
    _op = "gru_cell"

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device=None, dtype=None) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=3, device=device, dtype=dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """input [B, I] or [I], hx [B, H] or [H], zeros if None -> h."""
        x, states = self._door(input, (hx,), ("hidden",))
        weights = self._weights()
        if self._fused(x, states, weights):
            h = gru_cell_step(x, *states, weights, self._packed())
        else:
            h = torch_path.cell("gru", x, states, weights)
        return h if input.dim() == 2 else h.squeeze(0)


class RNNCell(_Cell):
    """torch.nn.RNNCell on a fused kernel.

    RNNCell(input_size, hidden_size, bias=True, nonlinearity="tanh", device=None, dtype=None).
    """

    _cell = "rnn"
    _op = "rnn_cell"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=1, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """input [B, I] or [I], hx [B, H] or [H], zeros if None -> h."""
        x, states = self._door(input, (hx,), ("hidden",))
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        weights = self._weights()
        if self._fused(x, states, weights):
            h = rnn_cell_step(x, *states, weights, self.nonlinearity == "relu", self._packed())
        else:
            h = torch_path.cell(f"rnn_{self.nonlinearity}", x, states, weights)
        return h if input.dim() == 2 else h.squeeze(0)
