"""Real-valued series as the data of a GAN."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .... import data as sources
from .... import drawing
from ....data import Innovations, Series, Whitening
from ....data.files import sound
from ....data.innovations import DITHER, FLOOR
from ....metrics import (
    AutoregressiveFit,
    GaussianFit,
    PostHoc,
    discriminative_score,
    judged,
    log_spectral_distance,
    predictive_score,
    series_errors,
)
from ....models import GAN, RecurrentGAN
from ....models.gan.recurrent import SequenceCritic
from ... import config, files
from ..fingerprint import fingerprint_of
from ..room import check_drawn
from .moments import Moments
from .options import GanData, GanMeasuring, GanModel, GanSampling
from .source import AT_ONCE, Source, as_csv, as_npy, as_wav, beginnings, draw
from .units import units_of

# By (steps, stride); some are drawn anew for each length, so that no stride is theirs.
READERS: dict[str, Callable[[int, int], Series]] = {
    "prices": sources.share_prices,
    "eeg": sources.eeg,
    "watch": sources.watch,
    "sines": lambda steps, stride: sources.sines(steps),
    "tones": lambda steps, stride: sources.tones(steps),
}
SOUNDS = ("tones",)  # by name; other sounds are files
_DRAWN = "sines", "tones"
AR = 16  # steps of the autoregressive fit of sounds

EXAMPLES = "examples.npy"
_VALUE = 200  # bytes of a drawn value: as it is drawn, in the data's units, in .npy and in .csv
MEASURED = 10_000  # windows that measures look at, at most
FITTED = 10_000  # windows, evenly spaced, that the form of the data is fitted to, at most
MANY = 50_000  # windows of sounds, from which a larger stride loses nothing


@dataclass
class Sequences(Source):
    """Windows of real-valued series, learnt as innovations, whitened or as they are (in [-1, 1])."""

    kind: ClassVar[str] = "series"
    fewest: ClassVar[int] = 5  # of `discriminative_score`
    name: str
    steps: int
    features: tuple[str, ...]
    low: Tensor
    high: Tensor
    form: Innovations | Whitening | None
    classes: tuple[str, ...] = ()
    rate: int | None = None  # of sounds, in hertz
    series: Series | None = None
    stride: int = 1
    examples: Tensor | None = None  # [T, n, F], in the units of the data, NaN past a sequence's end

    def __post_init__(self):
        if self.series is not None:
            own, lengths = self.series.values, self.series.lengths
            self._values = own if self.form is None else self.form(own, lengths)
            self.examples = _some(self.series)

    @classmethod
    def read(cls, name: str, options: GanData, argument: str, folder: Path | None) -> "Sequences":
        if name in _DRAWN and options.stride != 1:
            raise ValueError(
                f"stride: {name} are drawn one by one, not cut from a recording, got {options.stride}"
            )
        series = _read(name, options, argument)
        try:
            form = _kept(folder) if folder and (folder / "data.json").exists() else _fitted(series, options)
        except ValueError as error:
            raise ValueError(f"{argument}: {name}: {error}") from error
        return cls(
            name,
            options.length,
            series.features,
            series.low,
            series.high,
            form=form,
            classes=series.classes,
            rate=series.rate,
            series=series,
            stride=options.stride,
        )

    @classmethod
    def revive(cls, content: Mapping[str, Any], folder: Path) -> "Sequences":
        return cls(
            content["name"],
            content["steps"],
            tuple(content["features"]),
            low=torch.tensor(content["low"], dtype=torch.float64),
            high=torch.tensor(content["high"], dtype=torch.float64),
            form=_form_of(content),
            classes=tuple(content.get("classes", ())),
            rate=content.get("rate"),
            examples=_read_examples(folder / EXAMPLES),
        )

    def describe(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "features": list(self.features),
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "classes": list(self.classes),
            "rate": self.rate,
            **{
                name: self.form.to_json() if isinstance(self.form, each) else None
                for name, each in _FORMS.items()
            },
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
        """How the data were read; at last how many windows there are."""
        if self.series is None:
            return ()
        told = f"{len(self):,} windows of {self.steps} steps"
        if self.is_sound and len(self) > MANY:
            told += f", one every {self.stride} (--stride, which may be larger for sounds)"
        return (*self.series.notes, told)

    @property
    def _series(self) -> Series:
        assert self.series is not None, "of this source only the description is known"
        return self.series

    def __len__(self) -> int:
        return len(self._series)

    def check_enough(self, cut: GanData, usual: int) -> None:
        if not self._series.recordings:
            super().check_enough(cut, usual)
        else:
            self._check_windows(cut, usual, self._series.recordings, "rows" if self.rate is None else "steps")

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        own = {"real": self._values[:, index]}
        besides = {"lengths": self._series.lengths, "labels": self._series.labels}
        return own | {name: x[index] for name, x in besides.items() if x is not None}

    def fingerprint(self) -> str:
        return fingerprint_of(self._series.values)

    def model(self, options: GanModel) -> GAN:
        features = len(self.features if self.form is None else self.form)
        if options.residual and self.form is None:
            raise ValueError("residual: noise of deviation 1 is not of values in [-1, 1]; give --whiten")
        levels = None
        if options.levels:
            if not isinstance(self.form, Innovations):
                raise ValueError(
                    "levels: only innovations add up to something; give --innovations or --no-levels"
                )
            with torch.device("cpu"):  # of numbers that are there, also where a model is only counted
                levels = self.form.levels_of(self.steps)
        return RecurrentGAN(
            features,
            steps=self.steps,
            noise_size=options.noise + (2 * features if options.residual else 0),
            shared=options.noise if options.residual else None,
            hidden_size=options.hidden,
            num_layers=options.layers,
            cell=options.cell,
            output="tanh" if self.form is None else "linear",
            residual=options.residual,
            bidirectional=options.bidirectional,
            levels=levels,
            num_classes=len(self.classes) if options.conditional else 0,
            spectral_norm=options.spectral_norm,
        )

    def measures(self, gan: GAN, how: GanMeasuring, *, full: bool) -> dict[str, float]:
        part = _measured(len(self), how.seed)
        real = self._series.values[:, part]
        lengths, labels = (
            None if x is None else x[part] for x in (self._series.lengths, self._series.labels)
        )
        random = torch.Generator().manual_seed(how.seed)
        asked = labels if gan.num_classes else None
        fake = self._scaled(draw(gan, len(part), random, labels=asked, lengths=lengths), lengths)
        besides: dict[str, Any] = {"real_lengths": lengths, "fake_lengths": lengths}
        if not full:
            quick = PostHoc(steps=how.score_steps)
            score = discriminative_score(real, fake, **besides, options=quick, seed=how.seed)
            return {f"discriminative score ({how.score_steps} steps)": score}
        contestants = {"": fake}
        if how.beside:
            if lengths is None:
                fit = GaussianFit(real.movedim(1, 0)).sample(len(part), random)
                contestants[" of a Gaussian fit"] = fit.movedim(0, 1)
                if self.is_sound:
                    drawn = AutoregressiveFit(real, AR).sample(len(part), random)
                    contestants[f" of an AR({AR}) fit"] = drawn
            contestants[" of the data"] = real
        measured = _judged if how.judges else _scored
        found = measured(real, contestants, besides, how, self.told)
        if self.is_sound and lengths is None and self.steps > 1:
            for whose, each in contestants.items():
                if each is not real:
                    found[f"log-spectral distance{whose}"] = log_spectral_distance(real, each)
        return found

    @property
    def is_sound(self) -> bool:
        """Whether the series are sounds, which have spectra."""
        return is_sound(self.name)

    def moments(self, gan: GAN, steps: int | None = None) -> Moments:
        critic = gan.discriminator
        values, lengths = beginnings(self._values, self._series.lengths, steps)
        assert isinstance(critic, SequenceCritic)
        like = next(gan.parameters())
        return Moments(values.to(like), None if lengths is None else lengths.to(like.device), critic.levels)

    def drawn(self, gan: GAN, how: GanSampling) -> dict[str, str | bytes]:
        random = torch.Generator().manual_seed(how.seed)
        steps = how.length or self.steps
        self._check_room(gan, how)
        labels = self.asked(how) if gan.num_classes else None
        drawn = draw(gan, how.count, random, labels=labels, truncation=how.truncation, steps=steps)
        scaled = self._scaled(drawn, None)
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
        values = values.movedim(1, 0)
        found: dict[str, str | bytes] = {".png": drawing.png(figure), ".npy": as_npy(values)}
        if self.rate is None:
            return found | {".csv": as_csv(values, self.features)}
        return found | {".wav": as_wav(values, self.rate)}

    def _check_room(self, gan: GAN, how: GanSampling) -> None:
        """Raises ValueError, naming the option, for more than fits in memory."""
        assert isinstance(gan, RecurrentGAN)
        values = _VALUE * len(self.features)
        rnn = gan.generator.rnn
        assert isinstance(rnn, nn.RNNBase)
        # Of each of those that are drawn at once: noise in three copies, outputs, values in eight.
        working = 4 * (3 * (gan.noise_size + gan.num_classes) + 4 * rnn.hidden_size + 8 * gan.features)

        def cost(count: int, length: int) -> float:
            return length * (count * values + min(count, AT_ONCE) * working)

        asked = {"count": how.count, "length": how.length or self.steps}
        check_drawn(cost, asked, {"count": GanSampling().count, "length": self.steps})

    def _scaled(self, drawn: Tensor, lengths: Tensor | None) -> Tensor:
        return drawn if self.form is None else self.form.inverse(drawn, lengths)


def is_sound(name: str) -> bool:
    """Whether data of that name are sounds."""
    return name in SOUNDS or (name not in READERS and sound.is_sound(name))


def _scored(
    real: Tensor,
    contestants: Mapping[str, Tensor],
    besides: Mapping[str, Any],
    how: GanMeasuring,
    told: Callable[[str, int, int], None],
) -> dict[str, float]:
    """The paper's scores, each the mean of --repeats networks; data are not told from themselves."""
    options, seeds = PostHoc(steps=how.score_steps), range(how.seed, how.seed + how.repeats)
    asked = [
        (f"{name}{whose}", score, each, seed)
        for name, score in _SCORES.items()
        for whose, each in contestants.items()
        if score is predictive_score or each is not real
        for seed in seeds
    ]
    found: dict[str, list[float]] = {}
    for number, (name, score, each, seed) in enumerate(asked):
        told(name, number, len(asked))
        found.setdefault(name, []).append(score(real, each, **besides, options=options, seed=seed))
    return {name: _mean(scores) for name, scores in found.items()}


