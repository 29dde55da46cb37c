"""What a GAN learns, by kind: images, series, text. Each reads its data, makes the model that fits them,
measures it against them, draws its samples, and keeps in the run what drawing needs."""

import hashlib
import importlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import data as sources
from ..data import Images, Series, Text, Vocabulary, Whitening
from ..data.pictures import curves, fitted, grid, png
from ..metrics import (
    GaussianFit,
    PostHoc,
    digits_classifier,
    digits_frechet_distance,
    discriminative_score,
    frechet_distance,
    image_measures,
    predictive_score,
)
from ..models import DCGAN, GAN, MLPGAN, RecurrentGAN
from . import files
from .gan_options import GanData, GanMeasuring, GanModel, GanSampling

_AT_ONCE = 500  # samples drawn in one pass
_IMAGES, _SERIES, _TEXT = ("digits", "photos"), ("prices", "eeg"), ("pydocs",)


class Source(ABC):
    """The data of a GAN; as `described` makes it, what is known of them alone."""

    kind: ClassVar[str]
    name: str
    classes: tuple[str, ...] = ()

    @property
    def skipped(self) -> tuple[str, ...]:
        """What was left out, and why."""
        return ()

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are."""

    @abstractmethod
    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """ "real", the samples at `index` [B], and their "labels" or "lengths" where they have some."""

    @abstractmethod
    def fingerprint(self) -> str: ...

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What data.json holds."""

    def keep(self, folder: Path) -> None:
        """Writes into the run's folder what `described` reads."""
        content = {"kind": self.kind, "name": self.name, **self.describe()}
        files.write(folder / "data.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    @abstractmethod
    def model(self, options: GanModel) -> GAN:
        """A new model for them. Raises ValueError, naming the option, for one that does not fit."""

    @abstractmethod
    def measures(self, gan: GAN, how: GanMeasuring, *, full: bool) -> dict[str, float]:
        """Measures of what `gan` draws, the one that matters first; full: all, else what is quick."""

    @abstractmethod
    def drawn(self, gan: GAN, how: GanSampling) -> dict[str, str | bytes]:
        """Samples by file suffix."""


def read_source(arch: str, options: GanData, argument: str, folder: Path | None) -> Source:
    """The data that the options name. Raises OSError, ValueError or ModuleNotFoundError, naming `argument`
    or the option."""
    name = options.data if options.data is not None else ("prices" if arch == "recurrent" else "digits")
    ordered = name in (*_SERIES, *_TEXT) or name.endswith((".wav", ".csv", ".txt"))
    if arch == "recurrent" and name in _IMAGES:
        raise ValueError(f"{argument}: {name} are images, and recurrent networks take series or text")
    if arch != "recurrent" and ordered:
        raise ValueError(
            f"{argument}: {name} has sequences, which --arch recurrent takes; {arch} takes images"
        )
    if arch != "recurrent":
        return Pictures.read(name, options, argument)
    if name in _TEXT or name.endswith(".txt"):
        return Characters.read(name, options, argument, folder)
    return Sequences.read(name, options, argument)


def described(folder: Path, content: Mapping[str, Any]) -> Source:
    """What a run's folder keeps of its data. Raises ValueError where it is not what `Source.keep` writes."""
    kinds = {each.kind: each for each in (Pictures, Sequences, Characters)}
    try:
        return kinds[content["kind"]].revive(content, folder)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'data.json'} does not describe data: {error}") from error


# ---- images -------------------------------------------------------------------------------------------


