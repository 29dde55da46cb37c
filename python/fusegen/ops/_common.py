"""What every op shares: the library, the way a call takes, layout at the door, gradients asked for,
checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.parameter import Buffer, Parameter

from .. import _backend
from .._backend import needs_grad as needs_grad

LIB = torch.library.Library("fusegen", "DEF")
TAGS = (torch.Tag.pt2_compliant_tag,)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

DIRECT, DISPATCH, REFERENCE = 0, 1, 2
_OWN_TYPES = frozenset((Tensor, Parameter, Buffer))

_compiling = torch.compiler.is_compiling
_functorch = torch._C._are_functorch_transforms_active
_dispatch_modes = torch._C._len_torch_dispatch_stack
_profiling = torch._C._autograd._profiler_enabled
_autocast = torch._C._is_any_autocast_enabled


def route(tensors: Iterable[Tensor | None]) -> int:
    """The way a call takes.

    DIRECT: plain tensors on the CPU and nobody watching, so the binding is called without the dispatcher,
    which would cost more than a small cell does. REFERENCE: inside a torch.func transform or forward-mode
    differentiation, which see through plain torch operators only. DISPATCH: everything else (compile, export,
    profiling, autocast, fake tensors, subclasses, other devices), through ``torch.ops.fusegen``.
    """
    if _compiling():
        return DISPATCH
    if _functorch() or forward_ad._current_level >= 0:
        return REFERENCE
    if _dispatch_modes() or _autocast() or _profiling():
        return DISPATCH
    for t in tensors:
        if t is not None and (type(t) not in _OWN_TYPES or not t.is_cpu):
            return DISPATCH
    return DIRECT


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
        t.new_empty(t.shape) if want and t is not None else None
        for t, want in zip(inputs, wanted, strict=True)
    ]


def wanted(ctx, inputs: Sequence[Tensor | None], tensors_before: int = 0) -> list[bool]:
    """Which of ``inputs`` this very backward is asked to give a gradient for.

    ``ctx.needs_input_grad`` only tells what requires grad; asking the engine saves the weight gradients when
    ``torch.autograd.grad(loss, x)`` wants x alone. ``inputs`` are the last arguments of ``apply``;
    ``tensors_before`` is how many of the arguments before them were tensors.
    """
    need = list(ctx.needs_input_grad[-len(inputs) :])
    if _compiling():
        return need
    nodes = iter(ctx.next_functions[tensors_before:])
    for i, t in enumerate(inputs):
        if t is None:
            continue
        node = next(nodes)[0]
        if need[i]:
            try:
                need[i] = torch._C._will_engine_execute_node(node)
            except RuntimeError:  # raised for a leaf that torch.autograd.grad captures: it is asked for
                need[i] = True
    return need


def spread(grads: Sequence[Tensor], want: Sequence[bool], before: int) -> tuple[Tensor | None, ...]:
    """The gradients that came back, at the places of the inputs they belong to, after ``before`` Nones."""
    it = iter(grads)
    return (*(None,) * before, *(next(it) if w else None for w in want))


def second_order(name: str, formula: Callable, inputs: Sequence[Tensor | None], want: Sequence[bool], grads):
    """The gradients of ``formula(*inputs)``, differentiable again; what backward does under
    create_graph=True.

    Each wanted input is replaced by an alias first: where one input was computed from another, the derivative
    must be the partial one.
    """
    _backend.note(f"{name} under create_graph=True: the differentiable reference formula runs")
    alias = [t.view_as(t) if w else t for t, w in zip(inputs, want, strict=True)]
    outputs = formula(*alias)
    given = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None]
    return torch.autograd.grad(
        [o for o, _ in given],
        [t for t, w in zip(alias, want, strict=True) if w],
        [g for _, g in given],
        create_graph=True,
        materialize_grads=True,
    )


def register(
    name: str, schema: str, cpu: Callable, fake: Callable, autograd: Callable | None = None
) -> Callable:
    """Defines ``fusegen::name`` with its CPU kernel, fake kernel and, where it has one, autograd kernel."""
    LIB.define(name + schema, tags=TAGS)
    LIB.impl(name, cpu, "CPU")
    torch.library.register_fake(f"fusegen::{name}", fake, lib=LIB)
    if autograd is not None:
        LIB.impl(name, autograd, "Autograd")
    return getattr(torch.ops.fusegen, name).default


def autocast(name: str, device: str, call: Callable) -> None:
    """Registers the autocast rule of ``fusegen::name`` on a device: ``call(cast, *args)`` with ``cast`` for
    each tensor.

    Everything computes and comes out in the autocast dtype (c_n: in the input's own). As in torch, float64 is
    left alone and autocast is off inside.
    """
    key = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}[device]
    keyset = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def kernel(*args):
        dtype = torch.get_autocast_dtype(device)

        def cast(t):
            return t if t is None or t.dtype == torch.float64 or not t.is_floating_point() else t.to(dtype)

        with torch._C._ExcludeDispatchKeyGuard(keyset):
            return call(cast, *args)

    LIB.impl(name, kernel, key)


def same_kind(what: str, x: Tensor, tensors: Sequence[Tensor | None], names: Sequence[str]) -> None:
    """Raises RuntimeError unless every tensor has x's dtype (any under autocast) and device, and x a known
    dtype."""
    if x.dtype not in DTYPES:
        raise TypeError(
            f"{what}: expected input of dtype float32, bfloat16, float16 or float64, got {x.dtype}"
        )
    any_dtype = _autocast()
    for t, name in zip(tensors, names, strict=True):
        if t is None:
            continue
        if t.dtype != x.dtype and not any_dtype:
            raise RuntimeError(
                f"{what}: input and {name} are not of the same dtype, expected {x.dtype}, got {t.dtype}"
            )
        if t.device != x.device:
            raise RuntimeError(
                f"{what}: input and {name} are not on the same device, expected {x.device}, got {t.device}"
            )


def sized(what: str, name: str, t: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raises RuntimeError unless t is None or has this shape."""
    if t is not None and tuple(t.shape) != shape:
        raise RuntimeError(f"{what}: expected {name} of size {shape}, got {tuple(t.shape)}")


def as_lengths(what: str, lengths, T: int, B: int) -> Tensor | None:
    """``lengths`` (None, a sequence of ints, or an integer tensor on any device) as an int64 CPU tensor [B].

    Raises TypeError where they are not integers, ValueError for a wrong count or a value outside 0..T. Inside
    torch.compile and torch.export, values are checked when the op runs.
    """
    if lengths is None:
        return None
    if not isinstance(lengths, Tensor):
        lengths = _lengths_from(what, lengths)
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(f"{what}: expected lengths of an integer dtype, got {lengths.dtype}")
    if lengths.dim() != 1 or lengths.shape[0] != B:
        raise ValueError(
            f"{what}: expected lengths of shape ({B},), one per sequence, got {tuple(lengths.shape)}"
        )
    lengths = lengths.detach().to("cpu", torch.int64)
    if not lengths.is_contiguous():
        lengths = lengths.contiguous()
    if not _compiling() and type(lengths) is Tensor and not _functorch():
        check_lengths(what, lengths, T)
    return lengths


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
    return torch.tensor([v.__index__() for v in values], dtype=torch.int64)


def check_lengths(what: str, lengths: Tensor, T: int) -> None:
    """Raises ValueError unless every length is in 0..T."""
    for b, n in enumerate(lengths.tolist()):
        if not 0 <= n <= T:
            raise ValueError(
                f"{what}: expected lengths in 0..{T} (the number of steps), got lengths[{b}] = {n}"
            )
