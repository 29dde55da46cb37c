"""Training that diverges: losses, or the measure, worse than those of the model before it learnt anything.

No source is known for the thresholds, which are ours: a run that only fails to learn stays near where it
began, a batch differs from the next by a tenth or so, and what a learning rate that is too high does is
larger by orders of magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from .telling import figure
from .watch import Watch

DIVERGED = "divergence"
STEPS = 5  # whose losses are averaged
FALLEN = 0.05  # the share by which a loss is lower that has fallen

_HELP = "a lower --lr, or a smaller --clip, may help"


@dataclass(frozen=True)
class Limits:
    """How far is too far. loss: the share of the untrained model's by which the loss is worse, and `above` on
    top of it; measure: the same of the measure, and `noise` on top of it, which it may change by without a
    reason. both: whether the measure counts only where the loss has not
    fallen: a model that knows its few samples by heart may be far worse on others than one that
    knows nothing, and has not diverged."""

    loss: float = 0.5
    above: float = 0.0
    measure: float = 0.5
    noise: float = 0.0
    both: bool = True


# The losses of two networks that play against each other go up and down, and do not tell how far they are.
OF_TURNS = Limits(loss=100.0, above=100.0, measure=1.0, both=False)
# A discriminative score lies between 0 and 0.5, and of one judge is off by up to 0.05 either way.
OF_SERIES = Limits(loss=100.0, above=100.0, measure=1.0, noise=0.1, both=False)


class DivergenceWatch(Watch):
    """Says when the mean loss of the last `STEPS` steps, or the measure, is worse than before the first step
    by more than the limits.

    better: whether "lower" or "higher" is, in the measure. stop: whether a divergence ends the run.
    """

    def __init__(self, better: str = "lower", *, stop: bool = False, limits: Limits | None = None):
        self._sign, self._stop, self._limits = -1 if better == "higher" else 1, stop, limits or Limits()
        self._first: list[float] = []  # [the loss of the untrained model], once it is known
        self._untrained: list[float] = []  # [its measure]
        self._last: list[float] = []  # losses
        self._by_loss = self._by_measure = ""
        self._said = self._logged = False

    def losses(self, step: int, losses: Mapping[str, float]) -> None:
        loss, limits = next(iter(losses.values())), self._limits
        if step == 1:
            self._first = [loss]
        self._last = [*self._last, loss][-STEPS:]
        if not self._first or len(self._last) < STEPS:
            return
        now, first = fmean(self._last), self._first[0]
        diverges = now - first > limits.loss * abs(first) + limits.above
        told = f"the loss is {figure(now)} over {STEPS} steps, {figure(first)} before training"
        self._by_loss = told if diverges else ""

    def measured(self, step: int, measure: float, looked: Mapping[str, float]) -> None:
        if step == 0:
            self._untrained = [measure]
        if not (step and self._untrained and self._first and self._last):
            return
        before, limits = self._untrained[0], self._limits
        diverges = self._sign * (measure - before) > limits.measure * abs(before) + limits.noise
        if limits.both:
            first = self._first[0]
            diverges = diverges and first - fmean(self._last) <= FALLEN * abs(first)
        told = f"the measure is {figure(measure)}, {figure(before)} before training"
        self._by_measure = told if diverges else ""

    @property
    def _told(self) -> str:
        return self._by_loss or self._by_measure

    @property
    def standing(self) -> tuple[str, ...]:
        return (DIVERGED,) if self._told else ()

    @property
    def stops(self) -> str | None:
        return DIVERGED if self._stop and self._told else None

    def news(self) -> list[str]:
        if not self._told or self._said:
            return []
        self._said = True
        return [f"{DIVERGED}: {self._told}; {_HELP}"]

    def logged(self) -> dict[str, float]:
        stands = bool(self._told)
        ended, self._logged = self._logged and not stands, stands
        return {f"signal: {DIVERGED}": float(stands)} if stands or ended else {}

    def state_dict(self) -> dict[str, Any]:
        return {name.lstrip("_"): value for name, value in vars(self).items() if name not in _GIVEN}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():  # {} of a checkpoint of before there was this watch
            setattr(self, f"_{name}", value)


_GIVEN = ("_sign", "_stop", "_limits")  # options, which are no state


class Watches(Watch):
    """Several of them as one. The state of the first lies beside those of the others, as in a run that had
    no others."""

    def __init__(self, first: Watch, **others: Watch):
        self._others = others
        self._watches: dict[str, Watch] = {"": first, **others}

    @property
    def standing(self) -> tuple[str, ...]:
        return tuple(name for each in self._watches.values() for name in each.standing)

    @property
    def stops(self) -> str | None:
        return next((each.stops for each in self._watches.values() if each.stops), None)

    def losses(self, step: int, losses: Mapping[str, float]) -> None:
        for each in self._watches.values():
            each.losses(step, losses)

    def look(self, model: Any) -> dict[str, float]:
        return {name: x for each in self._watches.values() for name, x in each.look(model).items()}

    def measured(self, step: int, measure: float, looked: Mapping[str, float]) -> None:
        for each in self._watches.values():
            each.measured(step, measure, looked)

    def news(self) -> list[str]:
        return [line for each in self._watches.values() for line in each.news()]

    def logged(self) -> dict[str, float]:
        return {name: x for each in self._watches.values() for name, x in each.logged().items()}

    def state_dict(self) -> dict[str, Any]:
        return self._watches[""].state_dict() | {name: w.state_dict() for name, w in self._others.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._watches[""].load_state_dict({name: x for name, x in state.items() if name not in self._others})
        for name, each in self._others.items():
            each.load_state_dict(state.get(name, {}))
