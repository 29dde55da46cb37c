"""The parameters that layers and cells with norms or blocks have, by name."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from ... import _arguments
from ...ops.normalised import NORMS
from ...ops.normalised.formula import Kind
from ...ops.spec import LSTM, CellSpec
from .._base import untapped
from .._scripted import NotScripted

# In the order of fusegen.ops.normalised.formula.WEIGHTS.
NAMES = ("weight_ih", "weight_hh", "gain_ih", "bias_ih", "gain_hh", "bias_hh", "gain_c", "bias_c")
_EPS = {"haste": 1e-5, "ba": 1e-5, "dreamer": 1e-3, "none": 1e-5}


def names_of(spec: CellSpec, norm: str, bias: bool) -> frozenset[str]:
    """Those of ``NAMES`` that a direction of such a layer has."""
    names = {"weight_ih", "weight_hh", "bias_ih"}
    if norm == "none":
        names |= {"bias_hh"}
    else:
        names |= {"gain_ih"}
    if norm in ("haste", "ba"):
        names |= {"gain_hh", "bias_hh"}
        if spec is LSTM:
            names |= {"gain_c", "bias_c"}
            if norm == "haste":
                names -= {"bias_hh"}
    return frozenset(n for n in names if bias or not n.startswith("bias"))


class Normalised(NotScripted, nn.Module):
    """What they share: the constructor's checks, parameters, initial values."""

    _way_out = "neither torch.nn nor ONNX has norms or blocks in the recurrence"
    _spec: CellSpec
    _norms: tuple[str, ...] = NORMS  # that such a module may have
    _kind: Kind
    input_size: int
    hidden_size: int
    bias: bool
    norm: str
    block_diagonal: int
    eps: float

    def _describe(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool,
        norm: str,
        block_diagonal: int,
        eps: Any,
    ) -> None:
        """Keeps these arguments, checked. Raises TypeError or ValueError, which name the argument."""
        name = type(self).__name__
        self.input_size = _arguments.whole(f"{name}: input_size", input_size, 1)
        self.hidden_size = _arguments.whole(f"{name}: hidden_size", hidden_size, 1)
        self.bias = _arguments.flag(f"{name}: bias", bias)
        self.norm = _arguments.choice(f"{name}: norm", norm, self._norms)
        self.block_diagonal = _arguments.whole(f"{name}: block_diagonal", block_diagonal, 1)
        if self.hidden_size % self.block_diagonal:
            raise ValueError(
                f"{name}: expected block_diagonal to divide hidden_size = {hidden_size}, got {block_diagonal}"
            )
        given = _EPS[norm] if eps is None else eps
        self.eps = _arguments.number(f"{name}: eps", given, 0, open_below=True)
        self._kind = Kind(cell, self.norm, self.block_diagonal, self.eps)

    def _make_direction(self, suffix: str, inputs: int, device: Any, dtype: torch.dtype | None) -> None:
        """Registers the parameters of one direction of a layer of so many inputs; None where it has not."""
        H, GH = self.hidden_size, self._spec.gates * self.hidden_size
        shapes = {
            "weight_ih": (GH, inputs),
            "weight_hh": (GH, H // self.block_diagonal),
            "gain_c": (H,),
            "bias_c": (H,),
        }
        there = names_of(self._spec, self.norm, self.bias)
        for name in NAMES:
            if name in there:
                new = torch.empty(shapes.get(name, (GH,)), device=device, dtype=dtype)
                self.register_parameter(name + suffix, Parameter(new))

    def __getstate__(self) -> dict[str, Any]:
        return untapped(self.__dict__.copy())

    def reset_parameters(self) -> None:
        """Matrices uniform within 1/sqrt(H), as torch.nn's; gains one; biases zero or, where nothing is
        normalised, as the matrices."""
        bound = 1 / math.sqrt(self.hidden_size)
        with torch.no_grad():
            for name, p in self.named_parameters(recurse=False):
                if name.startswith("gain"):
                    p.fill_(1)
                elif name.startswith("bias") and self.norm != "none":
                    p.zero_()
                else:
                    p.uniform_(-bound, bound)

    def _weights_of(self, suffix: str) -> list[Tensor | None]:
        """The weights of one direction, as the ops take them, read by name at every call."""
        there, own = names_of(self._spec, self.norm, self.bias), self._parameters
        return [
            None if name not in there else own[name + suffix] if name + suffix in own
            else getattr(self, name + suffix)  # computed by a parametrization, or set by a hook
            for name in NAMES
        ]  # fmt: skip

    def _check_input(self, x: Tensor, W: Tensor | None) -> None:
        assert W is not None
        if x.dtype is not W.dtype and not torch._C._is_any_autocast_enabled():
            raise ValueError(
                f"{self._get_name()} input dtype ({x.dtype}) does not match weight dtype ({W.dtype}). "
                f"Convert input: input.to({W.dtype}), or convert model: model.to({x.dtype})"
            )

    def _said(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        parts += [] if self.bias else ["bias=False"]
        parts += [] if self.norm == "none" else [f"norm={self.norm!r}"]
        parts += [] if self.block_diagonal == 1 else [f"block_diagonal={self.block_diagonal}"]
        return ", ".join(parts)


def normalised_module(model: nn.Module) -> str | None:
    """The first layer or cell of these in ``model``, in words; None without one."""
    for name, m in model.named_modules():
        if isinstance(m, Normalised):
            return f"{name or 'the model'} ({type(m).__name__})"
    return None
