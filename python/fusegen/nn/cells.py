"""fusegen.nn.LSTMCell, GRUCell, RNNCell: torch.nn's cells on kernels of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import RNNCellBase
from torch.overrides import is_tensor_like

from .. import _backend, _precision
from ..ops import cells, spec
from ..ops.layers import Tap
from ..ops.recurrent import RecurrentOp
from ._base import untapped
from ._frozen import Frozen
from ._scripted import NotScripted

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_any_autocast = torch._C._is_any_autocast_enabled


class Cell(nn.Module):
    """What a cell is called with: a batch or one row, states. Subclasses run it."""

    _state_names: tuple[str, ...] = ("hidden",)
    input_size: int
    hidden_size: int

    def _run(self, x: Tensor, h: Tensor | None, c: Tensor | None, relu: bool) -> Any:
        """One step of x [B, I]: h [B, H], or (h, c)."""
        raise NotImplementedError

    def _step(self, input: Tensor, h: Tensor | None, c: Tensor | None = None, relu: bool = False) -> Any:
        """The batched step: h, or (h, c)."""
        x, H = input, self.hidden_size
        if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != self.input_size:
            x, h, c = self._batched(x, h, c)
        B = x.shape[0]
        for s in (h, c):
            if s is not None and (not isinstance(s, Tensor) or s.shape != (B, H)):
                x, h, c = self._batched(x, h, c)
        out = self._run(x, h, c, relu)
        if x is input:
            return out
        return tuple(s.squeeze(0) for s in out) if isinstance(out, tuple) else out.squeeze(0)

    def _batched(
        self, input: Tensor, h: Tensor | None, c: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Batched input and states of the right sizes; errors as torch.nn's cells raise them."""
        what, states = self._get_name(), (h, c)
        if not isinstance(input, Tensor):
            raise TypeError(f"{what}: expected input to be a Tensor, got {type(input).__name__}")
        if input.dim() not in (1, 2):
            raise ValueError(f"{what}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        for s, name in zip(states, self._state_names, strict=False):
            if s is not None and not isinstance(s, Tensor):
                raise TypeError(f"{what}: expected {name} to be a Tensor, got {type(s).__name__}")
            if s is not None and s.dim() not in (1, 2):
                raise ValueError(f"{what}: Expected {name} to be 1D or 2D, got {s.dim()}D instead")
        for i, s in enumerate(states):
            if s is not None and s.dim() != input.dim():
                raise RuntimeError(
                    f"{what}: expected input and hidden{i} both of a batch, 2-D, or both of one row, 1-D, "
                    f"got input {input.dim()}-D and hidden{i} {s.dim()}-D"
                )
        if input.dim() == 1:
            input = input.unsqueeze(0)
            h, c = (None if s is None else s.unsqueeze(0) for s in states)
        if input.shape[1] != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {input.shape[1]} expected {self.input_size}"
            )
        self._check_sizes(input, (h, c))
        return input, h, c

    def _check_sizes(self, x: Tensor, states: Sequence[Tensor | None]) -> None:
        for i, s in enumerate(states):
            if s is None:
                continue
            if s.dim() != 2 or s.shape[0] != x.shape[0]:
                raise RuntimeError(
                    f"Input batch size {x.shape[0]} doesn't match hidden{i} batch size {s.shape[0]}"
                )
            if s.shape[1] != self.hidden_size:
                raise RuntimeError(
                    f"hidden{i} has inconsistent hidden_size: got {s.shape[1]}, expected {self.hidden_size}"
                )


class RecurrentCell(Cell, NotScripted, RNNCellBase):
    """What the cells share: weights by name."""

    _op: RecurrentOp
    _torch: Any  # torch.nn's
    _frozen: Frozen | None = None  # inside fusegen.frozen

    def _weights(self) -> list[Tensor | None]:
        own = self._parameters
        try:
            return [own["weight_ih"], own["weight_hh"], own["bias_ih"], own["bias_hh"]]
        except KeyError:  # computed by a parametrization, or set by a hook: an attribute
            return [getattr(self, name) for name in _NAMES]

    def _step(self, input: Tensor, h: Tensor | None, c: Tensor | None = None, relu: bool = False) -> Any:
        if self._frozen is None:
            out = cells.straight(self._op, input, h, c, self._weights(), relu)
            if out is not None:
                return out
        if not isinstance(input, Tensor) and is_tensor_like(input):
            hx = h if len(self._op.spec.states) == 1 else None if h is None else (h, c)
            return self._torch.forward(
                self, input, hx
            )  # what torch runs is for its __torch_function__ to say
        return super()._step(input, h, c, relu)

    def _run(self, x: Tensor, h: Tensor | None, c: Tensor | None, relu: bool, tap: Tap | None = None) -> Any:
        packed, frozen = None, self._frozen
        if (
            frozen
            and frozen.pays(1, x.shape[0], self.hidden_size)
            and not (_any_autocast() or torch.compiler.is_compiling())
        ):
            packed = partial(frozen.blobs, self)
        out = cells.run(self._op, x, h, c, self._weights(), relu, packed=packed, tap=tap)
        if not _any_autocast():
            return out
        pair, computed = isinstance(out, tuple), _backend.autocast_dtype(x)
        given = _precision.as_torch_gives(
            self._op.spec.name, out if pair else (out,), x, (h, c), computed=computed, is_cell=True
        )
        return given if pair else given[0]

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_frozen", None)
        return untapped(state)


class CellOfPairs(Cell):
    """hx and what comes out are (h, c)."""

    _state_names = ("hx[0]", "hx[1]")

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """input [B, I] or [I], hx (h, c) each [B, H] or [H], zeros if None -> (h, c)."""
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise TypeError(
                f"LSTMCell: expected hx to be a tuple of two Tensors (h, c), got {type(hx).__name__}"
            )
        h, c = (None, None) if hx is None else hx
        out: tuple[Tensor, Tensor] = self._step(input, h, c)
        return out

    if TYPE_CHECKING:
        __call__ = forward


class LSTMCell(CellOfPairs, RecurrentCell):
    """torch.nn.LSTMCell on a fused kernel: the same arguments, parameters, results and errors."""

    _op = cells.OPS[spec.LSTM]
    _torch = nn.LSTMCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=4, device=device, dtype=dtype)


class GRUCell(RecurrentCell):
    """torch.nn.GRUCell on a fused kernel: the same arguments, parameters, results and errors."""

    _op = cells.OPS[spec.GRU]
    _torch = nn.GRUCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=3, device=device, dtype=dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """input [B, I] or [I], hx [B, H] or [H], zeros if None -> h."""
        out: Tensor = self._step(input, hx)
        return out

    if TYPE_CHECKING:
        __call__ = forward


class RNNCell(RecurrentCell):
    """torch.nn.RNNCell on a fused kernel: the same arguments, parameters, results and errors."""

    _op = cells.OPS[spec.RNN]
    _torch = nn.RNNCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=1, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """input [B, I] or [I], hx [B, H] or [H], zeros if None -> h."""
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        out: Tensor = self._step(input, hx, relu=self.nonlinearity == "relu")
        return out

    if TYPE_CHECKING:
        __call__ = forward
