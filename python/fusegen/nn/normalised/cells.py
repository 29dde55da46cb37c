"""fusegen.nn.LayerNormLSTMCell, LayerNormGRUCell and the block-diagonal cells: one step of the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ... import _arguments
from ...ops import normalised
from ...ops.layers import Tap
from ...ops.spec import GRU, LSTM, RNN
from ..cells import Cell, CellOfPairs
from .parameters import Normalised


class NormalisedCell(Cell, Normalised):
    """A step, run as a sequence of one. Subclasses say of which cell."""

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        bias: bool,
        norm: str,
        block_diagonal: int,
        eps: float | None,
        device: torch.device | str | int | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self._describe(
            cell, input_size, hidden_size, bias=bias, norm=norm, block_diagonal=block_diagonal, eps=eps
        )
        self._make_direction("", input_size, device, dtype)
        self.reset_parameters()

    def _run(self, x: Tensor, h: Tensor | None, c: Tensor | None, relu: bool, tap: Tap | None = None) -> Any:
        weights = self._weights_of("")
        self._check_input(x, weights[0])
        states = [None if s is None else s.unsqueeze(0) for s in (h, c)[: len(self._spec.states)]]
        _, *final = normalised.run(
            normalised.Stack(self._spec, self._kind, [weights]), x.unsqueeze(0), states, tap=tap
        )
        out = tuple(s.squeeze(0) for s in final)
        return out if len(out) == 2 else out[0]

    def extra_repr(self) -> str:
        return self._said()


class LayerNormLSTMCell(CellOfPairs, NormalisedCell):
    """One step of ``LayerNormLSTM``: the same arguments and parameters, without ``_l``; called as
    torch.nn.LSTMCell.

    norm, block_diagonal, eps and their errors as of ``LayerNormLSTM``.
    """

    _spec = LSTM

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        norm: str = "haste",
        block_diagonal: int = 1,
        eps: float | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "lstm",
            input_size,
            hidden_size,
            bias=bias,
            norm=norm,
            block_diagonal=block_diagonal,
            eps=eps,
            device=device,
            dtype=dtype,
        )


class _CellOfOne(NormalisedCell):
    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """input [B, I] or [I], hx [B, H] or [H], zeros if None -> h."""
        out: Tensor = self._step(input, hx)
        return out

    if TYPE_CHECKING:
        __call__ = forward


class LayerNormGRUCell(_CellOfOne):
    """One step of ``LayerNormGRU``: the same arguments and parameters, without ``_l``; called as
    torch.nn.GRUCell.

    norm, block_diagonal, eps and their errors as of ``LayerNormGRU``.
    """

    _spec = GRU

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        norm: str = "haste",
        block_diagonal: int = 1,
        eps: float | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "gru",
            input_size,
            hidden_size,
            bias=bias,
            norm=norm,
            block_diagonal=block_diagonal,
            eps=eps,
            device=device,
            dtype=dtype,
        )


class BlockDiagonalLSTMCell(CellOfPairs, NormalisedCell):
    """One step of ``BlockDiagonalLSTM``, called as torch.nn.LSTMCell; ``weight_hh`` [4H, H /
    block_diagonal].

    Raises ValueError where block_diagonal does not divide hidden_size.
    """

    _spec = LSTM
    _norms = ("none",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        block_diagonal: int,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "lstm",
            input_size,
            hidden_size,
            bias=bias,
            norm="none",
            block_diagonal=block_diagonal,
            eps=None,
            device=device,
            dtype=dtype,
        )


class BlockDiagonalGRUCell(_CellOfOne):
    """One step of ``BlockDiagonalGRU``, called as torch.nn.GRUCell; ``weight_hh`` [3H, H /
    block_diagonal].

    Raises ValueError where block_diagonal does not divide hidden_size.
    """

    _spec = GRU
    _norms = ("none",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        block_diagonal: int,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "gru",
            input_size,
            hidden_size,
            bias=bias,
            norm="none",
            block_diagonal=block_diagonal,
            eps=None,
            device=device,
            dtype=dtype,
        )


class BlockDiagonalRNNCell(_CellOfOne):
    """One step of ``BlockDiagonalRNN``, called as torch.nn.RNNCell; ``weight_hh`` [H, H / block_diagonal].

    Raises ValueError where block_diagonal does not divide hidden_size, or for another nonlinearity than
    tanh and relu.
    """

    _spec = RNN
    _norms = ("none",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        block_diagonal: int,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _arguments.choice("BlockDiagonalRNNCell: nonlinearity", nonlinearity, ("tanh", "relu"))
        cell = f"rnn_{nonlinearity}"
        super().__init__(
            cell,
            input_size,
            hidden_size,
            bias=bias,
            norm="none",
            block_diagonal=block_diagonal,
            eps=None,
            device=device,
            dtype=dtype,
        )
        self.nonlinearity = nonlinearity
