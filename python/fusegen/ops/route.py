"""The way that a call of an op takes: straight to the kernel, through torch's dispatcher, or by the reference
formula; of a recurrent op, by its rules for torch.func."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.nn.parameter import Buffer, Parameter

from .. import _backend

DIRECT: Final = 0
DISPATCH: Final = 1
REFERENCE: Final = 2
MAPPED: Final = 3

_WITH_RULES = (torch._C._functorch.TransformType.Vmap, torch._C._functorch.TransformType.Grad)
_OWN_TYPES = frozenset((Tensor, Parameter, Buffer))

_compiling = torch.compiler.is_compiling
_functorch = torch._C._are_functorch_transforms_active
_dispatch_modes = torch._C._len_torch_dispatch_stack
_profiling = torch._C._autograd._profiler_enabled
_autocast = torch._C._is_any_autocast_enabled
_tracing = torch._C._get_tracing_state
_grad_enabled = torch.is_grad_enabled
_any_requires_grad = _backend.any_requires_grad  # of a list with None in it, it says no: give it tensors
batched = torch._C._functorch.is_legacy_batchedtensor


def of_call(tensors: Iterable[Tensor | None]) -> int:
    """The way a call takes.

    DIRECT: plain tensors on the CPU or a GPU and nobody watching, so the binding is called without the
    dispatcher, which would cost more than a small cell does. MAPPED: inside torch.func's vmap and grad, for
    which an op may have rules. REFERENCE: inside its other transforms and forward-mode differentiation, which
    see through plain torch operators only, and inside any of them that is compiled. DISPATCH: everything else
    (compile, export, profiling, autocast, fake tensors, subclasses, other devices), through
    ``torch.ops.fusegen``.
    """
    if _compiling():
        return REFERENCE if transformed() else DISPATCH
    if transformed():
        return MAPPED if _only_vmap_and_grad() else REFERENCE
    if _dispatch_modes() or _autocast() or _profiling():
        return DISPATCH
    first = None
    for t in tensors:
        if t is not None:
            if not _own(t):
                return DISPATCH
            first = t if first is None else first
    return DIRECT if first is None or first.is_cpu or first.is_cuda else DISPATCH  # a mixture is refused


def is_plain_inference(tensors: Iterable[object]) -> bool:
    """Whether a call on these (a Tensor or None each; anything else is not) is DIRECT, wants no gradient and
    is not recorded by torch.jit.trace: what ``of_call`` and its callers ask one by one, for calls that take
    microseconds. On which device they are is left to who reads them."""
    if _compiling() or _functorch() or forward_ad._current_level >= 0 or _dispatch_modes():
        return False
    if _autocast() or _profiling() or _tracing() is not None:
        return False
    for t in tensors:
        # of a negative view the dispatcher makes a plain one
        if t is not None and (type(t) not in _OWN_TYPES or t.is_neg()):  # type: ignore[attr-defined]
            return False
    return not (_grad_enabled() and _any_requires_grad(*tensors))


def is_seen_by_nobody(t: Tensor) -> bool:
    """Whether ``check_without_op`` has nothing to say of t, and its memory holds its numbers: asked at every
    call of a stream."""
    if _compiling() or transformed() or _dispatch_modes() or _tracing() is not None:
        return False
    return _own(t)


def check_without_op(what: str, tensors: Sequence[Tensor | None]) -> None:
    """Raises RuntimeError where a kernel that is no op of torch's would be wrong without a word, or read
    memory that is not there: ``what`` under torch.jit.trace, which records nothing of it, in a torch.func
    transform or with a tangent, and on fake tensors (torch.export, FakeTensorMode)."""
    if torch.compiler.is_dynamo_compiling():  # which runs such calls outside of its graphs
        return
    if _tracing() is not None:
        raise RuntimeError(f"{what}: torch.jit.trace does not see it and would record garbage")
    if _dispatch_modes() and torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
        raise RuntimeError(
            f"{what}: expected tensors with memory, got fake ones (FakeTensorMode or torch.export)"
        )
    forward = forward_ad._current_level >= 0
    for t in tensors:
        if t is None:
            continue
        if isinstance(t, FakeTensor):
            raise RuntimeError(f"{what}: expected tensors with memory, got a fake one")
        if torch._C._functorch.is_functorch_wrapped_tensor(t) or batched(t):
            raise RuntimeError(f"{what}: torch.func and torch.vmap do not see into it")
        if forward and forward_ad.unpack_dual(t).tangent is not None:
            raise RuntimeError(f"{what}: gives no tangents, and the input has one")


def of_backward(grads: Sequence[Tensor | None], tensors: Sequence[Tensor | None]) -> int:
    """The way of a backward. The batched gradients of ``is_grads_batched`` are older than torch.func, which
    does not know of them."""
    if any(g is not None and batched(g) for g in grads):
        return REFERENCE
    return of_call((*grads, *tensors))


def plain(tensors: Iterable[Tensor]) -> bool:
    """Whether these are torch's own tensors with memory, and nothing stands between them and a kernel."""
    return not transformed() and not _dispatch_modes() and all(_own(t) for t in tensors)


def transformed() -> bool:
    """Inside a torch.func transform or forward-mode differentiation, which see through torch's operators
    only."""
    return _functorch() or forward_ad._current_level >= 0


def _only_vmap_and_grad() -> bool:
    return forward_ad._current_level < 0 and all(
        i.key() in _WITH_RULES for i in torch._C._functorch.get_interpreter_stack() or ()
    )


def _own(t: Tensor) -> bool:
    return type(t) in _OWN_TYPES and not t.is_neg()  # of a negative view the dispatcher makes a plain one
