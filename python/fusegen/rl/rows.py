"""A recurrent policy's call on rows of a batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..nn._base import Layers


def run(layer: nn.Module, features: Tensor, states: Any, starts: Tensor, *, batch_first: bool = False) -> Any:
    """A recurrent policy's call: (rows of output [T*B, P], the states after the last step).

    Args:
        layer: a ``fusegen.nn`` LSTM, GRU or RNN of one direction, over time first.
        features: rows [T*B, F], step by step as in cleanrl, or with batch_first sequence by sequence as in
            sb3-contrib; B is that of ``states``.
        states: as the layer takes them, [L, B, H] or a tuple of two.
        starts: [T*B] in the order of the rows: true, or not 0, where a row is the first of an episode, before
            which the state is set to zero.

    cleanrl's ``get_states(x, lstm_state, done)`` is ``run(self.lstm, self.network(x), lstm_state, done)``.
    Raises TypeError for another layer, or what is no tensor; ValueError for a layer of two directions or with
    batch_first, and where rows and flags do not fit the states.

    Dtypes are those of the layer; starts may be bool, integer or floating.
    """
    _check_layer(layer)
    first = states if isinstance(states, Tensor) else states[0] if isinstance(states, (tuple, list)) else None
    if not isinstance(first, Tensor) or first.dim() != 3:
        came = f"{first.dim()}-D" if isinstance(first, Tensor) else type(states).__name__
        raise TypeError(f"rl.run: expected states as the layer takes them, [L, B, H] or a pair, got {came}")
    for name, given in (("features", features), ("starts", starts)):
        if not isinstance(given, Tensor):
            raise TypeError(f"rl.run: expected {name} to be a Tensor, got {type(given).__name__}")
    B, n = first.shape[1], features.shape[0] if features.dim() else 0
    if features.dim() != 2 or B == 0 or n % B:
        raise ValueError(
            f"rl.run: expected rows of features, a multiple of the {B} sequences of the states, got "
            f"{tuple(features.shape)}"
        )
    if tuple(starts.shape) not in ((n,), (n, 1)):
        raise ValueError(
            f"rl.run: expected starts of shape ({n},), a flag for each row, got {tuple(starts.shape)}"
        )
    x, at = features, starts.reshape(n) != 0
    x, at = (
        t.unflatten(0, (B, -1)).transpose(0, 1) if batch_first else t.unflatten(0, (-1, B)) for t in (x, at)
    )
    y, states = layer(x, states, resets=at)
    return (y.transpose(0, 1) if batch_first else y).flatten(0, 1), states


def _check_layer(layer: nn.Module) -> None:
    if not isinstance(layer, Layers):
        raise TypeError(
            "rl.run: expected a layer of fusegen.nn, which fusegen.convert makes of torch.nn's, got "
            f"{type(layer).__name__}"
        )
    for option in ("batch_first", "bidirectional"):
        if getattr(layer, option):
            raise ValueError(
                f"rl.run: expected a layer with {option}=False, got {type(layer).__name__} with True"
            )
