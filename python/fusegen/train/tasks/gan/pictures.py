"""Images as the data of a GAN."""

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .... import data as sources
from .... import drawing
from ....data import Images
from ....data.pictures import fitted
from ....metrics import (
    GaussianFit,
    digits_classifier,
    digits_frechet_distance,
    frechet_distance,
    image_measures,
)
from ....models import DCGAN, GAN, MLPGAN
from ..examples import Examples
from ..fingerprint import fingerprint_of
from ..room import check_drawn, picture_bytes
from .options import GanData, GanMeasuring, GanModel, GanSampling
from .source import Source, between, draw

EXAMPLES = "examples.npz"
_COLUMNS, _WAYS = 16, 12  # of a picture of samples, and of one of ways between noises
_BESIDE = 2  # rows of the data above the samples
_MEASURED = 100  # bytes of a value of a sample that is measured, and of what features make of it
_KEPT = 256  # images in a run's folder, at most


@dataclass
class Pictures(Source):
    """Images of one shape (C, H, W), perhaps of classes."""

    kind: ClassVar[str] = "images"
    unit: ClassVar[str] = "images"
    fewest: ClassVar[int] = 2  # of a covariance
    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    images: Images | None = None
    examples: Examples | None = None

    @classmethod
    def read(cls, name: str, options: GanData, argument: str) -> "Pictures":
        if name == "digits":
            images = sources.digits(options.size)
        elif name == "photos":
            images = sources.photo_patches(options.size)
        else:
            images = sources.read_images(
                name,
                argument,
                split=options.split,
                column=options.column,
                channels=options.channels,
                size=options.size,
            )
        channels = options.channels or (3 if images.pixels.shape[1] >= 3 else 1)
        images = fitted(images, options.size, channels)
        C, H, W = images.pixels.shape[1:]
        return cls(name, (C, H, W), images.classes, images, _some(images))

    @classmethod
    def revive(cls, content: Mapping[str, Any], folder: Path) -> "Pictures":
        C, H, W = content["shape"]
        kept = folder / EXAMPLES  # which runs of before that do not have
        examples = Examples.read(kept, "data") if kept.exists() else None
        return cls(content["name"], (C, H, W), tuple(content["classes"]), examples=examples)

    def describe(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "classes": list(self.classes)}

    def keep(self, folder: Path) -> None:
        super().keep(folder)
        if self.examples is not None:
            self.examples.write(folder / EXAMPLES)

    @property
    def skipped(self) -> tuple[str, ...]:
        return self.images.skipped if self.images is not None else ()

    @property
    def notes(self) -> tuple[str, ...]:
        return self.images.notes if self.images is not None else ()

    @property
    def _images(self) -> Images:
        assert self.images is not None, "of this source only the description is known"
        return self.images

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        own = {"real": self._images.samples(index)}
        return own if self._images.labels is None else own | {"labels": self._images.labels[index]}

    def points(self, samples: Tensor) -> Tensor:
        return _pixels(samples)

    def fingerprint(self) -> str:
        return fingerprint_of(self._images.pixels)

    def model(self, options: GanModel) -> GAN:
        shared: dict[str, Any] = {
            "num_classes": len(self.classes) if options.conditional else 0,
            "spectral_norm": options.spectral_norm,
        }
        if options.arch == "mlp":
            widths = _widths("widths", options.widths), _widths("critic_widths", options.critic_widths)
            return MLPGAN(self.shape, options.noise, *widths, **shared)
        return DCGAN(self.shape[1], self.shape[0], options.noise, options.width, **shared)

    def measures(self, gan: GAN, how: GanMeasuring, *, full: bool) -> dict[str, float]:
        random = torch.Generator().manual_seed(how.seed)
        features, samples = how.features, how.samples
        assert features is not None and samples is not None
        if features == "auto":
            features = "digits" if self.name == "digits" else "pixels"
        real = self._some(samples)
        labels = torch.arange(samples) % gan.num_classes if gan.num_classes else None
        fake = draw(gan, samples, random, labels=labels)
        if features == "pixels":
            return {"Frechet distance of 8 x 8 pixels": frechet_distance(_pixels(real), _pixels(fake))}
        if features != "digits":
            return image_measures(real, fake, _own_features(features), generator=random)
        distance, of_fit = digits_frechet_distance(real, fake), self._gaussian(real, samples, how.seed)
        found = {"digits Frechet distance": distance, "digits Frechet distance of a Gaussian fit": of_fit}
        if full:
            found["of a Gaussian fit's"] = distance / of_fit
            found |= image_measures(real, fake, "digits", generator=random)
            if labels is not None and self.name == "digits":
                read = digits_classifier()(fake).argmax(1)
                found["share read as the digit asked for"] = (read == labels).double().mean().item()
        return found

    def _some(self, most: int) -> Tensor:
        """All images, or `most` of them, the same each time."""
        rows = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        return self._images.samples(rows[:most].sort().values)

    def _gaussian(self, real: Tensor, samples: int, seed: int) -> float:
        """The distance of a Gaussian with the mean and covariance of `real`, kept for the next measure."""
        key = (samples, seed)
        if getattr(self, "_base", (None,))[0] != key:
            random = torch.Generator().manual_seed(seed)
            fake = GaussianFit(real).sample(samples, random)
            self._base = key, digits_frechet_distance(real, fake)
        return self._base[1]

    def measured_bytes(self, gan: GAN, samples: int) -> float:
        return samples * _MEASURED * math.prod(self.shape)

    def drawn(self, gan: GAN, how: GanSampling) -> dict[str, str | bytes]:
        _no_length(how)
        self._check_room(gan, how)
        panels = self._ways(gan, how) if how.interpolate else self._samples(gan, how)
        return {".png": drawing.png(drawing.images_figure(panels))}

    def _check_room(self, gan: GAN, how: GanSampling) -> None:
        """Raises ValueError, naming the option, for more images than fit in memory, or in a picture."""
        if how.interpolate:
            name, value, each, columns, above = "interpolate", how.interpolate, _WAYS, _WAYS, 0
        else:
            name, value, each, columns, above = "count", how.count, 1, self._columns(gan, how), _BESIDE
        most = (drawing.most_lines(columns, *self.shape[1:]) - above) * columns // each
        if value > most:
            raise ValueError(
                f"{name}: expected at most {most:,}, as fit in one picture, got {value:,}; several commands "
                "with other --seed draw more"
            )
        asked, usual = {name: value}, {name: GanSampling().count}
        check_drawn(lambda **many: picture_bytes(each * many[name], self.shape), asked, usual, "the picture")

    def _columns(self, gan: GAN, how: GanSampling) -> int:
        """Of a picture of samples: one for each class, where all are drawn in turn."""
        K = gan.num_classes
        return K if how.class_ is None and 0 < K <= _COLUMNS else min(how.count, _COLUMNS)

    def _samples(self, gan: GAN, how: GanSampling) -> list[drawing.Panel]:
        """Some of the data where the run has kept them, and samples; a column for each class."""
        columns, asked, K = self._columns(gan, how), "", gan.num_classes
        headings: tuple[str, ...] = ()
        labels = self.asked(how) if K else None
        if how.class_ is not None:
            asked = f" of class {self.classes[self.number_of(how.class_)]}"
        elif 0 < K <= _COLUMNS:
            headings = self.classes
        random = torch.Generator().manual_seed(how.seed)
        samples = draw(gan, how.count, random, labels=labels, truncation=how.truncation)
        own = drawing.Panel(samples, columns, f"drawn{asked}", headings)
        kept = self._kept(labels, columns)
        return (
            [own]
            if kept is None
            else [drawing.Panel(kept, columns, f"the data: {Path(self.name).name}", headings), own]
        )

    def _kept(self, labels: Tensor | None, columns: int) -> Tensor | None:
        """Two rows of the images that the run keeps, of the classes that the samples below them have."""
        if self.examples is None:
            return None
        pixels, own = self.examples.pixels, self.examples.labels
        if labels is not None and own is not None:
            wanted = labels[: _BESIDE * columns]
            ranks = torch.stack([(wanted[:i] == label).sum() for i, label in enumerate(wanted)])
            places = [(own == label).nonzero().flatten() for label in wanted]
            if not all(map(len, places)):
                return None  # of a class without images
            pixels = pixels[torch.stack([p[r % len(p)] for p, r in zip(places, ranks, strict=True)])]
        return pixels[: _BESIDE * columns].float() / 127.5 - 1

    def _ways(self, gan: GAN, how: GanSampling) -> list[drawing.Panel]:
        """Ways from one noise to another, a row each; of all classes in turn, or of the one asked for."""
        random, labels, names = torch.Generator().manual_seed(how.seed), None, ()
        if gan.num_classes:
            labels = torch.arange(how.interpolate) % gan.num_classes
            if how.class_ is not None:
                labels.fill_(self.number_of(how.class_))
            names = tuple(self.classes[label] for label in labels.tolist())
        ways = between(gan, how.interpolate, _WAYS, random, labels=labels, truncation=how.truncation)
        return [drawing.Panel(ways, _WAYS, "from one noise to another", (), names)]


