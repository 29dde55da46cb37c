"""The eye on a GAN while it trains: it keeps the series that the rules of `signals` read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....models import GAN
from ...watching.watch import Watch
from . import signals
from .diversity import diversity_of
from .signals import BLOCK, WINDOW, Diversity, Signal
from .source import Source

JUDGED = 50  # steps, of the rules on losses
GRADIENT = "generator gradient norm"
_SERIES = ("real sign", "real logit", "fake logit", GRADIENT)
_LOGITS_PART_AT_0 = ("non_saturating", "minimax", "hinge")


class GanWatch(Watch):
    """What it reads are losses that are read anyway, and at each evaluation the diversity of some samples.

    loss: of both networks. steps: of the whole run. stop: whether a collapse ends the run. warm_up: first
    steps, in which no gradient of the discriminator's reaches the generator.
    """

    def __init__(self, source: Source, loss: str, steps: int, *, stop: bool, warm_up: int = 0):
        self._source, self._loss, self._steps, self._stop = source, loss, steps, stop
        self._warm_up = warm_up
        self._blocks: dict[str, list[float]] = {name: [] for name in _SERIES}
        self._open: dict[str, list[float]] = {name: [] for name in _SERIES}
        self._early: list[float] = []  # of the generator's gradient, from the second window
        self._evaluations: list[list[float]] = []  # precision, recall, spread of each
        self._measures: list[float] = []
        self._untrained: list[float] = []  # [the measure before the first step], once it is known
        self._standing: dict[str, str] = {}
        self._said: list[str] = []
        self._logged: list[str] = []
        self._news: list[Signal] = []

    def losses(self, step: int, losses: Mapping[str, float]) -> None:
        for name in _SERIES:
            if name in losses and (name != GRADIENT or step > self._warm_up):
                self._open[name].append(losses[name])
        if step % BLOCK == 0:
            self._close_blocks()
        if step % JUDGED == 0:
            self._judge(
                signals.overfitted(self._blocks["real sign"]) if self._loss in _LOGITS_PART_AT_0 else None,
                signals.OVERFITTED,
            )
            self._judge(signals.vanishing(self._early, self._blocks[GRADIENT]), signals.VANISHING)
            self._judge(
                signals.oscillating(self._blocks["real logit"], self._blocks["fake logit"])
                or signals.swinging(self._measures),
                signals.OSCILLATION,
            )

    def _close_blocks(self) -> None:
        for name, values in self._open.items():
            if values:
                self._blocks[name].append(sum(values) / len(values))
                values.clear()
        norms = self._blocks[GRADIENT]
        if len(norms) == 2 * WINDOW and not self._early:
            self._early = norms[WINDOW:]
        for own in self._blocks.values():
            del own[: -signals.CYCLES]

    def look(self, model: GAN) -> dict[str, float]:
        return diversity_of(self._source, model)

    def measured(self, step: int, measure: float, looked: Mapping[str, float]) -> None:
        if step == 0:  # of a model that has learnt nothing
            self._untrained = [measure]
            return
        self._measures = [*self._measures, measure][-signals.SWINGS - 1 :]
        if looked:
            self._evaluations.append([looked[name] for name in ("precision", "recall", "spread")])
        found = [Diversity(*each) for each in self._evaluations]
        learnt = not self._untrained or signals.learnt(self._untrained[0], measure)
        self._judge(signals.collapsed(found, step / self._steps, learnt), signals.COLLAPSE)

    def _judge(self, found: Signal | None, name: str) -> None:
        if found is None:
            self._standing.pop(name, None)
            return
        self._standing[name] = found.told
        if name not in self._said:
            self._said.append(name)
            self._news.append(found)

    @property
    def standing(self) -> tuple[str, ...]:
        return tuple(self._standing)

    @property
    def stops(self) -> str | None:
        return self._standing.get(signals.COLLAPSE) and signals.COLLAPSE if self._stop else None

    def news(self) -> list[str]:
        said = [f"{signal.name}: {signal.told}" for signal in self._news]
        self._news.clear()
        return said

    def logged(self) -> dict[str, float]:
        ended = [name for name in self._logged if name not in self._standing]
        self._logged = list(self._standing)
        return {f"signal: {name}": float(name in self._standing) for name in (*self._standing, *ended)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "blocks": {name: list(own) for name, own in self._blocks.items()},
            "open": {name: list(own) for name, own in self._open.items()},
            "early": list(self._early),
            "evaluations": [list(each) for each in self._evaluations],
            "measures": list(self._measures),
            "untrained": list(self._untrained),
            "standing": dict(self._standing),
            "said": list(self._said),
            "logged": list(self._logged),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():  # {} of a checkpoint of before there was a watch
            setattr(self, f"_{name}", value)
