"""One step of a cell on a GPU. For few rows a kernel does products and cell in one launch; for many, torch's
GEMMs come first. Backward is a kernel for the cell's maths, then torch's GEMMs.

Products of float32 follow torch's switch for matrix products, as torch.nn's cells do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ... import _precision
from ..layout import dense, dense_all, present
from ..recurrent import Call, Outputs, Passes, Weights
from ..spec import GRU, LSTM, CellSpec
from ..transform.per_sample import Gates
from .engine import Engine, dtype_name, stream_of


def passes(engine: Engine, spec: CellSpec) -> Passes:
    """The cell's op on this engine."""
    return Passes(
        partial(_forward, engine, spec),
        partial(_backward, engine, spec),
        partial(_gate_gradients, engine, spec),
    )


def _products(
    spec: CellSpec, x: Tensor, h: Tensor | None, W: Tensor, R: Tensor
) -> tuple[Tensor, Tensor | None]:
    """(W x, R h); LSTM and RNN: (their sum, None)."""
    if h is None:
        return x @ W.t(), None
    if spec is GRU:
        return x @ W.t(), h @ R.t()
    return torch.addmm(x @ W.t(), h, R.t()), None


def _forward(
    engine: Engine,
    spec: CellSpec,
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    weights: Weights,
    relu: bool,
    lengths: None,
    packed: None,
    train: bool,
) -> Outputs:
    x = x.contiguous()
    h, c = dense(h), dense(c)
    W, R, b_ih, b_hh = dense_all(weights)
    assert W is not None and R is not None
    (B, I), H = x.shape, R.shape[1]
    tf32 = _precision.products_in_tf32(x.dtype)
    plan = engine.kernels.gpu_cell_plan(
        spec.engine_name(relu), dtype_name(x), tf32, B, I, H, x.device.index or 0
    )
    x_gates, h_gates = (None, None) if plan.multiplies else _products(spec, x, h, W, R)
    h_out = x.new_empty(B, H)
    c_out = x.new_empty(B, H) if spec is LSTM else None
    gates = x.new_empty(B, 4 * H) if train and spec.saved else None
    cells = x.new_empty(B, H, dtype=torch.float32) if train and spec is LSTM else None
    engine.kernels.gpu_cell_forward(
        plan, stream_of(x), x, h, c, W, R, b_ih, b_hh, x_gates, h_gates, h_out, c_out, gates, cells
    )
    return h_out, c_out, gates, cells


class _Of(NamedTuple):
    """Gradients of W x and R h and, of a GRU, the part of h's that passes R by; of c."""

    x: Tensor
    h: Tensor
    direct: Tensor | None
    c: Tensor | None


def _of_products(
    engine: Engine,
    spec: CellSpec,
    call: Call,
    kept: Outputs,
    grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> _Of:
    x, h, c, weights, relu, *_ = call
    R = weights[1]
    assert R is not None
    B, H = x.shape[0], R.shape[1]
    of_x = x.new_empty(B, spec.gates * H)
    of_h = x.new_empty(B, spec.gates * H) if spec is GRU else of_x
    direct = x.new_empty(B, H) if spec is GRU and wanted[1] else None
    dc_in = x.new_empty(B, H) if wanted[2] else None
    engine.kernels.gpu_cell_backward(
        spec.engine_name(relu), stream_of(x), *map(dense, grads), dense(h), dense(c), *kept, of_x,
        of_h if spec is GRU else None, direct, dc_in,
    )  # fmt: skip
    return _Of(of_x, of_h, direct, dc_in)


def _of_inputs(
    of: _Of, weights: Weights, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(dx, dh, dc), where wanted."""
    W, R = weights[0], weights[1]
    assert W is not None and R is not None
    dh = None
    if wanted[1]:
        dh = of.h @ R if of.direct is None else torch.addmm(of.direct, of.h, R)
    return of.x @ W if wanted[0] else None, dh, of.c


def _backward(
    engine: Engine,
    spec: CellSpec,
    call: Call,
    kept: Outputs,
    grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor]:
    x, h, _, weights, *_ = call
    R = weights[1]
    assert R is not None
    want_W, want_R, want_b_ih, want_b_hh = wanted[3:]
    with torch._C._DisableAutocast():  # as in layers.py
        of = _of_products(engine, spec, call, kept, grads, wanted)
        out = present(_of_inputs(of, weights, wanted))
        if want_W:
            out.append(of.x.t() @ x)
        if want_R:
            out.append(torch.zeros_like(R) if h is None else of.h.t() @ h)
        if want_b_ih or want_b_hh:
            sums = of.x.sum(0)
            if want_b_ih:
                out.append(sums)
            if want_b_hh:
                out.append(of.h.sum(0) if of.h is not of.x else sums.clone() if want_b_ih else sums)
    return out


def _gate_gradients(
    engine: Engine,
    spec: CellSpec,
    call: Call,
    kept: Outputs,
    grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> Gates:
    of = _of_products(engine, spec, call, kept, grads, wanted)
    H = of.x.shape[1] // spec.gates
    dgates = torch.cat([of.x[:, 2 * H :], of.h], 1) if spec is GRU else of.x
    dx, dh, dc = _of_inputs(of, call[3], wanted)
    return Gates(dx, dh, dc, dgates.unsqueeze(0), None)
