"""Recurrent layers, cells and Linear layers whose weights have 8 bits, as ``fusegen.quantize`` makes them.

A row of a weight is a float32 scale times integers of -127..127; biases are float32. For inference, on the
CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import _C
from ..ops import route, spec
from ..ops.inside import Asked
from ..ops.layout import dense, present, rows
from ..ops.spec import CellSpec
from ._base import Call, Layers, States
from .cells import Cell, CellOfPairs
from .frozen import stamps_of
from .lstm import PairOfStates

FORMAT = 1  # of the saved form
LARGEST = 127
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [n, k] as (integers [n, k] int8, scales [n] float32): each row's largest becomes 127 or -127,
    and rounding is to the nearest, ties to even. A row of zeros has scale 0."""
    w = weight.detach().float()
    scale = w.abs().amax(1) / LARGEST
    q = torch.round(w / scale.unsqueeze(1).masked_fill(scale.unsqueeze(1) == 0, 1))
    return q.clamp_(-LARGEST, LARGEST).to(torch.int8), scale


def from_int8(q: Tensor, scale: Tensor) -> Tensor:
    """The weight that (q, scale) stand for, in float32."""
    return q.float() * scale.unsqueeze(1)


class Quantized(nn.Module):
    """What these modules share: integers and scales as buffers, packed for the kernels when they are used."""

    weight_only: bool

    def __init__(self, weight_only: bool) -> None:
        super().__init__()
        self.weight_only = weight_only
        self.register_buffer("format_version", torch.tensor(FORMAT, device="cpu"))
        self._cache: tuple[Any, list[Tensor], Any] = (None, [], None)

    def _add_weight(self, name: str, weight: Tensor | None) -> None:
        if weight is None:
            return
        q, scale = to_int8(weight)
        self.register_buffer(name, q)
        self.register_buffer(f"{name}_scale", scale)

    def _add_bias(self, name: str, bias: Tensor | None) -> None:
        if bias is not None:
            self.register_buffer(name, bias.detach().float().clone())

    def _blobs(self) -> list[Tensor]:
        """The weights as the kernels read them: made anew when a buffer has changed, and at every call where
        torch counts no changes (buffers made under torch.inference_mode)."""
        held = self._buffers.values()
        try:
            now = stamps_of(held)
        except RuntimeError:  # an inference tensor counts no versions
            return self._pack()
        stamps, packed, _ = self._cache
        if now != stamps:
            packed = self._pack()
            # New memory shows by its address, so nothing else may be allocated at the old one.
            self._cache = now, packed, [b.untyped_storage() for b in present([*held])]
        return packed

    def _pack(self) -> list[Tensor]:
        raise NotImplementedError

    def _plain(
        self, x: Tensor, states: Sequence[Tensor | None] = ()
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """The input and the states as kernels may read them, the states in the input's dtype."""
        given = (x, *states)
        if route.is_plain_inference(given) and _lie_as_kernels_read(x, states):
            return x, states
        name = self._get_name()
        for t in present(given):
            if not t.is_cpu:
                raise RuntimeError(f"{name}: expected tensors on the CPU, got one on {t.device}")
            if t.layout != torch.strided:
                raise RuntimeError(f"{name}: expected dense tensors, got one of layout {t.layout}")
            if t.requires_grad and torch.is_grad_enabled():
                raise RuntimeError(
                    f"{name}: quantized modules give no gradients; call under torch.no_grad(), "
                    "or train the model that was quantized"
                )
        route.check_without_op(name, given)
        if x.dtype not in _DTYPES:
            raise ValueError(f"{name}: expected input of dtype float32, bfloat16 or float16, got {x.dtype}")
        # of a negative view the kernels would read the memory, which has the other sign
        return x.detach().resolve_neg(), [
            None if s is None else dense(s.detach().resolve_neg().to(x.dtype)) for s in states
        ]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Scales and biases stay float32 when the model they are in is cast."""
        before = {name: b for name, b in self._buffers.items() if b is not None}
        super()._apply(fn, recurse)
        for name, b in before.items():
            now = self._buffers[name]
            if now is not None and now.dtype != b.dtype:
                self._buffers[name] = b.to(now.device)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        version = state_dict.get(f"{prefix}format_version")
        if version is not None and int(version) != FORMAT:
            raise RuntimeError(
                f"{self._get_name()}: expected a saved form of version {FORMAT}, got version {int(version)}"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": (None, [], None)}

    def extra_repr(self) -> str:
        return f"{self._sizes()}, int8{' weights' if self.weight_only else ''}"

    def _sizes(self) -> str:
        raise NotImplementedError


def _lie_as_kernels_read(x: Tensor, states: Sequence[Tensor | None]) -> bool:
    dtype = x.dtype
    if dtype not in _DTYPES or not x.is_cpu or x.layout is not torch.strided:
        return False
    for s in states:
        if s is not None and (s.dtype is not dtype or not s.is_cpu or not s.is_contiguous()):
            return False
    return True


def _pack_direction(cell: str, weights: Sequence[Tensor | None], weight_only: bool) -> Tensor:
    """``weights``: W, R, W_hr, their scales, b_ih, b_hh."""
    given = [dense(w) for w in weights]
    blob = torch.empty(_C.int8_packed_bytes(cell, given, weight_only), dtype=torch.uint8, device="cpu")
    _C.int8_pack(cell, given, weight_only, blob)
    return blob


class QuantizedLayers(Layers, Quantized):
    """A stack of layers, of the options of the module ``like``, whose weights (by torch's names) it holds."""

    _spec: CellSpec

    def __init__(self, like: nn.RNNBase, weight_only: bool) -> None:
        super().__init__(weight_only)
        self.mode, self.input_size, self.hidden_size = like.mode, like.input_size, like.hidden_size
        self.num_layers, self.bias, self.batch_first = like.num_layers, like.bias, like.batch_first
        self.dropout, self.bidirectional, self.proj_size = like.dropout, like.bidirectional, like.proj_size
        # of training, which a float copy of this may see again
        self._options = {
            name: getattr(like, name)
            for name in ("recurrent_dropout", "recurrent_dropout_on", "zoneout", "weight_drop", "recompute")
            if hasattr(like, name)
        }
        for names in like._all_weights:
            for name in names:
                add = self._add_bias if name.startswith("bias") else self._add_weight
                add(name, getattr(like, name))

    def _like(self) -> Tensor:
        scale = self._buffers["weight_ih_l0_scale"]
        assert scale is not None
        return scale

    def _names(self) -> list[str]:
        """The ends of the names of weights: a layer's and direction's."""
        return [
            f"l{i}{end}" for i in range(self.num_layers) for end in ("", "_reverse")[: 1 + self.bidirectional]
        ]

    def _pack(self) -> list[Tensor]:
        get = self._buffers.get
        kinds = ("weight_ih", "weight_hh", "weight_hr")
        return [
            _pack_direction(
                self._spec.engine_name(self.mode == "RNN_RELU"),
                [get(f"{kind}_{end}{of}") for of in ("", "_scale") for kind in kinds]
                + [get(f"{kind}_{end}") for kind in ("bias_ih", "bias_hh")],
                self.weight_only,
            )
            for end in self._names()
        ]

    def _run(
        self, x: Tensor, states: States, lengths: Tensor | None, asked: Asked | None = None
    ) -> tuple[Tensor, ...]:
        x, plain = self._plain(x, states)
        (T, B, I), H, P = x.shape, self.hidden_size, self.proj_size or self.hidden_size
        if self.input_size != I:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {I}"
            )
        if T == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        if states[0] is not None:
            self._check_states(states, B)
        D = 1 + self.bidirectional
        L, cell = self.num_layers, self._spec.engine_name(self.mode == "RNN_RELU")
        form = (H, P, bool(self.proj_size), self.weight_only)
        h_n = x.new_empty(L * D, B, P)
        c_n = x.new_empty(L * D, B, H) if len(states) == 2 else None
        h0, c0 = (*plain, None)[:2]
        blobs, threads = self._blobs(), torch.get_num_threads()
        if L == 1:
            y = x.new_empty(T, B, D * P)
            _C.int8_layer(cell, rows(x), h0, c0, blobs, form, lengths, y, h_n, c_n, threads)
            return (y, h_n) if c_n is None else (y, h_n, c_n)
        for layer in range(L):
            part = slice(layer * D, (layer + 1) * D)
            y = x.new_empty(T, B, D * P)
            h, c, c_last = (None if s is None else s[part] for s in (h0, c0, c_n))
            _C.int8_layer(cell, rows(x), h, c, blobs[part], form, lengths, y, h_n[part], c_last, threads)
            x = y
        return (x, h_n) if c_n is None else (x, h_n, c_n)

    def _sizes(self) -> str:
        said = f"{self.input_size}, {self.hidden_size}"
        defaults = {
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "bidirectional": False,
            "proj_size": 0,
        }
        return said + "".join(
            f", {name}={getattr(self, name)}"
            for name, value in defaults.items()
            if getattr(self, name) != value
        )


class QuantizedLSTM(PairOfStates, QuantizedLayers):
    """An LSTM whose weights have 8 bits."""

    _spec = spec.LSTM


class QuantizedGRU(QuantizedLayers):
    """A GRU whose weights have 8 bits."""

    if TYPE_CHECKING:
        __call__: Call[Tensor]
    _spec = spec.GRU


class QuantizedRNN(QuantizedLayers):
    """An RNN of tanh or ReLU whose weights have 8 bits."""

    if TYPE_CHECKING:
        __call__: Call[Tensor]
    _spec = spec.RNN


class QuantizedCell(Cell, Quantized):
    """A cell, of the options of the module ``like``, whose weights it holds."""

    _spec: CellSpec

    def __init__(self, like: nn.RNNCellBase, weight_only: bool) -> None:
        super().__init__(weight_only)
        self.input_size, self.hidden_size, self.bias = like.input_size, like.hidden_size, like.bias
        self.nonlinearity = getattr(like, "nonlinearity", "tanh")
        self._add_weight("weight_ih", like.weight_ih)
        self._add_weight("weight_hh", like.weight_hh)
        self._add_bias("bias_ih", like.bias_ih)
        self._add_bias("bias_hh", like.bias_hh)

    def _engine_name(self) -> str:
        return self._spec.engine_name(self._spec.has_relu and self.nonlinearity == "relu")

    def _pack(self) -> list[Tensor]:
        names = ("weight_ih", "weight_hh", "", "weight_ih_scale", "weight_hh_scale", "", "bias_ih", "bias_hh")
        return [_pack_direction(self._engine_name(), [self._buffers.get(n) for n in names], self.weight_only)]

    def _run(self, x: Tensor, h: Tensor | None, c: Tensor | None, relu: bool) -> Any:
        x, plain = self._plain(x, (h, c))
        h, c = (None if s is None else s.unsqueeze(0) for s in plain)
        h_n, y = x.new_empty(1, x.shape[0], self.hidden_size), x.new_empty(1, x.shape[0], self.hidden_size)
        c_n = torch.empty_like(h_n) if len(self._spec.states) == 2 else None
        _C.int8_layer(
            self._engine_name(), rows(x).unsqueeze(0), h, c, self._blobs(),
            (self.hidden_size, self.hidden_size, False, self.weight_only), None, y, h_n, c_n,
            torch.get_num_threads(),
        )  # fmt: skip
        return h_n[0] if c_n is None else (h_n[0], c_n[0])

    def _sizes(self) -> str:
        return f"{self.input_size}, {self.hidden_size}{'' if self.bias else ', bias=False'}"


class QuantizedLSTMCell(CellOfPairs, QuantizedCell):
    """An LSTMCell whose weights have 8 bits."""

    _spec = spec.LSTM


class QuantizedGRUCell(QuantizedCell):
    """A GRUCell whose weights have 8 bits."""

    _spec = spec.GRU

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """input [B, I] or [I], hx [B, H] or [H], zeros if None -> h."""
        out: Tensor = self._step(input, hx)
        return out

    if TYPE_CHECKING:
        __call__ = forward


class QuantizedRNNCell(QuantizedCell):
    """An RNNCell of tanh or ReLU whose weights have 8 bits."""

    _spec = spec.RNN

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """input [B, I] or [I], hx [B, H] or [H], zeros if None -> h."""
        out: Tensor = self._step(input, hx)
        return out

    if TYPE_CHECKING:
        __call__ = forward


class QuantizedLinear(Quantized):
    """A Linear layer whose weights have 8 bits."""

    def __init__(self, like: nn.Linear, weight_only: bool) -> None:
        super().__init__(weight_only)
        self.in_features, self.out_features = like.in_features, like.out_features
        self._add_weight("weight", like.weight)
        self._add_bias("bias", like.bias)

    def _pack(self) -> list[Tensor]:
        q, scale, bias = (dense(self._buffers.get(n)) for n in ("weight", "weight_scale", "bias"))
        assert q is not None and scale is not None
        size = _C.int8_linear_bytes(q, scale, bias, self.weight_only)
        blob = torch.empty(size, dtype=torch.uint8, device="cpu")
        _C.int8_linear_pack(q, scale, bias, self.weight_only, blob)
        return [blob]

    def forward(self, input: Tensor) -> Tensor:
        """input [..., in_features] -> [..., out_features]."""
        given, _ = self._plain(input)
        if input.dim() == 0 or input.shape[-1] != self.in_features:
            raise RuntimeError(
                f"QuantizedLinear: expected input of {self.in_features} features, got {tuple(input.shape)}"
            )
        x = dense(given).view(-1, self.in_features)
        y = x.new_empty(x.shape[0], self.out_features)
        _C.int8_linear(x, self._blobs()[0], self.weight_only, y, torch.get_num_threads())
        return y.view(*input.shape[:-1], self.out_features)

    def _sizes(self) -> str:
        return f"{self.in_features}, {self.out_features}"