def _judged(
    real: Tensor,
    contestants: Mapping[str, Tensor],
    besides: Mapping[str, Any],
    how: GanMeasuring,
    told: Callable[[str, int, int], None],
) -> dict[str, float]:
    """Scores by so many judges as --judges says, with their spread, and errors that need none."""
    found: dict[str, float] = {}
    for number, (whose, each) in enumerate(contestants.items()):
        told(f"{how.judges} judges' scores{whose}", number, len(contestants))
        scores = judged(real, each, **besides, judges=how.judges, seed=how.seed, steps=how.score_steps)
        for name, score in scores.items():
            found[f"{name}{whose}"] = score.mean
            found[f"{name}{whose}, deviation"] = score.deviation
        if each is not real:
            found |= {f"{name}{whose}": x for name, x in series_errors(real, each, **besides).items()}
    return found


_SCORES: dict[str, Callable[..., float]] = {
    "discriminative score": discriminative_score,
    "predictive score": predictive_score,
}
_FORMS: dict[str, Any] = {"whitening": Whitening, "innovations": Innovations}


def _read(name: str, options: GanData, argument: str) -> Series:
    try:
        if name in READERS:
            return READERS[name](options.length, options.stride)
        return sources.read_series(
            name,
            options.length,
            options.stride,
            argument=argument,
            delimiter=options.delimiter,
            decimal=options.decimal,
            header=None if options.header is None else options.header == "yes",
            column=None if options.column == "image" else options.column,  # the default is for images
        )
    except ValueError as error:
        part, _, said = str(error).partition(":")
        called = {"steps": "length", "recordings": f"{argument}: {name}"}  # as people know them
        if part not in called:
            raise
        raise ValueError(f"{called[part]}:{said}") from error


