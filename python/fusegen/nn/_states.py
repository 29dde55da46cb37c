"""The states of a stack of layers: cut from the graph, and those of its last steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

S = TypeVar("S")

Run = Callable[[slice, Sequence[Tensor | None], Tensor | None], tuple[Tensor, ...]]


def detach(state: S) -> S:
    """A state, h or (h, c) as layers and cells give it, or any tuple or list of states, named ones too,
    without its graph: what the next window of truncated backpropagation begins with. None stays None.

    Raises TypeError for anything else.
    """
    made: Any
    if isinstance(state, Tensor):
        made = state.detach()
    elif isinstance(state, PackedSequence):
        made = state._replace(data=state.data.detach())
    elif isinstance(state, tuple) and hasattr(state, "_make"):  # a namedtuple
        made = state._make(map(detach, state))
    elif isinstance(state, (tuple, list)):
        made = type(state)(map(detach, state))
    elif state is None:
        made = None
    else:
        raise TypeError(f"detach: expected a state, a Tensor or a tuple of them, got {type(state).__name__}")
    return made  # type: ignore[no-any-return]


def check_last(what: str, last: Any, T: int, bidirectional: bool) -> None:
    """Raises TypeError or ValueError where the states of the last steps cannot be had."""
    if isinstance(last, bool) or not isinstance(last, int):
        raise TypeError(f"{what}: expected last as an int, got {type(last).__name__}")
    if not 1 <= last <= T:
        raise ValueError(f"{what}: expected last in 1..{T} (the number of steps), got {last}")
    if bidirectional:
        raise ValueError(
            f"{what}: expected last=None of a bidirectional layer, whose reverse direction has not begun at "
            "a step before the end"
        )


def run_to_last(
    run: Run, T: int, states: Sequence[Tensor | None], lengths: Tensor | None, last: int
) -> tuple[Tensor, ...]:
    """y [T, B, P], and each state after the last ``last`` of T steps [last, L, B, n]. ``run(steps, states,
    lengths)`` runs a part of them."""
    ys, given = [], []
    for begin, end in [(0, T - last + 1), *((t, t + 1) for t in range(T - last + 1, T))]:
        within = None if lengths is None else (lengths - begin).clamp(0, end - begin)
        y, *states = run(slice(begin, end), states, within)
        ys.append(y)
        given.append(states)
    return torch.cat(ys), *(torch.stack([*s]) for s in zip(*given, strict=True))
