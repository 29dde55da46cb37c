"""One layer of normalised cells, or of cells whose recurrent matrix is of blocks, on a GPU: torch multiplies
by the input weights and forms the matrices' gradients, the engine's kernels run what goes step by step, two
launches a step, and the gradients of gains and biases.

Shapes are those of ``fusegen.ops.normalised``; which products of float32 are of TF32 numbers is as in
``layers.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import _precision
from ..layout import dense, empty_grads, present
from ..normalised.passes import PER, Call, Made, Passes, empty_outputs, stats_of
from ..spec import GRU, CellSpec
from .engine import Engine, dtype_name, error_word, stream_of
from .layers import states_read


def passes(engine: Engine) -> Passes:
    """The ops on this engine."""
    return Passes(partial(_forward, engine), partial(_backward, engine))


def _of_each_direction(call: Call, place: int) -> list[Tensor]:
    return present(call.weights[place::PER])


def _in_blocks(spec: CellSpec, R: Tensor, blocks: int) -> Tensor:
    """R [G*H, m] as [blocks, G*m, m], of a block the rows of each gate."""
    m = R.shape[1]
    return R.reshape(spec.gates, blocks, m, m).transpose(0, 1).contiguous().view(blocks, -1, m)


def _is_one_gradient(spec: CellSpec, call: Call) -> bool:
    """Whether W x and R h have the same gradient, in the same order."""
    kind = call.kind
    return kind.blocks == 1 and (kind.norm == "dreamer" or (kind.norm == "none" and spec is not GRU))


def _plan(engine: Engine, spec: CellSpec, call: Call, backward: bool) -> Any:
    kind, R = call.kind, _of_each_direction(call, 1)
    tf32 = _precision.recurrence_in_tf32(call.x.dtype)
    return engine.kernels.gpu_normalised_plan(
        kind.cell, kind.norm, dtype_name(call.x), tf32, backward, call.x.shape[1],
        R[0].shape[0] // spec.gates, len(R), kind.blocks, call.x.device.index or 0,
    )  # fmt: skip


def _for_engine(engine: Engine, spec: CellSpec, call: Call, plan: Any) -> tuple[Any, ...]:
    """In the order of GpuNormalisedCall's fields."""
    x, R, resets, boundaries = call.x, _of_each_direction(call, 1), call.resets, None
    if resets is not None:
        resets = resets.contiguous().view(torch.uint8)
        size = engine.kernels.gpu_boundary_bytes(x.shape[0], x.shape[1], len(R))
        boundaries = x.new_empty(size, dtype=torch.uint8)
    vectors = [dense(w) for d in range(len(R)) for w in call.weights[d * PER + 2 : (d + 1) * PER]]
    return (
        call.kind.eps, [_in_blocks(spec, r, call.kind.blocks) for r in R], vectors, dense(call.h0),
        dense(call.c0), call.lengths, resets, dense(call.reset_h), dense(call.reset_c), boundaries,
        x.new_empty(plan.workspace_bytes, dtype=torch.uint8), error_word(x.device),
    )  # fmt: skip


def _forward(engine: Engine, spec: CellSpec, call: Call, train: bool) -> Made:
    made, W = empty_outputs(spec, call, train), _of_each_direction(call, 0)
    gx = F.linear(call.x, W[0] if len(W) == 1 else torch.cat(W)).contiguous()
    plan = _plan(engine, spec, call, False)
    engine.kernels.gpu_normalised_forward(
        plan, stream_of(gx), _for_engine(engine, spec, call, plan), gx, *made[:5], stats_of(call, made.stats)
    )
    return made


def _backward(
    engine: Engine,
    spec: CellSpec,
    call: Call,
    made: Made,
    grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor]:
    x, y = call.x, made.y
    products = {0, *(3 + i for i in range(len(call.weights)) if i % PER < 2)}  # x, W, R
    out = empty_grads(call.tensors, [want and i not in products for i, want in enumerate(wanted)])
    (_, dh0, dc0, *dweights), dreset = out[:-2], out[-2:]
    (T, B, _), D = x.shape, len(call.weights) // PER
    H = y.shape[2] // D
    dx_part = y.new_empty(T, B, D * spec.gates * H)
    dh_part = None if _is_one_gradient(spec, call) else torch.empty_like(dx_part)
    # where they are added up
    sums = [None if t is None else torch.zeros_like(t, dtype=torch.float32) for t in dreset]
    dvectors = [w for d in range(D) for w in dweights[d * PER + 2 : (d + 1) * PER]]
    plan = _plan(engine, spec, call, True)
    # under autocast, torch's products would come out in another dtype than the tensors they are gradients of
    with torch._C._DisableAutocast():
        engine.kernels.gpu_normalised_backward(
            plan, stream_of(y), _for_engine(engine, spec, call, plan), *map(dense, grads), y, made.saved,
            made.cells, stats_of(call, made.stats), dx_part, dh_part, dh0, dc0, *sums, dvectors,
        )  # fmt: skip
        for to, of in zip(dreset, sums, strict=True):
            if to is not None and of is not None:
                to.copy_(of)
        return [*_of_products(spec, call, y, dx_part, dh_part, out, wanted)]


def _of_products(
    spec: CellSpec,
    call: Call,
    y: Tensor,
    dx_part: Tensor,
    dh_part: Tensor | None,
    out: list[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor]:
    """``out`` with the gradients that are products: of x, W and R."""
    x, lengths, W = call.x, call.lengths, _of_each_direction(call, 0)
    (T, B, I), D = x.shape, len(W)
    if wanted[0]:
        both = W[0] if D == 1 else torch.cat(W)
        out[0] = (dx_part.view(T * B, -1) @ both).view(T, B, I)
    if lengths is not None:  # what lies past the end must not matter, NaN included
        past = torch.arange(T, device=x.device).unsqueeze(1) >= lengths
        x = x.masked_fill(past.unsqueeze(-1), 0)
    for d in range(D):
        of_W, of_R = 3 + d * PER, 4 + d * PER
        if wanted[of_W]:
            out[of_W] = dx_part.view(T * B, D, -1)[:, d].t() @ x.reshape(T * B, I)
        if wanted[of_R]:
            g = (dx_part if dh_part is None else dh_part).view(T * B, D, -1)[:, d]
            out[of_R] = _of_R(spec, call, y, g, d)
    return present(out)


def _of_R(spec: CellSpec, call: Call, y: Tensor, g: Tensor, d: int) -> Tensor:
    """dR [G*H, m] of direction d from g [T*B, blocks * G*m] and the h that each step read."""
    H, blocks = g.shape[1] // spec.gates, call.kind.blocks
    start, anew = (None if s is None else s[d] for s in (call.h0, call.reset_h))
    read = states_read(y[..., d * H : (d + 1) * H], start, call.lengths, d == 1, call.resets, anew)
    if blocks == 1:
        return g.t() @ read.reshape(-1, H)
    m = H // blocks
    of_blocks = torch.bmm(
        g.view(-1, blocks, spec.gates * m).permute(1, 2, 0), read.reshape(-1, blocks, m).transpose(0, 1)
    )
    return of_blocks.view(blocks, spec.gates, m, m).transpose(0, 1).reshape(-1, m)
