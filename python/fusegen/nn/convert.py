"""fusegen.convert and fusegen.revert: torch.nn's recurrent modules to fusegen's and back, in place.

A module changes its class and nothing else: it stays the same object, so Parameters, hooks, buffers, the
training flag, optimisers and every reference held elsewhere stay valid.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from .cells import GRUCell, LSTMCell, RNNCell
from .gru import GRU
from .lstm import LSTM
from .rnn import RNN

_FUSED: dict[type[nn.Module], type[nn.Module]] = {
    nn.RNN: RNN,
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.RNNCell: RNNCell,
    nn.LSTMCell: LSTMCell,
    nn.GRUCell: GRUCell,
}
_TORCH = {fused: own for own, fused in _FUSED.items()}
_NAMES = frozenset(own.__name__ for own in _FUSED)


def convert(model: nn.Module, *, report: bool | Callable[[str], object] = False) -> nn.Module:
    """Turns every torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell and GRUCell in ``model``, at any depth, into
    fusegen's, in place; returns ``model``.

    Each module keeps its identity, Parameters, hooks, parametrizations and training flag. Afterwards
    ``isinstance(m, torch.nn.LSTM)`` is False. An exception is a user's own subclass without a ``forward``: it
    keeps its type as a base, and torch.compile breaks its graph there, as at every torch.nn.LSTM. A subclass
    with a ``forward`` of its own is left alone, with a UserWarning. Scripted and quantized modules are left
    alone.

    Args:
        model: a Module; it may itself be one of these layers.
        report: True prints what was changed, and which recurrent modules were left and why. A function, such
            as a logger's ``info``, is called with that text instead.

    Raises TypeError if ``model`` is not a Module.
    """
    changed, left = _convert(model)
    own_forward = [what for what, reason in left if reason is _OWN_FORWARD]
    if own_forward:
        warnings.warn(
            f"fusegen.convert left alone what has a forward of its own: {', '.join(own_forward)}",
            stacklevel=2,
        )
    if report:
        say = report if callable(report) else print
        say(_in_words(changed, left))
    return model


@contextmanager
def converted(model: nn.Module) -> Iterator[nn.Module]:
    """``model`` converted as long as the context lasts; what was fusegen's before stays so."""
    changed, _ = _convert(model)
    try:
        yield model
    finally:
        for _, m in changed:
            _revert(m)


def recurrent_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers, stacks and cells in ``model``, by name, that are fusegen's or can be converted."""
    return [
        (name, m) for name, m in model.named_modules() if _is_fused(m) or isinstance(_fused_class(m), type)
    ]


def _is_fused(m: nn.Module) -> bool:
    cls = type(m)
    return cls in _TORCH or "_adopted_from" in vars(cls) or (_is_parametrized(m) and cls.__base__ in _TORCH)


_OWN_FORWARD = "it has a forward of its own"

Changed = list[tuple[str, nn.Module]]  # by their names
Left = list[tuple[str, str]]  # the module in words, and why


def _convert(model: nn.Module) -> tuple[Changed, Left]:
    changed: Changed = []
    left: Left = []
    for name, m in _modules(model, "convert"):
        fused = _fused_class(m)
        if isinstance(fused, str):
            left.append((f"{name or 'the model itself'} ({_qualified(type(m))})", fused))
        elif fused is not None:
            _become(m, fused)
            changed.append((name, m))
    return changed, left


def _fused_class(m: nn.Module) -> type[nn.Module] | str | None:
    """What ``m`` becomes; why it stays as it is, if it is recurrent; None of anything else."""
    cls = type(m)
    if _is_parametrized(m):
        if cls.__base__ in _FUSED:
            return _parametrized(cls, _FUSED[cls.__base__])
    elif cls in _FUSED:
        return _FUSED[cls]
    if isinstance(m, torch.jit.ScriptModule):
        scripted = getattr(m, "original_name", "")
        return "it is scripted" if scripted in _NAMES else None
    own = next((c for c in cls.__mro__ if c in _FUSED), None)
    if own is None:
        quantized = cls.__name__ in _NAMES and ".quantized." in f".{cls.__module__}."
        return "it is quantized" if quantized else None
    if "quantizable" in cls.__module__:
        return "it is quantized"
    if cls.forward is own.forward and not _is_parametrized(m):
        return _adopted(cls, own)
    return _OWN_FORWARD


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _in_words(changed: Changed, left: Left) -> str:
    lines = [f"fusegen.convert: {len(changed)} changed, {len(left)} left"]
    if not changed and not left:
        lines = ["fusegen.convert: nothing recurrent in this model, nothing changed"]
    lines += [f"  changed  {name or 'the model itself'}: {type(m).__name__}" for name, m in changed]
    lines += [f"  left     {what}: {reason}" for what, reason in left]
    return "\n".join(lines)


