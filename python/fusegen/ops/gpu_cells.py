"""One step of a cell on a GPU. For few rows a kernel does products and cell in one launch; for many, torch's
GEMMs come first. Backward is a kernel for the cell's maths, then torch's GEMMs.

Products of float32 follow torch's switch for matrix products, as torch.nn's cells do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _common as c
from . import gpu


def _products(kind: gpu.Layer, x: Tensor, h: Tensor | None, W: Tensor, R: Tensor) -> tuple:
    """(W x, R h); LSTM and RNN: (their sum, None)."""
    if h is None:
        return x @ W.t(), None
    if kind is gpu.GRU:
        return x @ W.t(), h @ R.t()
    return torch.addmm(x @ W.t(), h, R.t()), None


def forward(kind: gpu.Layer, x: Tensor, h, cell, weights: Sequence[Tensor | None], relu: bool, train: bool):
    """(h_out, c_out or None, gates [B, 4H] or None, cells [B, H] float32 or None)."""
    (B, I), H = x.shape, weights[1].shape[1]
    lstm = kind is gpu.LSTM
    x, h, cell = c.dense(x), c.dense(h), c.dense(cell)
    W, R, b_ih, b_hh = c.dense_all(weights)
    tf32 = gpu.multiplies_in_tf32(x.dtype)
    dtype = str(x.dtype).removeprefix("torch.")
    plan = gpu.engine.gpu_cell_plan(kind.cell, dtype, tf32, B, I, H, x.device.index or 0)
    x_gates, h_gates = (None, None) if plan["multiplies"] else _products(kind, x, h, W, R)
    h_out = x.new_empty(B, H)
    c_out = x.new_empty(B, H) if lstm else None
    gates = x.new_empty(B, 4 * H) if train and kind is not gpu.RNN else None
    cells = x.new_empty(B, H, dtype=torch.float32) if train and lstm else None
    gpu.engine.gpu_cell_forward(
        kind.cell, relu, tf32, gpu.stream_of(x), x, h, cell, W, R, b_ih, b_hh, x_gates, h_gates,
        h_out, c_out, gates, cells,
    )  # fmt: skip
    return h_out, c_out, gates, cells


def backward(
    kind: gpu.Layer,
    dh,
    dc,
    x: Tensor,
    states: tuple,
    weights: Sequence[Tensor | None],
    saved: tuple,
    relu: bool,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The gradients that ``wanted`` asks for, in the order x, h (and c of an LSTM), W, R, b_ih, b_hh.
    ``saved``: (h_out or None, gates or None, cells or None)."""
    with torch._C._DisableAutocast():  # as in gpu.backward
        return _backward(kind, dh, dc, x, states, weights, saved, relu, wanted)


def _backward(kind: gpu.Layer, dh, dc, x, states, weights, saved, relu, wanted) -> list[Tensor]:
    h_out, gates, cells = saved
    h, cell = (*states, None)[:2]
    W, R = weights[0], weights[1]
    B, H = x.shape[0], R.shape[1]
    want_x, want_h, *want_c = wanted[: 1 + len(states)]
    want_W, want_R, want_b_ih, want_b_hh = wanted[1 + len(states) :]
    of_x = x.new_empty(B, kind.gates * H)
    of_h = x.new_empty(B, kind.gates * H) if kind is gpu.GRU else of_x
    direct = x.new_empty(B, H) if kind is gpu.GRU and want_h else None
    dc_in = x.new_empty(B, H) if want_c and want_c[0] else None
    gpu.engine.gpu_cell_backward(
        kind.cell, relu, gpu.stream_of(x), c.dense(dh), c.dense(dc), c.dense(h), c.dense(cell), h_out, gates,
        cells, of_x, of_h if kind is gpu.GRU else None, direct, dc_in,
    )  # fmt: skip
    out = []
    if want_x:
        out.append(of_x @ W)
    if want_h:
        out.append(of_h @ R if direct is None else torch.addmm(direct, of_h, R))
    if dc_in is not None:
        out.append(dc_in)
    if want_W:
        out.append(of_x.t() @ x)
    if want_R:
        out.append(torch.zeros_like(R) if h is None else of_h.t() @ h)
    if want_b_ih or want_b_hh:
        sums = of_x.sum(0)
        if want_b_ih:
            out.append(sums)
        if want_b_hh:
            out.append(of_h.sum(0) if of_h is not of_x else sums.clone() if want_b_ih else sums)
    return out