def _some(images: Images) -> Examples:
    """Two rows of images: of classes as many of each, as far as there are so many, one class after another in
    turn; else evenly over the data."""
    if images.labels is None:
        count = min(_BESIDE * _COLUMNS, len(images))
        return Examples(images.pixels[torch.linspace(0, len(images) - 1, count).long()].clone(), None, ())
    classes = int(images.labels.max()) + 1
    count = max(_BESIDE, -(-_BESIDE * _COLUMNS // classes))
    of_class = [(images.labels == c).nonzero().flatten()[:count] for c in range(classes)]
    index = torch.stack([own[i] for i in range(count) for own in of_class if i < len(own)][:_KEPT])
    return Examples(images.pixels[index].clone(), images.labels[index].clone(), images.classes)


def _pixels(images: Tensor) -> Tensor:
    """[N, C * 64]"""
    return F.interpolate(images, (8, 8), mode="bilinear", align_corners=False, antialias=True).flatten(1)


def _own_features(name: str) -> nn.Module | str:
    """A file's path as it is, or of MODULE:NAME a module or what makes one. Raises ValueError, naming
    `features`."""
    if Path(name).is_file():
        return name
    module, _, attribute = name.partition(":")
    if not (module and attribute) or module.startswith("."):
        raise ValueError(
            "features: expected auto, digits, pixels, a file with Inception's weights or MODULE:NAME, got "
            f"{name!r}, where no file is"
        )
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