def revert(model: nn.Module) -> nn.Module:
    """Undoes ``convert``: turns every LSTM, GRU, RNN and cell of fusegen.nn in ``model`` into torch.nn's (or
    the user's own subclass again), in place; returns ``model``. Layers and cells with norms or blocks, which
    torch.nn has not, stay. ``recompute`` ends: torch.nn's keep all that backward reads, results are the same.

    Raises TypeError if ``model`` is not a Module, ValueError for options that torch.nn has not: recurrent
    dropout, zoneout, weight drop.
    """
    modules = _modules(model, "revert")
    for name, m in modules:
        if not getattr(m, "_is_plain", True):
            what = f"{name or 'the model itself'} ({type(m).__name__}({m.extra_repr()}))"
            raise ValueError(f"fusegen.revert: expected options that torch.nn has too, got {what}")
    for _, m in modules:
        _revert(m)
    return model


def _revert(m: nn.Module) -> None:
    cls = type(m)
    if cls in _TORCH:
        m.__class__ = _TORCH[cls]
    elif _is_parametrized(m) and cls.__base__ in _TORCH:
        m.__class__ = _parametrized(cls, _TORCH[cls.__base__])
    elif "_adopted_from" in vars(cls):
        m.__class__ = vars(cls)["_adopted_from"][0]


def _modules(model: nn.Module, verb: str) -> list[tuple[str, nn.Module]]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"fusegen.{verb}: expected model to be a torch.nn.Module, got {type(model).__name__}")
    return list(model.named_modules())


def _become(m: nn.Module, cls: type[nn.Module]) -> None:
    m.__class__ = cls
    if isinstance(m, nn.RNNBase):
        m._init_flat_weights()  # drops what torch's last forward left there


def _is_parametrized(m: nn.Module) -> bool:
    base = type(m).__base__
    if base is None or not parametrize.is_parametrized(m):
        return False
    return type(m).__name__ == f"Parametrized{base.__name__}"


def _parametrized(cls: type[nn.Module], base: type[nn.Module]) -> type[nn.Module]:
    """The class that parametrize made for one module, with another base: its properties live in the class
    itself."""
    skip = ("__dict__", "__weakref__", "__doc__", "__module__")
    return type(
        f"Parametrized{base.__name__}", (base,), {k: v for k, v in vars(cls).items() if k not in skip}
    )


_ADOPTED: dict[tuple[type, type], type[nn.Module]] = {}


def _adopted(cls: type[nn.Module], own: type[nn.Module]) -> type[nn.Module]:
    """A user's subclass ``cls`` of torch's ``own`` without a forward of its own: the same class with
    fusegen's in front."""

    def __reduce_ex__(self: nn.Module, protocol: int) -> tuple[Any, ...]:
        return _remade, (cls, own), self.__getstate__()

    if (cls, own) in _ADOPTED:
        return _ADOPTED[cls, own]
    body = {"__reduce_ex__": __reduce_ex__, "__module__": cls.__module__, "_adopted_from": (cls, own)}
    # of two threads that come first at once, both get one class
    return _ADOPTED.setdefault((cls, own), type(cls.__name__, (_FUSED[own], cls), body))


def _remade(cls: type[nn.Module], own: type[nn.Module]) -> nn.Module:
    """An empty module of an adopted class, for pickle and copy to fill."""
    made = _adopted(cls, own)
    module: nn.Module = made.__new__(made)
    return module