@dataclass
class Pictures(Source):
    """Images of one shape (C, H, W), perhaps of classes."""

    kind: ClassVar[str] = "images"
    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    images: Images | None = None

    @classmethod
    def read(cls, name: str, options: GanData, argument: str) -> "Pictures":
        if name == "digits":
            images = sources.digits(options.size)
        elif name == "photos":
            images = sources.photo_patches(options.size)
        else:
            images = sources.read_images(name, argument, split=options.split, column=options.column)
        channels = options.channels or (3 if images.pixels.shape[1] >= 3 else 1)
        images = fitted(images, options.size, channels)
        return cls(name, tuple(images.pixels.shape[1:]), images.classes, images)

    @classmethod
    def revive(cls, content: Mapping[str, Any], folder: Path) -> "Pictures":
        return cls(content["name"], tuple(content["shape"]), tuple(content["classes"]))

    def describe(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "classes": list(self.classes)}

    @property
    def skipped(self) -> tuple[str, ...]:
        return self.images.skipped if self.images is not None else ()

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        own = {"real": self.images.samples(index)}
        return own if self.images.labels is None else own | {"labels": self.images.labels[index]}

    def fingerprint(self) -> str:
        return hashlib.sha256(self.images.pixels.contiguous().numpy()).hexdigest()

    def model(self, options: GanModel) -> GAN:
        shared = {
            "num_classes": len(self.classes) if options.conditional else 0,
            "spectral_norm": options.spectral_norm,
        }
        if options.arch == "mlp":
            widths = _widths("widths", options.widths), _widths("critic_widths", options.critic_widths)
            return MLPGAN(self.shape, options.noise, *widths, **shared)
        return DCGAN(self.shape[1], self.shape[0], options.noise, options.width, **shared)

    def measures(self, gan: GAN, how: GanMeasuring, *, full: bool) -> dict[str, float]:
        random = torch.Generator().manual_seed(how.seed)
        features = how.features
        if features == "auto":
            features = "digits" if self.name == "digits" else "pixels"
        real = self._some(how.samples)
        labels = torch.arange(how.samples) % gan.num_classes if gan.num_classes else None
        fake = draw(gan, how.samples, random, labels=labels)
        if features == "pixels":
            return {"Frechet distance of 8 x 8 pixels": frechet_distance(_pixels(real), _pixels(fake))}
        if features != "digits":
            by = _own_features(features) if ":" in features and not Path(features).exists() else features
            return image_measures(real, fake, by, generator=random)
        found = {"digits Frechet distance": digits_frechet_distance(real, fake)}
        found["of a Gaussian fit's"] = found["digits Frechet distance"] / self._gaussian(real, how)
        if full:
            found |= image_measures(real, fake, "digits", generator=random)
            found["digits Frechet distance of a Gaussian fit"] = self._gaussian(real, how)
            if labels is not None and self.name == "digits":
                read = digits_classifier()(fake).argmax(1)
                found["share read as the digit asked for"] = (read == labels).double().mean().item()
        return found

    def _some(self, most: int) -> Tensor:
        """All images, or `most` of them, the same each time."""
        rows = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        return self.images.samples(rows[:most].sort().values)

    def _gaussian(self, real: Tensor, how: GanMeasuring) -> float:
        """The distance of a Gaussian with the mean and covariance of `real`, kept for the next measure."""
        key = (how.samples, how.seed)
        if getattr(self, "_base", (None,))[0] != key:
            random = torch.Generator().manual_seed(how.seed)
            fake = GaussianFit(real).sample(how.samples, random)
            self._base = key, digits_frechet_distance(real, fake)
        return self._base[1]

    def drawn(self, gan: GAN, how: GanSampling) -> dict[str, str | bytes]:
        _no_length(how)
        columns, labels = 8, None
        if gan.num_classes:
            columns = min(gan.num_classes, 10)
            labels = torch.arange(how.count) % gan.num_classes
        if how.class_ is not None:
            columns, labels = 8, torch.full((how.count,), self._class(how.class_))
        random = torch.Generator().manual_seed(how.seed)
        samples = draw(gan, how.count, random, labels=labels, truncation=how.truncation)
        return {".png": png(grid(samples, columns))}

    def _class(self, name: str) -> int:
        if name in self.classes:
            return self.classes.index(name)
        if name.isdigit() and int(name) < len(self.classes):
            return int(name)
        raise ValueError(f"class_: expected one of {', '.join(self.classes)}, got {name!r}")


