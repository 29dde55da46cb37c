"""fusegen.convert and fusegen.revert: torch.nn's recurrent modules to fusegen's and back, in place.

A module changes its class and nothing else: it stays the same object, so Parameters, hooks, buffers, the
training flag, optimisers and every reference held elsewhere stay valid.
"""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.nn.utils import parametrize

from .cells import GRUCell, LSTMCell, RNNCell
from .gru import GRU
from .lstm import LSTM
from .rnn import RNN

_FUSED: dict[type, type] = {
    nn.RNN: RNN,
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.RNNCell: RNNCell,
    nn.LSTMCell: LSTMCell,
    nn.GRUCell: GRUCell,
}
_TORCH = {fused: own for own, fused in _FUSED.items()}


def convert(model: nn.Module) -> nn.Module:
    """Turns every torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell and GRUCell in ``model`` into fusegen's; returns
    ``model``.

    At any depth, ``model`` itself included, in place: each keeps its identity, Parameters, hooks and training
    flag, parametrized ones their parametrizations. ``isinstance(m, torch.nn.LSTM)`` is False afterwards. A
    user's own subclass of one of them may have its own idea of forward, so it is left alone and reported with
    a UserWarning. Raises TypeError if ``model`` is not a Module.
    """
    return _swap(model, _FUSED, "convert")


def revert(model: nn.Module) -> nn.Module:
    """Undoes ``convert``: turns every fusegen recurrent module in ``model`` into torch.nn's, in place."""
    return _swap(model, _TORCH, "revert")


def _swap(model: nn.Module, classes: dict[type, type], verb: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"fusegen.{verb}: expected model to be a torch.nn.Module, got {type(model).__name__}")
    left = []
    for name, m in model.named_modules():
        cls = type(m)
        if cls in classes:
            m.__class__ = classes[cls]
        elif _is_parametrized(m) and cls.__base__ in classes:
            m.__class__ = _parametrized(cls, classes[cls.__base__])
        elif isinstance(m, tuple(classes)) and not isinstance(m, torch.jit.ScriptModule):
            left.append(f"{name or '(the model itself)'} ({cls.__module__}.{cls.__qualname__})")
    if left:
        warnings.warn(
            f"fusegen.{verb} left subclasses of the recurrent modules alone: {', '.join(left)}", stacklevel=3
        )
    return model


def _is_parametrized(m: nn.Module) -> bool:
    return parametrize.is_parametrized(m) and type(m).__name__ == f"Parametrized{type(m).__base__.__name__}"


def _parametrized(cls: type, base: type) -> type:
    """The class that parametrize made for one module, with another base: its properties live in the class
    itself."""
    own = {
        k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__", "__doc__", "__module__")
    }
    return type(f"Parametrized{base.__name__}", (base,), own)