def _form_of(content: Mapping[str, Any]) -> Innovations | Whitening | None:
    """That which data.json keeps."""
    found = (each.from_json(content[name]) for name, each in _FORMS.items() if content.get(name))
    return next(found, None)


def _kept(folder: Path) -> Innovations | Whitening | None:
    """The form that a run began with: what its model makes has no other. Raises ValueError."""
    try:
        return _form_of(config.read_json(folder / "data.json", "folder"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'data.json'} does not describe data: {error}") from error


def _fitted(series: Series, options: GanData) -> Innovations | Whitening | None:
    values, lengths = series.values, series.lengths
    if len(series) > FITTED:  # of sounds most windows share all but a step with the next
        index = torch.linspace(0, len(series) - 1, FITTED, dtype=torch.float64).long()
        values, lengths = values[:, index], None if lengths is None else lengths[index]
    if options.innovations:
        auto = options.forecasts == "auto"
        return Innovations.fit(
            values,
            lengths,
            least=series.low,
            most=series.high,
            floor=None if auto else FLOOR,
            curved=None if auto else False,
            dither=DITHER if auto else 0.0,
        )
    return Whitening.fit(values, lengths) if options.whiten else None


def _measured(count: int, seed: int) -> Tensor:
    """Which windows are measured on: all, or so many by lot."""
    if count <= MEASURED:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:MEASURED].sort().values


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