# ---- series -------------------------------------------------------------------------------------------


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

    def __post_init__(self):
        if self.series is not None:
            own, lengths = self.series.values, self.series.lengths
            self._values = own if self.whitening is None else self.whitening(own, lengths)

    @classmethod
    def read(cls, name: str, options: GanData, argument: str) -> "Sequences":
        if name in _SERIES:
            reader = {"prices": sources.share_prices, "eeg": sources.eeg}[name]
            series = reader(options.length, options.stride)
        else:
            series = sources.read_series(name, options.length, options.stride, argument=argument)
        try:
            whitening = Whitening.fit(series.values, series.lengths) if options.whiten else None
        except ValueError as error:
            raise ValueError(f"{argument}: {name}: {error}") from error
        return cls(name, options.length, series.features, series.low, series.high, whitening, series)

    @classmethod
    def revive(cls, content: Mapping[str, Any], folder: Path) -> "Sequences":
        kept = content["whitening"]
        return cls(
            content["name"],
            content["steps"],
            tuple(content["features"]),
            *(torch.tensor(content[end], dtype=torch.float64) for end in ("low", "high")),
            None if kept is None else Whitening.from_json(kept),
        )

    def describe(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "features": list(self.features),
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "whitening": None if self.whitening is None else self.whitening.to_json(),
        }

    def __len__(self) -> int:
        return len(self.series)

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        own = {"real": self._values[:, index]}
        return own if self.series.lengths is None else own | {"lengths": self.series.lengths[index]}

    def fingerprint(self) -> str:
        return hashlib.sha256(self.series.values.contiguous().numpy()).hexdigest()

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
        real, lengths = self.series.values, self.series.lengths
        random = torch.Generator().manual_seed(how.seed)
        fake = self._scaled(draw(gan, len(self), random, lengths=lengths), lengths)
        besides = {"real_lengths": lengths, "fake_lengths": lengths}
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
        return {".png": png(curves(scaled[:, :32])), ".npy": _as_npy(values.movedim(1, 0))}

    def _scaled(self, drawn: Tensor, lengths: Tensor | None) -> Tensor:
        return drawn if self.whitening is None else self.whitening.inverse(drawn, lengths)


# ---- text ---------------------------------------------------------------------------------------------


