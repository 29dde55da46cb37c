"""A stack of layers of normalised cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import _backend
from ..layers import Tap, of_one_dtype
from ..spec import CellSpec
from .formula import Kind
from .op import OPS
from .passes import PER, Call, Weights


class Stack(NamedTuple):
    """Of which layers: the cell, its norm and blocks; dropout between them in training."""

    spec: CellSpec
    kind: Kind
    layers: Sequence[Weights]
    dropout: float = 0.0
    training: bool = True


def run(
    stack: Stack,
    x: Tensor,
    states: Sequence[Tensor | None],
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    starts: Sequence[Tensor | None] = (None, None),
    tap: Tap | None = None,
) -> tuple[Tensor, ...]:
    """The stack on x [T, B, I] from states [L*D, B, H] or None: y [T, B, D*H] and the final states.

    resets [T, B] bool, behind which the state is ``starts``, as states. Where the backend is torch's, or has
    no fused kernels, the reference formula runs. ``tap``: as of ``fusegen.ops.layers.run``.
    """
    op, L, D = OPS[stack.spec], len(stack.layers), len(stack.layers[0]) // PER
    layer_of: Callable[[Call], tuple[Tensor, ...]] = op
    if tap is not None:
        layer_of = tap(op)
    elif _runs_formula(op.name, x):
        layer_of = op.by_formula
    finals = []
    for number, weights in enumerate(stack.layers):
        if number and stack.dropout and stack.training:
            x = F.dropout(x, stack.dropout, True)
        of_layer = slice(number * D, (number + 1) * D)
        h, c, reset_h, reset_c = (
            s if s is None or L == 1 else s[of_layer] for s in (*(*states, None)[:2], *(*starts, None)[:2])
        )
        call = Call(
            stack.kind, x, h0=h, c0=c, weights=weights, lengths=lengths, resets=resets, reset_h=reset_h,
            reset_c=reset_c,
        )  # fmt: skip
        x, *final = layer_of(call)
        finals.append(final)
    if L == 1:
        return x, *finals[0]
    return x, *(torch.cat(of_one_dtype(s)) for s in zip(*finals, strict=True))


def _runs_formula(name: str, x: Tensor) -> bool:
    if _backend.get_backend() == "torch":
        _backend.note(f"{name}, which torch does not have: the reference formula runs")
        return True
    if torch._C._get_tracing_state() is not None:  # TorchScript cannot record a list of optional weights
        _backend.note(f"{name} under torch.jit.trace: the reference formula is recorded")
        return True
    if x.is_cpu or x.is_meta:
        return False
    if not (lacking := _backend.missing(x.device.type, x.dtype)):
        return False
    if _backend.get_backend() == "fused":
        raise RuntimeError(
            f"fusegen {name}: {lacking}; use set_backend('auto') for the reference formula there"
        )
    if not torch.compiler.is_compiling():
        _backend.note(f"{name}: {lacking}, the reference formula runs")
    return True
