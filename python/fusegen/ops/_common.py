"""What every op shares: the way a call takes, the layout of tensors, and checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.parameter import Buffer, Parameter

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

DIRECT, DISPATCH, REFERENCE = 0, 1, 2
_OWN_TYPES = frozenset((Tensor, Parameter, Buffer))

_compiling = torch.compiler.is_compiling
_functorch = torch._C._are_functorch_transforms_active
_dispatch_modes = torch._C._len_torch_dispatch_stack
_profiling = torch._C._autograd._profiler_enabled
_autocast = torch._C._is_any_autocast_enabled
batched = torch._C._functorch.is_legacy_batchedtensor
_empty_like = torch.empty_like


def route(tensors: Iterable[Tensor | None]) -> int:
    """The way a call takes.

    DIRECT: plain tensors on the CPU and nobody watching, so the binding is called without the dispatcher,
    which would cost more than a small cell does. REFERENCE: inside a torch.func transform or forward-mode
    differentiation, which see through plain torch operators only. DISPATCH: everything else (compile, export,
    profiling, autocast, fake tensors, subclasses, other devices), through ``torch.ops.fusegen``.
    """
    if _compiling():
        return DISPATCH
    if transformed():
        return REFERENCE
    if _dispatch_modes() or _autocast() or _profiling():
        return DISPATCH
    first = None
    for t in tensors:
        if t is not None:
            if not _own(t):
                return DISPATCH
            first = t if first is None else first
    return DIRECT if first is None or first.is_cpu else DISPATCH  # the binding refuses a mixture


def _own(t: Tensor) -> bool:
    return type(t) in _OWN_TYPES and not t.is_neg()  # of a negative view the dispatcher makes a plain one


def plain(tensors: Iterable[Tensor]) -> bool:
    """Whether these are torch's own tensors with memory, and nothing stands between them and a kernel."""
    return not transformed() and not _dispatch_modes() and all(_own(t) for t in tensors)


def transformed() -> bool:
    """Inside a torch.func transform or forward-mode differentiation, which see through torch's operators
    only."""
    return _functorch() or forward_ad._current_level >= 0


def backward_route(grads: Sequence[Tensor | None], tensors: Sequence[Tensor | None]) -> int:
    """``route`` of a backward. The batched gradients of ``is_grads_batched`` are older than torch.func, which
    does not know of them."""
    if any(g is not None and batched(g) for g in grads):
        return REFERENCE
    return route((*grads, *tensors))


def rows(t: Tensor | None) -> Tensor | None:
    """t with its last dim contiguous; the others may have any stride."""
    return t if t is None or t.is_contiguous() or t.stride(-1) == 1 else t.contiguous()


def dense(t: Tensor | None) -> Tensor | None:
    """t, contiguous."""
    return t if t is None or t.is_contiguous() else t.contiguous()


def dense_all(ts: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Every tensor of ts, contiguous."""
    return [t if t is None or t.is_contiguous() else t.contiguous() for t in ts]


def recurrent_weight(what: str, weights: Sequence[Tensor | None], *counts: int) -> Tensor:
    """R of the first direction, from which the ops read H and P. Raises ValueError where there is none."""
    if len(weights) not in counts or weights[1] is None or weights[1].dim() != 2:
        expected = " or ".join(map(str, counts))
        raise ValueError(f"{what}: expected {expected} weights, the second a matrix, got {len(weights)}")
    return weights[1]


def empty_grads(inputs: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor | None]:
    """A contiguous tensor for each gradient that is wanted, None for the others."""
    return [
        None if t is None or not want else _empty_like(t) if t.is_contiguous() else t.new_empty(t.shape)
        for t, want in zip(inputs, wanted, strict=True)
    ]


NAMES = ("W", "R", "b_ih", "b_hh", "W_hr")


def check_kinds(
    what: str, x: Tensor, states: Sequence[Tensor | None], weights: Sequence[Tensor | None], per: int
):
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
        name = ("h0", "c0")[i] if at < 0 else f"{NAMES[at % per]} of direction {at // per}"
        kind, expected, got = ("on", x.device, t.device) if t.device != x.device else ("of", x.dtype, t.dtype)
        same = "the same device" if kind == "on" else "the same dtype"
        raise RuntimeError(f"{what}: input and {name} are not {kind} {same}, expected {expected}, got {got}")


def sized(what: str, name: str, t: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raises RuntimeError unless t is None or has this shape."""
    if t is not None and tuple(t.shape) != shape:
        raise RuntimeError(f"{what}: expected {name} of size {shape}, got {tuple(t.shape)}")


def as_lengths(what: str, lengths, x: Tensor) -> Tensor | None:
    """``lengths`` (None, a sequence of ints, or an integer tensor on any device) as an int64 tensor [B], in
    memory of its own, where x [T, B, I] lies.

    Raises TypeError where they are not integers, ValueError for a wrong count or a value outside 0..T. Inside
    torch.compile and torch.export, values are checked when the op runs. Values that lie on a GPU with x are
    not read back: there a bad one makes the sequence's outputs NaN, and the next call raises.
    """
    T, B = x.shape[:2]
    if lengths is None:
        return None
    given = isinstance(lengths, Tensor)
    if not given:
        lengths = _lengths_from(what, lengths)
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(f"{what}: expected lengths of an integer dtype, got {lengths.dtype}")
    if lengths.dim() != 1 or lengths.shape[0] != B:
        raise ValueError(
            f"{what}: expected lengths of shape ({B},), one per sequence, got {tuple(lengths.shape)}"
        )
    if given:  # memory of the caller, who may write the next batch's lengths there before backward
        lengths = lengths.detach().clone()
    if lengths.is_cpu or x.is_cpu:
        lengths = lengths.to("cpu", torch.int64)
        if not _compiling() and type(lengths) is Tensor and not _functorch():
            check_lengths(what, lengths, T)
    lengths = lengths.to(x.device, torch.int64, non_blocking=True)
    return lengths if lengths.is_contiguous() else lengths.contiguous()


def _lengths_from(what: str, lengths) -> Tensor:
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