@dataclass
class Characters(Source):
    """All stretches of so many characters of a text."""

    kind: ClassVar[str] = "text"
    name: str
    steps: int
    vocabulary: Vocabulary
    text: Text | None = None
    stride: int = 1

    @classmethod
    def read(cls, name: str, options: GanData, argument: str, folder: Path | None) -> "Characters":
        kept = folder / "vocabulary.json" if folder else None
        vocabulary = Vocabulary.load(kept, "character") if kept and kept.exists() else None
        text = sources.open_text(name, argument, utf8=True)
        text = sources.tokenize(text, "character", options.vocabulary, vocabulary, argument)
        if len(text.tokens) < options.length:
            raise ValueError(
                f"{argument}: {name} has {len(text.tokens)} characters, --length {options.length}"
            )
        return cls(name, options.length, text.vocabulary, text, options.stride)

    @classmethod
    def revive(cls, content: Mapping[str, Any], folder: Path) -> "Characters":
        vocabulary = Vocabulary.load(folder / "vocabulary.json", "character")
        return cls(content["name"], content["steps"], vocabulary)

    def describe(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def keep(self, folder: Path) -> None:
        files.write(folder / "vocabulary.json", self.vocabulary.to_json())
        super().keep(folder)

    @property
    def skipped(self) -> tuple[str, ...]:
        return self.text.skipped if self.text is not None else ()

    def __len__(self) -> int:
        return (len(self.text.tokens) - self.steps) // self.stride + 1

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        return {"real": self.text.tokens[index * self.stride + torch.arange(self.steps)[:, None]].long()}

    def fingerprint(self) -> str:
        return hashlib.sha256(self.text.tokens.numpy()).hexdigest()

    def model(self, options: GanModel) -> GAN:
        return RecurrentGAN(
            vocab_size=len(self.vocabulary),
            steps=self.steps,
            noise_size=options.noise,
            hidden_size=options.hidden,
            num_layers=options.layers,
            cell=options.cell,
            temperature=options.temperature,
            spectral_norm=options.spectral_norm,
        )

    def measures(self, gan: GAN, how: GanMeasuring, *, full: bool) -> dict[str, float]:
        random = torch.Generator().manual_seed(how.seed)
        tokens = draw(gan, how.samples, random)
        V = len(self.vocabulary)
        pairs = [
            torch.bincount((x[:-1].long() * V + x[1:].long()).flatten(), minlength=V * V).double()
            for x in (self.text.tokens, tokens)
        ]
        return {"bigram divergence": jensen_shannon(*pairs)}

    def drawn(self, gan: GAN, how: GanSampling) -> dict[str, str | bytes]:
        random = torch.Generator().manual_seed(how.seed)
        tokens = draw(gan, how.count, random, truncation=how.truncation, steps=how.length or self.steps)
        return {".txt": "".join(self.vocabulary.decode(column) + "\n" for column in tokens.T)}


# ---- parts --------------------------------------------------------------------------------------------


def draw(
    gan: GAN,
    count: int,
    random: torch.Generator,
    *,
    labels: Tensor | None = None,
    lengths: Tensor | None = None,
    **how: Any,
) -> Tensor:
    """`gan.sample` in parts, on the CPU; labels and lengths [count]."""
    parts = []
    for begin in range(0, count, _AT_ONCE):
        rows = slice(begin, min(begin + _AT_ONCE, count))
        more = {name: x[rows] for name, x in (("labels", labels), ("lengths", lengths)) if x is not None}
        parts.append(gan.sample(rows.stop - begin, generator=random, **more, **how).cpu())
    drawn = torch.cat(parts, gan.sample_dim)
    return drawn.float() if drawn.is_floating_point() else drawn


def jensen_shannon(a: Tensor, b: Tensor) -> float:
    """The Jensen-Shannon divergence of two counts [K], in bits: 0 for equal shares, 1 for disjoint ones (Lin
    1991, "Divergence measures based on the Shannon entropy")."""
    p, q = a / a.sum(), b / b.sum()
    middle = (p + q) / 2
    sides = [torch.where(x > 0, x * (x / middle).log2(), 0.0).nansum() for x in (p, q)]
    return ((sides[0] + sides[1]) / 2).item()


def _mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values)


def _pixels(images: Tensor) -> Tensor:
    """[N, C * 64]"""
    return F.interpolate(images, (8, 8), mode="bilinear", align_corners=False, antialias=True).flatten(1)


def _own_features(name: str) -> nn.Module:
    """MODULE:NAME, a module or what makes one. Raises ValueError, naming `features`."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"features: cannot import {name!r}: {error}") from error
    if not isinstance(found, nn.Module) and callable(found):
        found = found()
    if not isinstance(found, nn.Module):
        raise ValueError(
            f"features: expected {name} to be or to make an nn.Module, got {type(found).__name__}"
        )
    return found


def _widths(name: str, text: str) -> Sequence[int]:
    try:
        widths = [int(part) for part in text.split(",")]
    except ValueError:
        widths = [0]
    if min(widths) < 1:
        raise ValueError(f"{name}: expected numbers of units with commas between, as 256,512, got {text!r}")
    return widths


def _no_length(how: GanSampling) -> None:
    if how.length is not None:
        raise ValueError("length: only sequences have one, this run's model makes images")


def _as_npy(values: Tensor) -> bytes:
    content = io.BytesIO()
    np.save(content, values.numpy())
    return content.getvalue()
