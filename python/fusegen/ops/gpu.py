"""One layer on a GPU: torch multiplies by the input weights and forms the weight gradients, the engine's
kernels run what goes step by step.

``engine`` is ``fusegen._C`` for CUDA tensors; the tests set ``fusegen._simt``, which runs the same kernels on
CPU tensors. Shapes are those of ``fusegen.ops.functional``. Matrix products of float32 tensors outside the
recurrence follow torch's own switch (torch.backends.cuda.matmul); the recurrence follows
torch.backends.cudnn's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _C, _backend
from . import _common as c

Weights = Sequence["Tensor | None"]

# What runs CUDA tensors, and the way asked for: "best", or one of "launch", "block", "l2", "cluster".
engine = _C
transport = "best"

_errors: dict[torch.device, Tensor] = {}


class Layer(NamedTuple):
    """What the engine needs to know of a cell: its name there, gates G, weights per direction."""

    cell: str
    gates: int
    per: int


LSTM, GRU, RNN = Layer("lstm", 4, 5), Layer("gru", 3, 4), Layer("rnn", 1, 4)


def error_word(device: torch.device) -> Tensor:
    """The word of host memory in which kernels of this device leave an error for the next call to raise."""
    word = _errors.get(device)
    if word is None:
        # Of two threads that come first at once, one's word serves both: kernels write there later.
        new = torch.zeros(1, dtype=torch.int64, device="cpu", pin_memory=device.type == "cuda")
        word = _errors.setdefault(device, new)
    return word


def stream_of(x: Tensor) -> int:
    """The current stream of x's device, as the engine takes it; 0 on the CPU."""
    return torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else 0


def uses_tf32(dtype: torch.dtype) -> bool:
    """Whether the recurrence of this dtype may round to TF32: torch's own switch for recurrent layers."""
    if dtype != torch.float32:
        return False
    rnn = getattr(torch.backends.cudnn, "rnn", None)
    precision = getattr(rnn, "fp32_precision", "none")
    if precision == "none":
        precision = getattr(torch.backends.cudnn, "fp32_precision", "none")
    if precision == "none":
        return bool(torch.backends.cudnn.allow_tf32)
    return precision == "tf32"


def multiplies_in_tf32(dtype: torch.dtype) -> bool:
    """Whether matrix products of this dtype outside a recurrence may round to TF32: torch's own switch."""
    if dtype != torch.float32:
        return False
    precision = getattr(torch.backends.cuda.matmul, "fp32_precision", "none")
    if precision == "none":
        return bool(torch.backends.cuda.matmul.allow_tf32)
    return precision == "tf32"


def _plan(kind: Layer, x: Tensor, tf32: bool, backward: bool, B: int, H: int, P: int, D: int):
    """(workspace, the way that the plan takes)."""
    index = x.device.index or 0
    dtype = str(x.dtype).removeprefix("torch.")
    n, way = engine.gpu_workspace(kind.cell, dtype, tf32, backward, B, H, P, D, index, transport)
    return x.new_empty(n, dtype=torch.uint8), way if transport == "best" else transport


def _note(kind: Layer, way: str, asked: str) -> None:
    if asked != way:
        _backend.note(f"{kind.cell} on GPU: {asked} does not fit on this device, {way} ran")


def _columns(weights: Weights, kind: Layer, i: int) -> list[Tensor | None]:
    """Weight ``i`` of each direction."""
    return list(weights[i :: kind.per])


def _dense(ts: Sequence[Tensor | None]) -> list[Tensor]:
    return [c.dense(t) for t in ts if t is not None]


def gate_inputs(kind: Layer, x: Tensor, weights: Weights) -> tuple[Tensor, list[Tensor | None]]:
    """(W x and the biases [T, B, D*G*H], b_hn of each direction: GRU's only, which r multiplies)."""
    W, b_ih, b_hh = (_columns(weights, kind, i) for i in (0, 2, 3))
    H = weights[1].shape[0] // kind.gates
    b_hn: list[Tensor | None] = [None] * len(W)
    bias = None
    if b_hh[0] is not None or b_ih[0] is not None:
        zeros = x.new_zeros(kind.gates * H)
        b_ih = [zeros if b is None else b for b in b_ih]
        b_hh = [zeros if b is None else b for b in b_hh]
        if kind is GRU:
            b_hn = [b[2 * H :] for b in b_hh]
            sums = [torch.cat([i[: 2 * H] + h[: 2 * H], i[2 * H :]]) for i, h in zip(b_ih, b_hh, strict=True)]
        else:
            sums = [i + h for i, h in zip(b_ih, b_hh, strict=True)]
        bias = sums[0] if len(sums) == 1 else torch.cat(sums)
    both = W[0] if len(W) == 1 else torch.cat(W)
    return F.linear(x, both, bias).contiguous(), b_hn


