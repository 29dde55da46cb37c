"""What is learnt (`Task`), from what (`Batches`), and what takes turns in a step (`Turn`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from .options import Options
from .watching.divergence import DivergenceWatch
from .watching.watch import Watch
from .workers import Shard

# A loss to minimise, or several numbers by name of which the first is minimised and the others are logged.
Losses = Tensor | Mapping[str, Tensor]


class Batches(Protocol):
    """The training data of one part of the batch, without end, from a position that can be saved.

    Where the position means the same to every part, a run may go on with another number of them; where it
    does not, `load_state_dict` raises ValueError for that of another part.
    """

    def __next__(self) -> tuple[Any, bool]:
        """The next batch, and whether what is carried from step to step begins anew with it."""

    def state_dict(self) -> dict[str, Any]:
        """The position: numbers, text, tensors, and lists and dicts of them."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a position that ``state_dict`` gave. Raises ValueError for one of another part."""


@dataclass(frozen=True)
class Turn:
    """What is trained by one loss and one optimiser. Most tasks have one; a GAN's networks take turns.

    module: what the optimiser moves. loss: (module, batch, carried) -> (losses, carried), as `Task.loss`;
    whatever else it uses must receive no gradient. every: only in each so-many-th step. rate: times the
    learning rate. optimizer: (module, lr) -> optimiser.

    name: for the log. Losses are float scalars.
    """

    name: str
    module: nn.Module
    loss: Callable[[nn.Module, Any, Any], tuple[Losses, Any]]
    every: int = 1
    rate: float = 1.0
    optimizer: Callable[[nn.Module, float], torch.optim.Optimizer] | None = None


def nothing(what: str, done: int, parts: int) -> None:
    """Says nothing of the part of a measure that comes next."""


class Task(Protocol):
    """What is learnt, and from what. It holds nothing that training moves but the model's weights.

    A class that derives from this has to give `model`, `data`, `loss` and `evaluate`; for the command line
    also `options`, `from_options` and `sample`.

    options: its option classes by section, "model" and "data" usually; a "fit" there replaces FitOptions.
    sampling: how it is asked for a sample; measuring: for all of its measures. better: whether "lower" or
    "higher" is, in its first measure. skipped: what of the data was left out, and why.
    notes: how the data were read, where that is not plain; learns: how it learns, likewise. curves: whether
    a run draws its curves, which takes matplotlib. reads: what a step of the whole batch reads, (how many,
    of what), for the speed. weights: names of the options that say how many weights the model has. sizes: of
    all that say how much memory training, a sample or a measure takes, those among them; an error names them.
    measuring_part: called while measures are taken, before each part, with what it is, how many parts are
    done and of how many.
    """

    options: ClassVar[dict[str, type[Options]]]
    sampling: ClassVar[type[Any]]
    measuring: ClassVar[type[Any]] = Options
    better: ClassVar[str] = "lower"
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    learns: tuple[str, ...] = ()
    curves: ClassVar[bool] = False
    reads: tuple[int, str] | None = None
    weights: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    measuring_part: Callable[[str, int, int], None] = staticmethod(nothing)

    model: nn.Module

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        """Defaults that follow from other options, by section and name. given: those asked for, by name."""
        return {}

    @classmethod
    def from_options(
        cls, sections: Mapping[str, Any], folder: Path | None, *, data: bool = True, argument: str = "data"
    ) -> "Task":
        """The task with a new model, its weights from torch's global random numbers.

        folder: of the run, where a vocabulary and the like are kept: read where they are there, written where
        not; None keeps nothing. data=False: the data are not to be touched (for sampling).
        Raises OSError or ValueError, naming `argument`, for data that cannot be used.
        """

    def data(self, shard: Shard) -> Batches:
        """The training data of one part. Raises ValueError where the batch does not divide so."""

    def loss(self, model: Any, batch: Any, carried: Any) -> tuple[Losses, Any]:
        """The loss, a mean over the batch, and what the next step may start from, detached.

        What is carried: None, or a recurrent state: a tensor [layers, B, ...] or a tuple of them.
        """

    def evaluate(self, model: Any = None) -> dict[str, float]:
        """Measures of `model` (or the task's own) on held-out data by name, the one that matters first."""

    def measure(self, how: Any) -> dict[str, float]:
        """All measures of the task's own model, for `fusegen evaluate`; `how` is a `measuring`."""
        return self.evaluate()

    @classmethod
    def variants(cls) -> Mapping[str, Mapping[str, Any]]:
        """What it is told by which defaults differ, as `presets` takes it, by the name that help has for it;
        the usual one, which has none, first."""
        return {"": {}}

    def told_of(self, how: Any) -> tuple[str, ...]:
        """Lines about how `measure` measures, where its names do not tell."""
        return ()

    def turns(self) -> tuple[Turn, ...]:
        """What is trained in a step, in order."""
        return (Turn("model", self.model, self.loss),)

    def at(self, step: int, steps: int) -> None:
        """Told before step `step` (from 0) of `steps`: for what changes on the way, such as a KL weight."""

    def watch(self, *, stop_when_diverged: bool = False) -> Watch:
        """A new eye on a run of this task. stop_when_diverged: whether a divergence is to end the run."""
        return DivergenceWatch(self.better, stop=stop_when_diverged)

    def sample(self, how: Any, model: Any = None) -> dict[str, str | bytes]:
        """Samples by file suffix: text under ".txt", a picture's bytes under ".png"."""

    @classmethod
    def idle(cls, sections: Mapping[str, Any]) -> Mapping[str, str]:
        """Options that change nothing beside the others in `sections`, by name, each with the reason. One
        that was asked for is refused: no option is ignored."""
        return {}

    def idle_in(self, how: Any) -> Mapping[str, str]:
        """The same of a `sampling` or a `measuring`, for this run."""
        return {}

    def fingerprint(self) -> str | None:
        """Changes when the data do; None: unknown. A run is resumed on the data it began with only."""
        return None
