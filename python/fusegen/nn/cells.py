"""fusegen.nn.LSTMCell, GRUCell, RNNCell: torch.nn's cells on kernels of their own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import RNNCellBase

from .. import _backend
from ..ops import cells, torch_path
from ..ops._op import Op

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_any_autocast = torch._C._is_any_autocast_enabled


class _Cell(RNNCellBase):
    """What the cells share: arguments at the door, weights by name, the backend choice."""

    _op: Op
    _kind: str  # torch's name of the cell
    _state_names: tuple[str, ...] = ("hidden",)
    _frozen = None  # Packed of this cell, inside fusegen.frozen

    def _weights(self) -> list[Tensor | None]:
        own = self._parameters
        try:
            return [own["weight_ih"], own["weight_hh"], own["bias_ih"], own["bias_hh"]]
        except KeyError:  # computed by a parametrization, or set by a hook: an attribute
            return [getattr(self, name) for name in _NAMES]

    def _step(self, input: Tensor, states: tuple, options: tuple = ()):
        """The batched step on checked arguments: fused, or torch's own."""
        x, H = input, self.hidden_size
        if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != self.input_size:
            x, states = self._door(x, states)
        B = x.shape[0]
        for s in states:
            if s is not None and (not isinstance(s, Tensor) or s.shape != (B, H)):
                x, states = self._door(x, states)
        weights = self._weights()
        if _backend.use_torch(self._op.name, x, H, B, 1, states, weights):
            out = torch_path.cell(self._kind, x, states, weights)
        else:
            packed = None
            frozen = self._frozen
            if frozen and frozen.pays(1, B, H) and not (_any_autocast() or torch.compiler.is_compiling()):
                packed = frozen.blobs(self)[0]
            out = self._op((x, *states), weights, options, packed)
        if x is input:
            return out
        return tuple(s.squeeze(0) for s in out) if isinstance(out, tuple) else out.squeeze(0)

    def _door(self, input, states) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Batched input and states of the right sizes; errors as torch.nn's cells raise them."""
        what, names = self._get_name(), self._state_names
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

    def __getstate__(self):
        state = self.__dict__.copy()
        state.pop("_frozen", None)
        return state


class LSTMCell(_Cell):
    """torch.nn.LSTMCell on a fused kernel. LSTMCell(input_size, hidden_size, bias=True, device=None,
    dtype=None)."""

    _op = cells.lstm_cell
    _kind = "lstm"
    _state_names = ("hx[0]", "hx[1]")

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
        return self._step(input, tuple(hx))


class GRUCell(_Cell):
    """torch.nn.GRUCell on a fused kernel. GRUCell(input_size, hidden_size, bias=True, device=None,
    dtype=None)."""

    _op = cells.gru_cell
    _kind = "gru"

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device=None, dtype=None) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=3, device=device, dtype=dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """input [B, I] or [I], hx [B, H] or [H], zeros if None -> h."""
        return self._step(input, (hx,))


class RNNCell(_Cell):
    """torch.nn.RNNCell on a fused kernel.

    RNNCell(input_size, hidden_size, bias=True, nonlinearity="tanh", device=None, dtype=None).
    """

    _op = cells.rnn_cell

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

    @property
    def _kind(self) -> str:
        return f"rnn_{self.nonlinearity}"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """input [B, I] or [I], hx [B, H] or [H], zeros if None -> h."""
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        return self._step(input, (hx,), (self.nonlinearity == "relu",))