def forward(
    kind: Layer, x: Tensor, h0, c0, weights: Weights, lengths, relu: bool, train: bool
) -> tuple[Tensor | None, ...]:
    """(y, h_n, c_n or None, gates or None, cells or None)."""
    gx, b_hn = gate_inputs(kind, x, weights)
    R = _columns(weights, kind, 1)
    W_hr = _columns(weights, kind, 4) if kind is LSTM else []
    return recurrence(kind, gx, R, W_hr, b_hn, h0, c0, lengths, relu, train)


def recurrence(
    kind: Layer,
    gx: Tensor,
    R: Weights,
    W_hr: Weights,
    b_hn: Weights,
    h0,
    c0,
    lengths,
    relu: bool,
    train: bool,
) -> tuple[Tensor | None, ...]:
    """What ``forward`` does step by step, and gives: gx [T, B, D*G*H] is W x and the biases; R, W_hr and
    b_hn have an entry per direction."""
    (T, B, _), (H, P), D = gx.shape, (R[0].shape[0] // kind.gates, R[0].shape[1]), len(R)
    tf32 = uses_tf32(gx.dtype)
    y, h_n = gx.new_empty(T, B, D * P), gx.new_empty(D, B, P)
    c_n = gx.new_empty(D, B, H) if kind is LSTM else None
    gates = gx.new_empty(D, T, B, 4 * H) if train and kind is not RNN else None
    cells = gx.new_empty(D, T, B, H, dtype=torch.float32) if train and kind is LSTM else None
    workspace, planned = _plan(kind, gx, tf32, False, B, H, P, D)
    way = engine.gpu_forward(
        kind.cell, relu, tf32, transport, stream_of(gx), gx, _dense(R), _dense(W_hr),
        [c.dense(b) for b in b_hn], c.dense(h0), c.dense(c0), lengths, y, h_n, c_n, gates, cells,
        workspace, error_word(gx.device),
    )  # fmt: skip
    _note(kind, way, planned)
    return y, h_n, c_n, gates, cells


def recurrence_backward(
    kind: Layer, dy, dh_n, dc_n, R: Weights, W_hr: Weights, y: Tensor, h0, c0, lengths, gates, cells,
    relu: bool, states: tuple[bool, bool] = (False, False),
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """(dgates [T, B, D*n*H], dh [T, B, D*P] or None, dh0, dc0): what ``backward`` does step by step. n is 4
    for LSTM and GRU, 1 for RNN; ``states``: whether dh0 and dc0 are wanted."""
    (T, B, _), (P, H), D = y.shape, (R[0].shape[1], R[0].shape[0] // kind.gates), len(R)
    tf32 = uses_tf32(y.dtype)
    dgates = y.new_empty(T, B, D * (4 if kind.gates > 1 else 1) * H)
    dh = y.new_empty(T, B, D * P) if W_hr else None
    dh0 = y.new_empty(D, B, P) if states[0] else None
    dc0 = y.new_empty(D, B, H) if states[1] else None
    workspace, planned = _plan(kind, y, tf32, True, B, H, P, D)
    way = engine.gpu_backward(
        kind.cell, relu, tf32, transport, stream_of(y), c.dense(dy), c.dense(dh_n), c.dense(dc_n),
        [r.t().contiguous() for r in R], [w.t().contiguous() for w in W_hr], y, c.dense(h0), c.dense(c0),
        lengths, gates, cells, dgates, dh, dh0, dc0, workspace, error_word(y.device),
    )  # fmt: skip
    _note(kind, way, planned)
    return dgates, dh, dh0, dc0


def _first_rows(g: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
    """g [T, B, n] at the step that read h_0: the first, or in the reverse direction each sequence's last."""
    if not reverse:
        return g[0]
    if lengths is None:
        return g[-1]
    at = (lengths.clamp(1, g.shape[0]) - 1).view(1, -1, 1).expand(1, g.shape[1], g.shape[2])
    return g.gather(0, at)[0]


def _recurrent_gradient(
    g: Tensor, y: Tensor, h0: Tensor | None, lengths: Tensor | None, reverse: bool
) -> Tensor:
    """dR [G*H, P] from g [T, B, G*H] and the h that each step read: y of the step before, h0 [B, P] first.

    Past a sequence's end g and y are zero."""
    late, early = (g[:-1], y[1:]) if reverse else (g[1:], y[:-1])
    dR = late.flatten(0, 1).t() @ early.flatten(0, 1)
    if h0 is not None:
        dR = torch.addmm(dR, _first_rows(g, lengths, reverse).t(), h0)
    return dR


def backward(
    kind: Layer,
    dy,
    dh_n,
    dc_n,
    x: Tensor,
    starts: tuple,
    weights: Weights,
    lengths,
    relu: bool,
    saved: tuple,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The gradients that ``wanted`` asks for, in the order x, starts (h0, and c0 of an LSTM), weights.
    ``saved`` is what ``forward`` gave: y, gates, cells."""
    # under autocast, torch's products would come out in another dtype than the tensors they are gradients of
    with torch._C._DisableAutocast():
        return _backward(kind, dy, dh_n, dc_n, x, starts, weights, lengths, relu, saved, wanted)


def _backward(kind: Layer, dy, dh_n, dc_n, x, starts, weights, lengths, relu, saved, wanted) -> list[Tensor]:
    y, gates, cells = saved
    h0, c0 = (*starts, None)[:2]
    (T, B, I), R = x.shape, _columns(weights, kind, 1)
    D, H, P = len(R), R[0].shape[0] // kind.gates, R[0].shape[1]
    states = len(starts)
    n = 4 if kind.gates > 1 else 1
    W_hr = _columns(weights, kind, 4) if kind is LSTM and weights[4] is not None else []
    dgates, dh, dh0, dc0 = recurrence_backward(
        kind, dy, dh_n, dc_n, R, W_hr, y, h0, c0, lengths, gates, cells, relu,
        (wanted[1], states == 2 and wanted[2]),
    )  # fmt: skip

    if lengths is not None:  # what lies past the end must not matter, NaN included
        past = torch.arange(T, device=x.device).unsqueeze(1) >= lengths
        x = x.masked_fill(past.unsqueeze(-1), 0)
    flat_x = x.reshape(T * B, I)
    per_direction = dgates.view(T, B, D, n * H).unbind(2)
    # of the input's product: GRU's columns come as n, r, z
    inner = [g[..., : kind.gates * H].flatten(0, 1) for g in per_direction]
    outer = [g[..., H:] if kind is GRU else g for g in per_direction]

    def in_gate_order(t: Tensor) -> Tensor:
        return torch.cat([t[H:], t[:H]]) if kind is GRU else t

    def as_columns(W: Tensor) -> Tensor:
        return torch.cat([W[2 * H :], W[: 2 * H]]) if kind is GRU else W

    out: list[Tensor] = []
    if wanted[0]:
        W = [as_columns(w) for w in _columns(weights, kind, 0)]
        if kind is GRU:
            dx = inner[0] @ W[0]
            for g, w in zip(inner[1:], W[1:], strict=True):
                dx = torch.addmm(dx, g, w)
        else:
            dx = dgates.view(T * B, -1) @ (W[0] if D == 1 else torch.cat(W))
        out.append(dx.view(T, B, I))
    out += [t for t in (dh0, dc0) if t is not None]
    for d in range(D):
        want = wanted[1 + states + d * kind.per : 1 + states + (d + 1) * kind.per]
        part = slice(d * P, (d + 1) * P)
        if want[0]:
            out.append(in_gate_order(inner[d].t() @ flat_x))
        if want[1]:
            out.append(
                _recurrent_gradient(outer[d], y[..., part], None if h0 is None else h0[d], lengths, d == 1)
            )
        if want[2]:
            out.append(in_gate_order(inner[d].sum(0)))
        if want[3]:
            out.append(outer[d].sum((0, 1)))
        if kind is LSTM and want[4]:
            m = gates[d, ..., 3 * H :] * torch.tanh(cells[d]).to(x.dtype)
            if lengths is not None:
                m = m.masked_fill(past.unsqueeze(-1), 0)
            out.append(dh[..., part].flatten(0, 1).t() @ m.flatten(0, 1))
    return out
