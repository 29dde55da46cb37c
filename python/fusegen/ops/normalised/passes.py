"""What a layer of normalised cells is called with and gives, and its passes on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _C
from .. import checks
from ..layout import dense, dense_all, empty_grads, present, rows, wider
from ..spec import CellSpec
from .formula import WEIGHTS, Kind

Weights = Sequence[Tensor | None]
PER = len(WEIGHTS)
STATISTICS = 4  # of a row and step: csrc/kernels/normalised.h
NORMS = ("haste", "ba", "dreamer")


class Call(NamedTuple):
    """The arguments of a call, alike for every cell."""

    kind: Kind
    x: Tensor
    h0: Tensor | None
    c0: Tensor | None
    weights: Weights
    lengths: Tensor | None
    resets: Tensor | None
    reset_h: Tensor | None
    reset_c: Tensor | None

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All that may have a gradient."""
        return (self.x, self.h0, self.c0, *self.weights, self.reset_h, self.reset_c)


class Made(NamedTuple):
    """What forward gives, None for what there is not: outputs, then what backward needs."""

    y: Tensor
    h_n: Tensor
    c_n: Tensor | None
    saved: Tensor | None
    cells: Tensor | None
    stats: Tensor | None


def saved_per_unit(kind: Kind, gates: int) -> int:
    """Values that backward needs of a unit and step, beside the state of an LSTM."""
    return (4 if gates > 1 else 0) + {"none": 0, "dreamer": 1}.get(kind.norm, 2) * gates


def empty_outputs(spec: CellSpec, call: Call, train: bool) -> Made:
    """Not yet written."""
    x, R, D = call.x, checks.recurrent_weight(spec.name, call.weights, PER, 2 * PER), len(call.weights) // PER
    (T, B, _), H = x.shape, R.shape[0] // spec.gates
    has_c, saves = len(spec.states) == 2, train and spec.gates > 1
    wide = wider(x.dtype)
    return Made(
        x.new_empty(T, B, D * H),
        x.new_empty(D, B, H),
        x.new_empty(D, B, H) if has_c else None,
        x.new_empty(D, T, B, saved_per_unit(call.kind, spec.gates) * H) if saves else None,
        x.new_empty(D, T, B, H, dtype=wide) if saves and has_c else None,
        x.new_empty(D, T, B, STATISTICS if call.kind.norm != "none" else 0, dtype=wide) if saves else None,
    )


def _for_engine(call: Call) -> tuple[Any, ...]:
    kind, resets = call.kind, dense(call.resets)
    return (
        kind.cell, kind.norm, kind.blocks, kind.eps, rows(call.x), dense(call.h0), dense(call.c0),
        dense_all(call.weights), call.lengths, None if resets is None else resets.view(torch.uint8),
        dense(call.reset_h), dense(call.reset_c), torch.get_num_threads(),
    )  # fmt: skip


def stats_of(call: Call, stats: Tensor | None) -> Tensor | None:
    """What the engine takes of ``Made.stats``."""
    return stats if call.kind.norm != "none" else None


class Passes(NamedTuple):
    """Forward and backward on one device; ``backward``'s bools are of ``Call.tensors``."""

    forward: Callable[[CellSpec, Call, bool], Made]
    backward: Callable[[CellSpec, Call, Made, Sequence[Tensor | None], Sequence[bool]], list[Tensor]]


def _cpu_forward(spec: CellSpec, call: Call, train: bool) -> Made:
    made = empty_outputs(spec, call, train)
    _C.normalised_forward(_for_engine(call), *made[:5], stats_of(call, made.stats))
    return made


def _cpu_backward(
    spec: CellSpec, call: Call, made: Made, grads: Sequence[Tensor | None], wanted: Sequence[bool]
) -> list[Tensor]:
    out = empty_grads(call.tensors, wanted)
    (dx, dh0, dc0, *dweights), (dreset_h, dreset_c) = out[:-2], out[-2:]
    dy, dh_n, dc_n = grads
    _C.normalised_backward(
        _for_engine(call), rows(dy), dense(dh_n), dense(dc_n), made.y, made.saved, made.cells,
        stats_of(call, made.stats), dx, dh0, dc0, dreset_h, dreset_c, dweights,
    )  # fmt: skip
    return present(out)


CPU = Passes(_cpu_forward, _cpu_backward)
