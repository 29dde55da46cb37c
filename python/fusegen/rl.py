"""Reinforcement learning: recurrent policies whose episodes end inside a batch, on the layers' ``resets=``.

sb3-contrib's and cleanrl's recurrent PPO hold a batch as rows [T*B, F], states, and a flag a row where an
episode starts, and run a layer step by step wherever there is one. Here the whole batch is one call of the
kernels.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from torch import Tensor, nn

from .nn.convert import convert

P = TypeVar("P")


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
    Raises ValueError where rows and flags do not fit the states.
    """
    B = (states if isinstance(states, Tensor) else states[0]).shape[1]
    n = features.shape[0]
    if features.dim() != 2 or B == 0 or n % B:
        raise ValueError(
            f"rl.run: expected rows of features, a multiple of the {B} sequences of the states, got "
            f"{tuple(features.shape)}"
        )
    if starts.numel() != n:
        raise ValueError(f"rl.run: expected a flag for each of {n} rows, got starts of {tuple(starts.shape)}")
    x, at = features, starts.reshape(n) != 0
    x, at = (
        t.unflatten(0, (B, -1)).transpose(0, 1) if batch_first else t.unflatten(0, (-1, B)) for t in (x, at)
    )
    y, states = layer(x, states, resets=at)
    return (y.transpose(0, 1) if batch_first else y).flatten(0, 1), states


def fused_policy(policy: type[P]) -> type[P]:
    """A subclass of one of sb3-contrib's recurrent policies (``MlpLstmPolicy``, ``CnnLstmPolicy``,
    ``MultiInputLstmPolicy``, or one derived from them) with fusegen's LSTMs: for ``RecurrentPPO`` in its
    place. Parameters and checkpoints are the same. The same class for the same policy.

    Raises TypeError for what is no such policy.
    """
    if not isinstance(policy, type) or not hasattr(policy, "_process_sequence"):
        raise TypeError(f"rl.fused_policy: expected a recurrent policy class of sb3-contrib, got {policy!r}")
    made: type[P] = _fused_policy(policy)  # type: ignore[arg-type]
    return made


@cache
def _fused_policy(policy: Any) -> Any:
    class Fused(policy):
        __doc__ = policy.__doc__

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            convert(self)

        @staticmethod
        def _process_sequence(
            features: Tensor, lstm_states: tuple[Tensor, Tensor], episode_starts: Tensor, lstm: nn.Module
        ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            y, states = run(lstm, features, lstm_states, episode_starts, batch_first=True)
            return y, states

    Fused.__name__ = Fused.__qualname__ = f"Fused{policy.__name__}"
    return Fused
