"""fusegen.nn.LayerNormLSTM, LayerNormGRU, BlockDiagonalLSTM, BlockDiagonalGRU and BlockDiagonalRNN."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ... import _arguments
from ...ops import inside, normalised
from ...ops.inside import Asked
from ...ops.layers import Tap
from ...ops.spec import GRU, LSTM, RNN
from .._base import Call, Layers, States
from ..lstm import PairOfStates
from .parameters import Normalised


class NormalisedLayers(Layers, Normalised):
    """A stack of layers of one cell. Subclasses say which."""

    num_layers: int
    proj_size = 0

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        *,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        norm: str,
        block_diagonal: int,
        eps: float | None,
        device: torch.device | str | int | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self._describe(
            cell, input_size, hidden_size, bias=bias, norm=norm, block_diagonal=block_diagonal, eps=eps
        )
        self.num_layers = _arguments.whole(f"{name}: num_layers", num_layers, 1)
        self.batch_first = _arguments.flag(f"{name}: batch_first", batch_first)
        self.bidirectional = _arguments.flag(f"{name}: bidirectional", bidirectional)
        self.dropout = _arguments.number(f"{name}: dropout", dropout, 0, 1)
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                f"{name}: dropout is between layers, so that it does nothing with num_layers=1", stacklevel=3
            )
        D = 2 if bidirectional else 1
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                self._make_direction(suffix, input_size if layer == 0 else D * hidden_size, device, dtype)
        self.reset_parameters()

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        return (f"_l{layer}", f"_l{layer}_reverse") if self.bidirectional else (f"_l{layer}",)

    def _like(self) -> Tensor:
        W = self._weights_of("_l0")[0]
        assert W is not None
        return W

    def _run(
        self,
        x: Tensor,
        states: States,
        lengths: Tensor | None,
        asked: Asked | None = None,
        tap: Tap | None = None,
    ) -> tuple[Tensor, ...]:
        weights = [
            [w for suffix in self._suffixes(layer) for w in self._weights_of(suffix)]
            for layer in range(self.num_layers)
        ]
        T, B, I = x.shape
        if self.input_size != I:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {I}"
            )
        self._check_input(x, weights[0][0])
        if T == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        if states[0] is not None:
            self._check_states(states, B)
        resets, *starts = (None, None, None) if asked is None else asked[:3]
        stack = normalised.Stack(self._spec, self._kind, weights, self.dropout, self.training)
        return normalised.run(stack, x, states, lengths=lengths, resets=resets, starts=starts, tap=tap)

    def _asked(self, x: Tensor, resets: Tensor | None, reset_to: Any, generator: Any) -> Asked | None:
        name = self._get_name()
        starts: tuple[Tensor | None, Tensor | None] = (None, None)
        if generator is not None:
            raise ValueError(f"{name}: expected no generator, since it draws no masks")
        if resets is None:
            if reset_to is not None:
                raise ValueError(f"{name}: expected reset_to together with resets, got it alone")
            return None
        if reset_to is not None:
            planes = (self.num_layers * (2 if self.bidirectional else 1), x.shape[1])
            sizes = (self.hidden_size,) * len(self._spec.states)
            starts = inside.as_starts(name, reset_to, x, planes, sizes)
        return Asked(inside.own(resets, x), *starts, inside.NO_RATES, self.training, None)

    def extra_repr(self) -> str:
        said = self._said()
        for name in ("num_layers", "batch_first", "dropout", "bidirectional"):
            value = getattr(self, name)
            if value != (1 if name == "num_layers" else 0):
                said += f", {name}={value}"
        return said


class LayerNormLSTM(PairOfStates, NormalisedLayers):
    """An LSTM with layer norms in its recurrence; forward, states, ``lengths=`` and ``resets=`` as of the
    other layers.

    With LN(a; g, b) = g * (a - mean(a)) / sqrt(var(a) + eps) + b over a row, and gates i, f, g, o:

    - norm="haste": a = LN(W x; gain_ih, bias_ih) + LN(R h; gain_hh, 0), each over all four gates;
      c' = s(a_f) c + s(a_i) tanh(a_g), h' = s(a_o) tanh(LN(c'; gain_c, bias_c)). Haste's LayerNormLSTM, by
      its documentation (github.com/lmnt-com/haste), which has the gates in the order i, g, f, o.
    - norm="ba": the same with bias_hh in the second norm (Ba et al. 2016, arXiv:1607.06450, supplement; the
      bias b there is one with both).
    - norm="dreamer": a = LN(W x + R h; gain_ih, bias_ih), one norm over the sum as in DreamerV3's GRU, which
      is where it comes from (there is no LSTM); c' likewise, h' = s(a_o) tanh(c').

    Parameters of layer l, direction suffix as in torch.nn: ``weight_ih_l`` [4H, I], ``weight_hh_l``
    [4H, H / block_diagonal], ``gain_ih_l``, ``bias_ih_l``, ``gain_hh_l``, ``bias_hh_l`` [4H], ``gain_c_l``,
    ``bias_c_l`` [H], those that the formula has; no biases with bias=False. Gains begin at one, biases at
    zero, matrices as torch.nn's.

    block_diagonal=k: R is k blocks on the diagonal, and only they are stored and multiplied: row j H + u of
    ``weight_hh_l`` reads the H/k units of u's block. So ``weight_hh_l.view(4, k, H/k, H/k)`` are the matrices
    of each gate and block.

    eps: 1e-5 ("haste", "ba"), 1e-3 ("dreamer") if None. Raises ValueError or TypeError for another norm, or a
    block_diagonal that does not divide hidden_size.

    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device and dtype as of
    torch.nn.LSTM.
    """

    _spec = LSTM

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        norm: str = "haste",
        block_diagonal: int = 1,
        eps: float | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "lstm", input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, norm=norm, block_diagonal=block_diagonal, eps=eps, device=device,
            dtype=dtype,
        )  # fmt: skip


class LayerNormGRU(NormalisedLayers):
    """A GRU with layer norms in its recurrence; forward, states, ``lengths=`` and ``resets=`` as of the other
    layers.

    With LN as of ``LayerNormLSTM``, and gates r, z, n:

    - norm="haste": x = LN(W x; gain_ih, bias_ih), q = LN(R h; gain_hh, bias_hh), each over all three gates;
      r = s(x_r + q_r), z = s(x_z + q_z), n = tanh(x_n + r * q_n), h' = z h + (1 - z) n. Haste's LayerNormGRU,
      by its documentation (github.com/lmnt-com/haste), which has the gates in the order z, r, n.
    - norm="ba": the norms of x and of q over r and z together and over n alone, and h' = (1 - z) h + z n (Ba
      et al. 2016, arXiv:1607.06450, supplement).
    - norm="dreamer": a = LN(W x + R h; gain_ih, bias_ih), one norm over all gates of the sum; r = s(a_r),
      n = tanh(r * a_n), z = s(a_z - 1), h' = (1 - z) h + z n: the core of DreamerV3's GRU (Hafner et al.
      2023, arXiv:2301.04104; danijar/dreamerv3, whose gates lie r, n, z). With block_diagonal=8, its blocks.

    Parameters and their layout as of ``LayerNormLSTM``, with 3H for 4H and without ``gain_c_l``,
    ``bias_c_l``.

    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device and dtype as of
    torch.nn.GRU; block_diagonal and eps as of ``LayerNormLSTM``, and its errors.
    """

    if TYPE_CHECKING:
        __call__: Call[Tensor]
    _spec = GRU

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        norm: str = "haste",
        block_diagonal: int = 1,
        eps: float | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "gru", input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, norm=norm, block_diagonal=block_diagonal, eps=eps, device=device,
            dtype=dtype,
        )  # fmt: skip


class BlockDiagonalLSTM(PairOfStates, NormalisedLayers):
    """``fusegen.nn.LSTM`` whose recurrent matrix is ``block_diagonal`` blocks on the diagonal (the heads of
    xLSTM's sLSTM, Beck et al. 2024, arXiv:2405.04517), with ``lengths=`` and ``resets=``.

    Only the blocks are stored and multiplied: row j H + u of ``weight_hh_l`` [4H, H / block_diagonal] reads
    the units of u's block, so that ``weight_hh_l.view(4, k, H/k, H/k)`` are the matrices of each gate and
    block. The other parameters and the equations are torch.nn.LSTM's. Raises ValueError where block_diagonal
    does not divide hidden_size.
    """

    _spec = LSTM
    _norms = ("none",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        block_diagonal: int,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "lstm", input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, norm="none", block_diagonal=block_diagonal, eps=None, device=device,
            dtype=dtype,
        )  # fmt: skip


class BlockDiagonalGRU(NormalisedLayers):
    """``fusegen.nn.GRU`` whose recurrent matrix is blocks, as ``BlockDiagonalLSTM``'s, ``weight_hh_l`` being
    [3H, H / block_diagonal].

    The other parameters and the equations are torch.nn.GRU's; blocks as in Beck et al. 2024
    (arXiv:2405.04517). Raises ValueError where block_diagonal does not divide hidden_size.
    """

    if TYPE_CHECKING:
        __call__: Call[Tensor]
    _spec = GRU
    _norms = ("none",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        block_diagonal: int,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "gru", input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, norm="none", block_diagonal=block_diagonal, eps=None, device=device,
            dtype=dtype,
        )  # fmt: skip


class BlockDiagonalRNN(NormalisedLayers):
    """``fusegen.nn.RNN`` whose recurrent matrix is blocks, as ``BlockDiagonalLSTM``'s, ``weight_hh_l`` being
    [H, H / block_diagonal].

    The other parameters and the equations are torch.nn.RNN's; blocks as in Beck et al. 2024
    (arXiv:2405.04517). Raises ValueError where block_diagonal does not divide hidden_size, or for another
    nonlinearity than tanh and relu.
    """

    if TYPE_CHECKING:
        __call__: Call[Tensor]
    _spec = RNN
    _norms = ("none",)

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
        *,
        block_diagonal: int,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self_nonlinearity = _arguments.choice(
            "BlockDiagonalRNN: nonlinearity", nonlinearity, ("tanh", "relu")
        )
        super().__init__(
            f"rnn_{self_nonlinearity}", input_size, hidden_size, num_layers, bias=bias,
            batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, norm="none",
            block_diagonal=block_diagonal, eps=None, device=device, dtype=dtype,
        )  # fmt: skip
        self.nonlinearity = nonlinearity
