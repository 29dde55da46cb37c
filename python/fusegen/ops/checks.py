"""Checks of what an op is given: each names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .spec import LSTM

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

_compiling = torch.compiler.is_compiling
_functorch = torch._C._are_functorch_transforms_active
_autocast = torch._C._is_any_autocast_enabled


def recurrent_weight(what: str, weights: Sequence[Tensor | None], *counts: int) -> Tensor:
    """R of the first direction, from which the ops read H and P. Raises ValueError where there is none."""
    R = weights[1] if len(weights) in counts else None
    if R is None or R.dim() != 2:
        expected = " or ".join(map(str, counts))
        raise ValueError(f"{what}: expected {expected} weights, the second a matrix, got {len(weights)}")
    return R


def one_kind(
    what: str, x: Tensor, states: Sequence[Tensor | None], weights: Sequence[Tensor | None], per: int
) -> None:
    """Raises TypeError unless x is of a known dtype, RuntimeError unless all have its dtype (any under
    autocast) and device. ``per`` weights belong to each direction.
    """
    if x.dtype not in DTYPES:
        raise TypeError(
            f"{what}: expected input of dtype float32, bfloat16, float16 or float64, got {x.dtype}"
        )
    any_dtype = _autocast()
    for i, t in enumerate((*states, *weights)):
        if t is None or (t.device == x.device and (t.dtype == x.dtype or any_dtype)):
            continue
        at = i - len(states)
        name = ("h0", "c0")[i] if at < 0 else f"{LSTM.weights[at % per]} of direction {at // per}"
        if t.device != x.device:
            raise RuntimeError(
                f"{what}: input and {name} are not on the same device, expected {x.device}, got {t.device}"
            )
        raise RuntimeError(
            f"{what}: input and {name} are not of the same dtype, expected {x.dtype}, got {t.dtype}"
        )


def same_kind(what: str, name: str, x: Tensor, t: Tensor | None) -> None:
    """Raises RuntimeError unless t is None or has x's device and dtype (any under autocast)."""
    if t is None:
        return
    if t.device != x.device:
        raise RuntimeError(
            f"{what}: input and {name} are not on the same device, expected {x.device}, got {t.device}"
        )
    if t.dtype != x.dtype and not _autocast():
        raise RuntimeError(
            f"{what}: input and {name} are not of the same dtype, expected {x.dtype}, got {t.dtype}"
        )


def sized(what: str, name: str, t: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raises RuntimeError unless t is None or has this shape."""
    if t is not None and tuple(t.shape) != shape:
        raise RuntimeError(f"{what}: expected {name} of size {shape}, got {tuple(t.shape)}")


def refuse_while_capturing(what: str, given: str, x: Tensor) -> None:
    """Raises RuntimeError where a CUDA graph is captured on x's GPU: ``given`` lies in host memory, which a
    replay would read again after it was freed."""
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"{what}: {given} cannot be copied to the GPU while a CUDA graph is captured, since a replay "
            f"would read memory that is freed by then; give lengths= as a tensor on {x.device} instead"
        )


def as_recompute(what: str, every: int | None) -> int:
    """``recompute`` as ops have it: 0 for None. Raises TypeError where it is no int, ValueError below 1."""
    if every is None:
        return 0
    if isinstance(every, bool) or not isinstance(every, int):
        raise TypeError(f"{what}: expected recompute to be an int or None, got {type(every).__name__}")
    if every < 1:
        raise ValueError(f"{what}: expected recompute to be at least 1, or None, got {every}")
    return min(every, 2**31 - 1)  # beyond the steps of a sequence all are alike


def as_lengths(what: str, lengths: Iterable[int] | Tensor | None, x: Tensor) -> Tensor | None:
    """``lengths`` (None, a sequence of ints, or an integer tensor on any device) as an int64 tensor [B], in
    memory of its own, where x [T, B, I] lies.

    Raises TypeError where they are not integers, ValueError for a wrong count or a value outside 0..T, and
    RuntimeError where they are not on the GPU and a CUDA graph is captured there. Inside
    torch.compile and torch.export, values are checked when the op runs. Values that lie on a GPU with x are
    not read back: there a bad one makes the sequence's outputs NaN, and the next call raises.
    """
    T, B = x.shape[:2]
    if lengths is None:
        return None
    given = lengths if isinstance(lengths, Tensor) else _lengths_from(what, lengths)
    if given.is_cpu and not _compiling():
        refuse_while_capturing(what, "lengths in a list or a CPU tensor", x)
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"{what}: expected lengths of an integer dtype, got {given.dtype}")
    if given.dim() != 1 or given.shape[0] != B:
        raise ValueError(
            f"{what}: expected lengths of shape ({B},), one per sequence, got {tuple(given.shape)}"
        )
    if given is lengths:  # memory of the caller, who may write the next batch's lengths there before backward
        given = given.detach().clone()
    if given.is_cpu or x.is_cpu:
        given = given.to("cpu", torch.int64)
        if not _compiling() and type(given) is Tensor and not _functorch():
            check_lengths(what, given, T)
    given = given.to(x.device, torch.int64, non_blocking=True)
    return given if given.is_contiguous() else given.contiguous()


def _lengths_from(what: str, lengths: Iterable[int]) -> Tensor:
    try:
        values = list(lengths)
    except TypeError:
        raise TypeError(
            f"{what}: expected lengths as a list or an integer tensor, got {type(lengths).__name__}"
        ) from None
    for v in values:
        if isinstance(v, (bool, float, complex)) or not hasattr(v, "__index__"):
            raise TypeError(f"{what}: expected integers as lengths, got {v!r} of type {type(v).__name__}")
        if not -(2**63) <= v.__index__() < 2**63:
            raise ValueError(f"{what}: expected lengths that fit 64 bits, got {v}")
    return torch.tensor([v.__index__() for v in values], dtype=torch.int64, device="cpu")


def check_lengths(what: str, lengths: Tensor, T: int) -> None:
    """Raises ValueError unless every length is in 0..T."""
    for b, n in enumerate(lengths.tolist()):
        if not 0 <= n <= T:
            raise ValueError(
                f"{what}: expected lengths in 0..{T} (the number of steps), got lengths[{b}] = {n}"
            )
