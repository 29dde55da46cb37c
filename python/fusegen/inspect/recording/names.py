"""The recurrent modules of a model by their names, and what cannot be looked into, refused."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from ...nn._base import Layers
from ...nn.cells import Cell
from ...nn.quantized import Quantized
from ...nn.stream import Stream

_TORCH = (nn.RNNBase, nn.RNNCellBase)
Named = dict[str, nn.Module]
Recurrence = Layers | Cell


def recurrent(what: str, model: object, names: Sequence[str] | str | None = None) -> dict[str, Recurrence]:
    """fusegen's recurrent layers and cells in ``model`` by name, as ``named_modules`` has them ("" is the
    model itself); those of ``names``, in that order, or all.

    Raises TypeError if ``model`` is no Module, RuntimeError for what is compiled, ValueError for modules that
    are quantized or torch.nn's, for a name that is none (naming the nearest), and if there is nothing.
    """
    if isinstance(model, Stream):
        raise TypeError(f"{what}: a Stream keeps no gates; give the model that it was made of")
    if not isinstance(model, nn.Module):
        raise TypeError(f"{what}: expected model to be a torch.nn.Module, got {type(model).__name__}")
    _check_eager(what, model)
    # a module that has two names can be asked for by either
    named = model.named_modules(remove_duplicate=names is None)
    every: Named = {name: m for name, m in named if isinstance(m, (Layers, Cell, *_TORCH))}
    found: dict[str, Recurrence] = {}
    for name, m in _chosen(what, model, every, names).items():
        said = f"{what}: {name or 'the model itself'} ({type(m).__name__})"
        if isinstance(m, Quantized):
            raise ValueError(f"{said} is quantized, and its kernels give no gates; give the model before")
        if not isinstance(m, (Layers, Cell)):
            raise ValueError(f"{said} is torch.nn's: fusegen.convert(model) first, or choose others by name")
        if twin := next((other for other, its in found.items() if its is m), None):
            raise ValueError(f"{said} is the same module as {twin!r}: choose one of the names")
        found[name] = m
    return found


def _chosen(what: str, model: nn.Module, every: Named, names: Sequence[str] | str | None) -> Named:
    if names is None:
        if not every:
            raise ValueError(f"{what}: expected a model with a recurrent layer or cell, got {_kind(model)}")
        return every
    if not isinstance(names, Iterable):
        raise TypeError(f"{what}: expected names as texts, got {type(names).__name__}")
    given = [names] if isinstance(names, str) else list(names)
    if not given:
        raise ValueError(f"{what}: expected at least one name, got none")
    for name in given:
        if name not in every:
            raise ValueError(f"{what}: no recurrent layer or cell is named {name!r}{nearest(name, every)}")
    return {name: every[name] for name in given}


def nearest(name: object, known: Sequence[str] | Named) -> str:
    """What to say behind a name that is not known."""
    listed = list(known)
    if not listed:
        return "; there is none"
    close = difflib.get_close_matches(str(name), listed, n=1, cutoff=0.0)
    return f"; the nearest is {(close or listed)[0]!r}"


def _check_eager(what: str, model: nn.Module) -> None:
    for name, m in model.named_modules():
        called = f"{what}: {name or 'the model itself'}"
        compiler = sys.modules.get("torch._dynamo")  # not imported for the sake of this question
        graph = compiler is not None and isinstance(m, compiler.OptimizedModule)
        if graph or m._compiled_call_impl is not None:
            raise RuntimeError(
                f"{called} is torch.compile's, whose graphs give no gates; give the model before"
            )
        if isinstance(m, torch.jit.ScriptModule):
            raise RuntimeError(
                f"{called} is TorchScript's, whose graphs give no gates; give the model before"
            )
        if isinstance(m, nn.DataParallel):
            raise RuntimeError(f"{called} is DataParallel's, which copies modules; give the model inside it")


def _kind(model: nn.Module) -> str:
    return type(model).__name__


def one(what: str, model: object, name: str | None) -> tuple[str, Recurrence]:
    """The module so named, or the only one. Raises as ``recurrent``, and ValueError where several are."""
    found = recurrent(what, model, None if name is None else [name])
    if len(found) > 1:
        raise ValueError(f"{what}: expected the name of one of {', '.join(map(repr, found))}, got none")
    return next(iter(found.items()))


def plane(what: str, m: Recurrence, layer: int, direction: int) -> None:
    """Raises ValueError where the module has no such layer or direction."""
    layers = m.num_layers if isinstance(m, Layers) else 1
    directions = 2 if isinstance(m, Layers) and m.bidirectional else 1
    for name, given, count in (("layer", layer, layers), ("direction", direction, directions)):
        if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < count:
            raise ValueError(f"{what}: expected {name} in 0..{count - 1} of {_kind(m)}, got {given!r}")
