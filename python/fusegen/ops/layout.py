"""How the engine wants tensors to lie, and where its gradients go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T", Tensor, Tensor | None)
_empty_like = torch.empty_like


def rows(t: _T) -> _T:
    """t with its last dim contiguous; the others may have any stride."""
    return t if t is None or t.is_contiguous() or t.stride(-1) == 1 else t.contiguous()


def dense(t: _T) -> _T:
    """t, contiguous."""
    return t if t is None or t.is_contiguous() else t.contiguous()


def dense_all(ts: Sequence[_T]) -> list[_T]:
    """Every tensor of ts, contiguous."""
    return [t if t is None or t.is_contiguous() else t.contiguous() for t in ts]


def empty_grads(inputs: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor | None]:
    """A contiguous tensor for each gradient that is wanted, None for the others."""
    return [
        None if t is None or not want else _empty_like(t) if t.is_contiguous() else t.new_empty(t.shape)
        for t, want in zip(inputs, wanted, strict=True)
    ]


def present(ts: Sequence[Tensor | None]) -> list[Tensor]:
    """Those of ts that are there."""
    return [t for t in ts if t is not None]


def wider(dtype: torch.dtype) -> torch.dtype:
    """The dtype of what is kept in float32 at least."""
    return torch.float64 if dtype == torch.float64 else torch.float32
