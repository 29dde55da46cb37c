"""The eye on a run, as the loop asks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Watch:
    """What has an eye on a run while it goes on, and names what goes wrong. This one sees nothing.

    It is told the same on every process of a run, in the order of the steps; `look` alone runs on the first
    only. Its state is part of a checkpoint: a resumed run says what one that never stopped would.
    """

    @property
    def standing(self) -> tuple[str, ...]:
        """The names of what is wrong now."""
        return ()

    @property
    def stops(self) -> str | None:
        """What of it shall end the run, where that was asked for."""
        return None

    def losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Told the losses of each step, once they are read from the device anyway."""

    def look(self, model: Any) -> dict[str, float]:
        """More figures of `model` at an evaluation, for the log. Takes no random numbers but its own."""
        return {}

    def measured(self, step: int, measure: float, looked: Mapping[str, float]) -> None:
        """Told the first measure of an evaluation, that before the first step among them, and what `look`
        gave."""

    def news(self) -> list[str]:
        """A line for each thing that went wrong for the first time since this was last asked."""
        return []

    def logged(self) -> dict[str, float]:
        """For the log: 1 by name for what stands, 0 for what has ended since this was last asked."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What it has to remember over a checkpoint: numbers, text, tensors, and lists and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state_dict`` gave."""
