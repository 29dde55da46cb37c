"""torch's own operators behind the same signatures: what ``set_backend("torch")`` runs, and devices without
kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import _VF, Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

_LAYERS: dict[str, Callable[..., Any]] = {
    "lstm": _VF.lstm,
    "gru": _VF.gru,
    "rnn_tanh": _VF.rnn_tanh,
    "rnn_relu": _VF.rnn_relu,
}
_CELLS: dict[str, Callable[..., Any]] = {
    "lstm": _VF.lstm_cell,
    "gru": _VF.gru_cell,
    "rnn_tanh": _VF.rnn_tanh_cell,
    "rnn_relu": _VF.rnn_relu_cell,
}


def flat_weights(weights: Sequence[Tensor | None], per: int) -> list[Tensor]:
    """``weights`` of ``fusegen.ops.functional``, ``per`` a direction, as torch takes them: without the absent
    ones, and with zeros for a bias where others are given."""
    flat, biases = list(weights), [i for i in range(len(weights)) if i % per in (2, 3)]
    if any(flat[i] is not None for i in biases):
        for i in biases:
            R = flat[i - i % per + 1]
            if flat[i] is None and R is not None:
                flat[i] = R.new_zeros(R.shape[0])
    return [w for w in flat if w is not None]


class Stack(NamedTuple):
    """How layers lie on each other."""

    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0  # between them, in training
    training: bool = True  # cuDNN differentiates no other call


ONE = Stack()


def layers(
    cell: str,
    x: Tensor,
    given: Sequence[Tensor | None],
    weights: list[Tensor],
    lengths: Tensor | None,
    stack: Stack = ONE,
) -> tuple[Tensor, ...]:
    """A stack of layers. cell "lstm" | "gru" | "rnn_tanh" | "rnn_relu"; x [T, B, I]; given states [L*D, B, P]
    (and [L*D, B, H] for the LSTM), None for zeros; weights flat without the absent ones. Returns y [T, B,
    D*P], final states.
    """
    D = 2 if stack.bidirectional else 1
    per = len(weights) // (stack.num_layers * D)
    H = weights[1].shape[0] // {"lstm": 4, "gru": 3}.get(cell, 1)
    states = [
        x.new_zeros(stack.num_layers * D, x.shape[1], n) if s is None else s
        for s, n in zip(given, (weights[1].shape[1], H), strict=False)
    ]
    run, two = _LAYERS[cell], cell == "lstm"
    flags = (per >= 4, stack.num_layers, stack.dropout, stack.training, stack.bidirectional)
    if lengths is None or x.shape[1] == 0:
        out: tuple[Tensor, ...] = run(x, tuple(states) if two else states[0], weights, *flags, False)
        return out

    # torch packs sequences of at least one step; empty ones run one step on zeros, so that nothing of theirs
    # reaches a gradient, NaN included, and are put back to zero output and h_0
    if lengths.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"{cell}: torch's own operators read lengths back from the GPU, which cannot be captured in a "
            "CUDA graph; set_backend('fused') asks for kernels that do not"
        )
    lengths = lengths.cpu()
    live = (lengths > 0).to(x.device).view(1, -1, 1)
    started = states
    if not lengths.all():
        x = torch.where(live, x, torch.zeros_like(x))
        started = [torch.where(live, s, torch.zeros_like(s)) for s in states]
    with torch.autocast(x.device.type, enabled=False):  # which would not join tensors of another 16-bit dtype
        packed = pack_padded_sequence(x, lengths.clamp(min=1), enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None and back is not None
    sorted_hx = tuple(s.index_select(1, order) for s in started)
    data, *final = run(packed.data, packed.batch_sizes, sorted_hx if two else sorted_hx[0], weights, *flags)
    with torch.autocast(x.device.type, enabled=False):
        y, _ = pad_packed_sequence(packed._replace(data=data), total_length=x.shape[0])
    final = [torch.where(live, f.index_select(1, back), s) for f, s in zip(final, states, strict=True)]
    return torch.where(live, y, torch.zeros_like(y)), *final


def packed(
    cell: str,
    data: Tensor,
    batch_sizes: Tensor,
    given: Sequence[Tensor | None],
    weights: list[Tensor],
    stack: Stack,
) -> tuple[Tensor, ...]:
    """A stack of layers on the data of a PackedSequence [N, I] and its batch_sizes [T], states and weights as
    of ``layers``: data [N, D*P], final states. What torch.jit.trace records of it takes other sizes too."""
    D = 2 if stack.bidirectional else 1
    per = len(weights) // (stack.num_layers * D)
    H = weights[1].shape[0] // {"lstm": 4, "gru": 3}.get(cell, 1)
    states = [
        data.new_zeros(stack.num_layers * D, batch_sizes[0], n) if s is None else s  # type: ignore[call-overload]
        for s, n in zip(given, (weights[1].shape[1], H), strict=False)
    ]
    flags = (per >= 4, stack.num_layers, stack.dropout, stack.training, stack.bidirectional)
    hx = tuple(states) if cell == "lstm" else states[0]
    out: tuple[Tensor, ...] = _LAYERS[cell](data, batch_sizes, hx, weights, *flags)
    return out


def cell(
    cell: str, x: Tensor, given: Sequence[Tensor | None], weights: Sequence[Tensor | None]
) -> Tensor | tuple[Tensor, Tensor]:
    """One step. x [B, I], given states [B, H] or None for zeros, weights [W, R, b_ih, b_hh]."""
    R = weights[1]
    assert R is not None
    states = [x.new_zeros(x.shape[0], R.shape[1]) if s is None else s for s in given]
    out: Tensor | tuple[Tensor, Tensor] = _CELLS[cell](
        x, tuple(states) if cell == "lstm" else states[0], *weights
    )
    return out
