"""Images as the data of a GAN."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .... import data as sources
from ....data import Images
from ....data.drawing import grid, png
from ....data.pictures import fitted
from ....metrics import (
    GaussianFit,
    digits_classifier,
    digits_frechet_distance,
    frechet_distance,
    image_measures,
)
from ....models import DCGAN, GAN, MLPGAN
from ..fingerprint import fingerprint_of
from .options import GanData, GanMeasuring, GanModel, GanSampling
from .source import Source, draw


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
        C, H, W = images.pixels.shape[1:]
        return cls(name, (C, H, W), images.classes, images)

    @classmethod
    def revive(cls, content: Mapping[str, Any], folder: Path) -> "Pictures":
        C, H, W = content["shape"]
        return cls(content["name"], (C, H, W), tuple(content["classes"]))

    def describe(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "classes": list(self.classes)}

    @property
    def skipped(self) -> tuple[str, ...]:
        return self.images.skipped if self.images is not None else ()

    @property
    def _images(self) -> Images:
        assert self.images is not None, "of this source only the description is known"
        return self.images

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        own = {"real": self._images.samples(index)}
        return own if self._images.labels is None else own | {"labels": self._images.labels[index]}

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
            by: Any = _own_features(features) if ":" in features and not Path(features).exists() else features
            return image_measures(real, fake, by, generator=random)
        found = {"digits Frechet distance": digits_frechet_distance(real, fake)}
        found["of a Gaussian fit's"] = found["digits Frechet distance"] / self._gaussian(
            real, samples, how.seed
        )
        if full:
            found |= image_measures(real, fake, "digits", generator=random)
            found["digits Frechet distance of a Gaussian fit"] = self._gaussian(real, samples, how.seed)
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

    def drawn(self, gan: GAN, how: GanSampling) -> dict[str, str | bytes]:
        _no_length(how)
        labels = self.asked(how) if gan.num_classes else None
        columns = min(gan.num_classes, 10) if gan.num_classes and how.class_ is None else 8
        random = torch.Generator().manual_seed(how.seed)
        samples = draw(gan, how.count, random, labels=labels, truncation=how.truncation)
        return {".png": png(grid(samples, columns))}


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
