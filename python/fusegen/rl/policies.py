"""sb3-contrib's recurrent policies with fusegen's layers."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from torch import Tensor, nn

from ..nn.convert import convert
from .rows import run

P = TypeVar("P")


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
