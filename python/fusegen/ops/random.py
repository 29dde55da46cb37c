"""torch.ops.fusegen.draw_key and weight_drop: the key of a call's masks, and recurrent weights dropped by
it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import VmapInterpreter, retrieve_all_functorch_interpreters

from .. import _C, reference
from . import route
from .layout import dense
from .register import Kernel, below_autograd, register, register_autograd, register_drawing


def _draw(unset: Tensor, generator: torch.Generator | None = None) -> Tensor:
    return torch.empty_like(unset).random_(-(2**63), None, generator=generator)


def _no_key(unset: Tensor, generator: torch.Generator | None = None) -> Tensor:
    return torch.empty_like(unset)


# torch.compile merges calls of an op that have the same arguments, whatever its tags say; what torch.empty
# gives is never the same.
_SCHEMA = "(Tensor unset, Generator? generator=None) -> Tensor"
_draw_op = register_drawing("draw_key", _SCHEMA, _draw, _no_key)


def draw_key(generator: torch.Generator | None = None) -> Tensor:
    """A key for the masks of one call: an int64 on the CPU, from torch's generator there, or this one. Each
    call draws, inside torch.compile too. Inside vmap its ``randomness`` says whether samples have one key.
    Raises RuntimeError for a generator inside torch.compile: its graphs take tensors and numbers."""
    if generator is not None and torch.compiler.is_compiling():
        raise RuntimeError(
            "expected generator=None inside torch.compile(fullgraph=True) and torch.export, whose graphs "
            "take no torch.Generator; torch.manual_seed makes the masks there the same"
        )
    if route.transformed():
        return _drawn_below_vmap(generator)
    key: Tensor = _draw_op(torch.empty((), dtype=torch.int64, device="cpu"), generator)
    return key


def _drawn_below_vmap(generator: torch.Generator | None) -> Tensor:
    different = any(
        isinstance(level, VmapInterpreter) and level.randomness() == "different"
        for level in retrieve_all_functorch_interpreters()
    )
    if different:  # torch draws in place for all samples alike, or not at all
        return torch.randint(-(2**63), 2**63 - 1, (), generator=generator)
    return torch.empty((), dtype=torch.int64, device="cpu").random_(-(2**63), None, generator=generator)


def _weight_drop(R: Tensor, key: Tensor, place: int, rate: float) -> Tensor:
    R = dense(R)
    out = torch.empty_like(R)
    _C.weight_drop(R, key, place, rate, out, torch.get_num_threads())
    return out


_OP = register(
    "weight_drop",
    Kernel(
        "(Tensor R, Tensor key, int place, float rate) -> Tensor",
        _weight_drop,
        reference.weight_drop,
        lambda R, key, place, rate: torch.empty_like(R, memory_format=torch.contiguous_format),
    ),
)


class _WeightDrop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, R: Tensor, key: Tensor, place: int, rate: float) -> Tensor:
        ctx.save_for_backward(key)
        ctx.options = place, rate
        dropped: Tensor = below_autograd(_OP, R, key, place, rate)
        return dropped

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _OP(grad, *ctx.saved_tensors, *ctx.options), None, None, None


register_autograd("weight_drop", _WeightDrop.apply)


def weight_drop(R: Tensor, key: Tensor, place: int, rate: float) -> Tensor:
    """``reference.weight_drop``: its kernel, but where torch has to see into it."""
    if route.transformed():
        return reference.weight_drop(R, key, place, rate)
    dropped: Tensor = _OP(R, key, place, rate)
    return dropped
