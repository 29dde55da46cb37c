"""PackedSequence data to a padded batch and back, vectorised, each the other's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor

from ..ops import checks


class _Scatter(torch.autograd.Function):
    """Rows of data [N, I] to the places ``where`` [N] of [n, I]; the others are zero, or ``unset`` for
    layers, which do not read past a sequence's end."""

    generate_vmap_rule = True

    @staticmethod
    def forward(data: Tensor, where: Tensor, n: int, unset: bool) -> Tensor:
        make = data.new_empty if unset else data.new_zeros
        return make((n, data.shape[1])).index_copy_(0, where, data)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])
        ctx.n = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Gather.apply(grad, *ctx.saved_tensors), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        made: Tensor = _Scatter.apply(tangent, *ctx.saved_tensors, ctx.n, False)
        return made


class _Gather(torch.autograd.Function):
    """Rows ``where`` [N] of padded [n, I]; torch's own index_select would add its gradient row by row."""

    generate_vmap_rule = True

    @staticmethod
    def forward(padded: Tensor, where: Tensor) -> Tensor:
        return padded.index_select(0, where)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])
        ctx.n = inputs[0].shape[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Scatter.apply(grad, *ctx.saved_tensors, ctx.n, False), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        made: Tensor = _Gather.apply(tangent, *ctx.saved_tensors)
        return made


class Traced(Protocol):
    """Does what ``pad`` and ``unpad`` do while a model is exported, where sizes are symbols."""

    def pad(self, data: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor | None, Any]: ...

    def unpad(self, y: Tensor, where: Any) -> Tensor: ...


traced: ContextVar[Traced | None] = ContextVar("traced", default=None)


def is_traced() -> bool:
    """Whether torch.jit.trace records, which would take the sizes of this PackedSequence for all."""
    return traced.get() is None and torch._C._get_tracing_state() is not None


def pad(data: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor | None, Any]:
    """PackedSequence data [N, I] and batch_sizes [T] as (x [T, B, I], lengths [B], where each row went [N]).

    Lengths and places are None where all sequences are equally long: x is then a view.
    """
    if (tracer := traced.get()) is not None:
        return tracer.pad(data, batch_sizes)
    T, B = batch_sizes.shape[0], int(batch_sizes[0])
    if data.shape[0] == T * B:
        return data.view(T, B, data.shape[1]), None, None
    checks.refuse_while_capturing("PackedSequence", "the places of its rows", data)
    live = torch.arange(B, device="cpu").unsqueeze(0) < batch_sizes.unsqueeze(1)
    lengths = live.sum(0)
    where = live.view(-1).nonzero().squeeze(1).to(data.device)
    return _Scatter.apply(data, where, T * B, True).view(T, B, data.shape[1]), lengths, where


def pad_flags(flags: Tensor, shape: Sequence[int], where: Any) -> Tensor:
    """Flags [N] of the rows of a PackedSequence as [T, B], false past the ends; ``where`` as ``pad`` gave
    it."""
    T, B = shape
    if where is None:
        return flags.view(T, B)
    if traced.get() is not None:
        raise ValueError("fusegen.onnx.export: expected no resets, which ONNX's recurrent nodes have not")
    return flags.new_zeros(T * B).index_copy_(0, where.to(flags.device), flags).view(T, B)


def unpad(y: Tensor, where: Any) -> Tensor:
    """Padded y [T, B, P] as PackedSequence data [N, P], with ``where`` as ``pad`` gave it."""
    if (tracer := traced.get()) is not None:
        return tracer.unpad(y, where)
    flat = y.reshape(-1, y.shape[-1])
    return flat if where is None else _Gather.apply(flat, where)
