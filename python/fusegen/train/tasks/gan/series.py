"""Real-valued series as the data of a GAN."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .... import data as sources
from .... import drawing
from ....data import Series, Whitening
from ....metrics import GaussianFit, PostHoc, discriminative_score, predictive_score
from ....models import GAN, RecurrentGAN
from ... import files
from ..fingerprint import fingerprint_of
from .options import GanData, GanMeasuring, GanModel, GanSampling
from .source import Source, as_npy, draw
from .units import units_of

EXAMPLES = "examples.npy"
READERS = {"prices": sources.share_prices, "eeg": sources.eeg}


@dataclass
class Sequences(Source):
    """Windows of real-valued series, learnt whitened or as they are (in [-1, 1])."""

    kind: ClassVar[str] = "series"
    name: str
    steps: int
    features: tuple[str, ...]
    low: Tensor
    high: Tensor
    whitening: Whitening | None
    series: Series | None = None
    examples: Tensor | None = None  # [T, n, F], in the units of the data, NaN past a sequence's end

    def __post_init__(self):
        if self.series is not None:
            own, lengths = self.series.values, self.series.lengths
            self._values = own if self.whitening is None else self.whitening(own, lengths)
            self.examples = _some(self.series)

    @classmethod
    def read(cls, name: str, options: GanData, argument: str) -> "Sequences":
        if name in READERS:
            series = READERS[name](options.length, options.stride)
        else:
            series = sources.read_series(name, options.length, options.stride, argument=argument)
        try:
            whitening = Whitening.fit(series.values, series.lengths) if options.whiten else None
        except ValueError as error:
            raise ValueError(f"{argument}: {name}: {error}") from error
        return cls(
            name,
            options.length,
            series.features,
            series.low,
            series.high,
            whitening=whitening,
            series=series,
        )

    @classmethod
    def revive(cls, content: Mapping[str, Any], folder: Path) -> "Sequences":
        kept = content["whitening"]
        return cls(
            content["name"],
            content["steps"],
            tuple(content["features"]),
            low=torch.tensor(content["low"], dtype=torch.float64),
            high=torch.tensor(content["high"], dtype=torch.float64),
            whitening=None if kept is None else Whitening.from_json(kept),
            examples=_read_examples(folder / EXAMPLES),
        )

    def describe(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "features": list(self.features),
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "whitening": None if self.whitening is None else self.whitening.to_json(),
        }

    def keep(self, folder: Path) -> None:
        super().keep(folder)
        if self.examples is not None:
            files.write(folder / EXAMPLES, as_npy(self.examples.movedim(1, 0)))

    @property
    def skipped(self) -> tuple[str, ...]:
        return self.series.skipped if self.series is not None else ()

    @property
    def notes(self) -> tuple[str, ...]:
        return self.series.notes if self.series is not None else ()

    @property
    def _series(self) -> Series:
        assert self.series is not None, "of this source only the description is known"
        return self.series

    def __len__(self) -> int:
        return len(self._series)

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        own = {"real": self._values[:, index]}
        return own if self._series.lengths is None else own | {"lengths": self._series.lengths[index]}

    def fingerprint(self) -> str:
        return fingerprint_of(self._series.values)

    def model(self, options: GanModel) -> GAN:
        return RecurrentGAN(
            len(self.features if self.whitening is None else self.whitening),
            steps=self.steps,
            noise_size=options.noise,
            hidden_size=options.hidden,
            num_layers=options.layers,
            cell=options.cell,
            output="tanh" if self.whitening is None else "linear",
            spectral_norm=options.spectral_norm,
        )

    def measures(self, gan: GAN, how: GanMeasuring, *, full: bool) -> dict[str, float]:
        real, lengths = self._series.values, self._series.lengths
        random = torch.Generator().manual_seed(how.seed)
        fake = self._scaled(draw(gan, len(self), random, lengths=lengths), lengths)
        besides: dict[str, Any] = {"real_lengths": lengths, "fake_lengths": lengths}
        if not full:
            quick = PostHoc(steps=how.score_steps)
            score = discriminative_score(real, fake, **besides, options=quick, seed=how.seed)
            return {f"discriminative score ({how.score_steps} steps)": score}
        contestants = {"": fake}
        if lengths is None:
            fit = GaussianFit(real.movedim(1, 0)).sample(len(self), random)
            contestants[" of a Gaussian fit"] = fit.movedim(0, 1)
        seeds = range(how.seed, how.seed + how.repeats)
        options = PostHoc(steps=how.score_steps)
        found = {
            f"discriminative score{whose}": _mean(
                discriminative_score(real, each, **besides, options=options, seed=seed) for seed in seeds
            )
            for whose, each in contestants.items()
        }
        for whose, each in {**contestants, " of the data": real}.items():
            found[f"predictive score{whose}"] = _mean(
                predictive_score(real, each, **besides, options=options, seed=seed) for seed in seeds
            )
        return found

    def drawn(self, gan: GAN, how: GanSampling) -> dict[str, str | bytes]:
        random = torch.Generator().manual_seed(how.seed)
        steps = how.length or self.steps
        scaled = self._scaled(draw(gan, how.count, random, truncation=how.truncation, steps=steps), None)
        values = self.low + (scaled.double() + 1) / 2 * (self.high - self.low)
        told = units_of(self.name, self.features)
        figure = drawing.series_figure(
            values,
            self.examples,
            features=self.features,
            units=told.features,
            step=told.step,
            source=f"the data: {Path(self.name).name}",
        )
        return {".png": drawing.png(figure), ".npy": as_npy(values.movedim(1, 0))}

    def _scaled(self, drawn: Tensor, lengths: Tensor | None) -> Tensor:
        return drawn if self.whitening is None else self.whitening.inverse(drawn, lengths)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def _some(series: Series) -> Tensor:
    """Windows evenly over the data, as many as are drawn."""
    index = torch.linspace(0, len(series) - 1, min(drawing.LINES, len(series))).long()
    values = series.original(series.values[:, index])
    if series.lengths is not None:
        past = torch.arange(len(values))[:, None] >= series.lengths[index]
        values[past] = torch.nan
    return values


def _read_examples(path: Path) -> Tensor | None:
    """What `keep` wrote; None in a run of before that."""
    if not path.exists():
        return None
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False)).movedim(1, 0)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} does not hold a run's examples: {error}") from error
