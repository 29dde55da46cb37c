"""PackedSequences while a model is exported: packing, the layers on it and unpacking written with operators
that ONNX has, for any number of sequences and steps.

torch's own packing has no rule for symbolic sizes, and its exporter none for ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ..nn._packed import traced


class Packing(NamedTuple):
    """How a batch [T, B, ...] was packed."""

    batch_sizes: Tensor
    lengths: Tensor  # [B]
    live: Tensor  # [T, B]: whether sequence b has a step t
    where: Tensor  # [N]: of each row of data, its place in the padded batch


class Tracer:
    """Packs and unpacks under torch.export. The data of a PackedSequence are what torch's would be; beside
    them stands the padded batch that they came from, so that a layer reads that and nothing is packed in
    vain."""

    def __init__(self) -> None:
        self._packings: dict[int, Packing] = {}  # by their batch_sizes
        self._padded: dict[int, tuple[Tensor, Tensor]] = {}  # of data: themselves, and the batch

    def pack(self, input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
        """torch._VF._pack_padded_sequence: (data, batch_sizes)."""
        x = input.transpose(0, 1) if batch_first else input
        live = torch.arange(x.shape[0], device=lengths.device).unsqueeze(1) < lengths.unsqueeze(0)
        where = live.view(-1).nonzero().squeeze(1).to(x.device)
        longest = lengths.max().item()
        torch._check(longest >= 1)
        torch._check(longest <= x.shape[0])
        batch_sizes = live.sum(1)[:longest]
        packing = Packing(batch_sizes, lengths, live, where)
        self._packings[id(batch_sizes)] = packing
        return self._gather(x, packing), batch_sizes

    def pad(self, data: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor, Packing]:
        """What a layer reads: x [T, B, I], zero or anything past the ends, and lengths."""
        packing = self._packing(batch_sizes)
        return self._scatter(data, packing), packing.lengths, packing

    def unpad(self, y: Tensor, packing: Packing) -> Tensor:
        """What a layer gives: of y [T, B, P], zero past the ends, the data."""
        return self._gather(y, packing)

    def pad_packed(
        self, data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int
    ) -> tuple[Tensor, Tensor]:
        """torch._VF._pad_packed_sequence: (the padded batch, lengths)."""
        packing = self._packing(batch_sizes)
        padded = self._scatter(data, packing)
        live = packing.live.to(padded.device).unflatten(1, (-1, *(1,) * (padded.dim() - 2)))
        padded = torch.where(live, padded, torch.full((), padding_value, dtype=padded.dtype))
        padded = padded[:total_length]  # the most steps, or more where the caller asked for them
        return (padded.transpose(0, 1) if batch_first else padded), packing.lengths

    def _packing(self, batch_sizes: Tensor) -> Packing:
        found = self._packings.get(id(batch_sizes))
        if found is None:
            raise ValueError(
                "fusegen.onnx.export: expected a PackedSequence that the model was given or packed itself by "
                "torch.nn.utils.rnn, got one with batch_sizes of its own"
            )
        return found

    def _gather(self, x: Tensor, packing: Packing) -> Tensor:
        data = x.flatten(0, 1).index_select(0, packing.where)
        self._padded[id(data)] = (data, x)
        return data

    def _scatter(self, data: Tensor, packing: Packing) -> Tensor:
        known = self._padded.get(id(data))
        if known is not None:
            return known[1]
        T, B = packing.live.shape
        flat = data.new_zeros((T * B, *data.shape[1:]))
        return flat.index_put((packing.where,), data).view(T, B, *data.shape[1:])


@contextmanager
def tracing() -> Iterator[None]:
    """Within it, whatever packs and unpacks does so by a ``Tracer``."""
    tracer, functions = Tracer(), cast(Any, torch._VF)
    own = functions._pack_padded_sequence, functions._pad_packed_sequence
    functions._pack_padded_sequence, functions._pad_packed_sequence = tracer.pack, tracer.pad_packed
    token = traced.set(tracer)
    try:
        yield
    finally:
        traced.reset(token)
        functions._pack_padded_sequence, functions._pad_packed_sequence = own
