"""How an op becomes ``torch.ops.fusegen.NAME``: its schema, its kernels, its shapes, its autocast."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("fusegen", "DEF")
_TAGS = (torch.Tag.pt2_compliant_tag,)
_AUTOCAST_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


class Kernel(NamedTuple):
    """One registered operator: its schema without the name, what runs on the CPU and on an NVIDIA GPU, and
    the shapes it gives."""

    schema: str
    cpu: Callable[..., Any]
    cuda: Callable[..., Any]
    fake: Callable[..., Any]


def register(name: str, kernel: Kernel) -> Callable[..., Any]:
    """Makes ``fusegen::name``; returns it."""
    _LIBRARY.define(name + kernel.schema, tags=_TAGS)
    _LIBRARY.impl(name, kernel.cpu, "CPU")
    _LIBRARY.impl(name, kernel.cuda, "CUDA")
    torch.library.register_fake(f"fusegen::{name}", kernel.fake, lib=_LIBRARY)
    op: Callable[..., Any] = getattr(torch.ops.fusegen, name).default
    return op


def register_drawing(
    name: str, schema: str, draw: Callable[..., Any], fake: Callable[..., Any]
) -> Callable[..., Any]:
    """Makes ``fusegen::name``, which draws from a generator: no compiler may fold, merge or repeat its
    calls."""
    _LIBRARY.define(name + schema, tags=(*_TAGS, torch.Tag.nondeterministic_seeded))
    _LIBRARY.impl(name, draw, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fusegen::{name}", fake, lib=_LIBRARY)
    op: Callable[..., Any] = getattr(torch.ops.fusegen, name).default
    return op


def register_autograd(name: str, run: Callable[..., Any]) -> None:
    """``run`` takes the op's arguments wherever autograd looks; see ``below_autograd``."""
    _LIBRARY.impl(name, run, "Autograd")


def below_autograd(op: Callable[..., Any], *args: object) -> Any:
    """The op without what autograd adds."""
    with torch._C._AutoDispatchBelowAutograd():
        return op(*args)


def register_autocast(
    name: str, op: Callable[..., Any], tensors: int, options: int, wide: int | None
) -> None:
    """Under autocast, the first ``tensors`` arguments and the list of weights behind them are computed and
    given in its dtype, but for the output numbered ``wide``, which keeps the input's. As in torch, float64 is
    left alone. ``options`` arguments follow as they are, then one that is left out (weights packed in another
    dtype), then any number, of which floating-point tensors are cast too."""
    for device, key in _AUTOCAST_KEYS.items():
        below = torch._C.DispatchKeySet(torch._C._dispatch_key_parse(key))
        _LIBRARY.impl(
            name, partial(_autocast, op, device, below, slice(tensors + 1, tensors + 1 + options), wide), key
        )


def _autocast(
    op: Callable[..., Any],
    device: str,
    below: torch._C.DispatchKeySet,
    options: slice,
    wide: int | None,
    *args: Any,
) -> Any:
    dtype = torch.get_autocast_dtype(device)

    def cast(t: Tensor | None) -> Tensor | None:
        return t if t is None or t.dtype == torch.float64 else t.to(dtype)

    with torch._C._ExcludeDispatchKeyGuard(below):
        *tensors, weights = args[: options.start]
        more = [
            cast(a) if isinstance(a, Tensor) and a.is_floating_point() else a for a in args[options.stop :]
        ]
        out = op(
            *map(cast, tensors), [cast(w) for w in weights], *args[options], *[None][: len(more)], *more[1:]
        )
    if wide is None:
        return out
    return tuple(t.to(args[0].dtype) if i == wide else t for i, t in enumerate(out))
