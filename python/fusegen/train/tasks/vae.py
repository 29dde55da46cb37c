"""Pictures as a task for the variational autoencoders: the ELBO, and pictures of what was learnt."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ... import drawing
from ..._modes import evaluating
from ...data import Fetched, Images, Shuffled, has_test_split, read_images
from ...metrics import latent_measures
from ...models import VAE, ConvVAE
from ..options import FitOptions, Options, option
from ..task import Task, Turn
from ..workers import Shard
from .batch import check_batch
from .examples import COLUMNS, Examples, same_class
from .fingerprint import fingerprint_of
from .held_out import parted
from .idle import of_rows
from .room import built, check_drawn, picture_bytes

__all__ = ["BOUND", "VAEData", "VAEFit", "VAEOptions", "VAESampling", "VAETask"]

BOUND = "held-out nats per image"
_BATCH = 500  # when measuring
_WEIGHTS = "latent", "hidden", "layers", "channels", "size"
_SHARE = 0.2  # held out where there is no split
_LOOKED_AT = 1000  # images, for their shades
_SHADES, _MANY = (51, 204), 0.3  # a fifth from either end; this share of pixels between them is many


@dataclass(frozen=True, kw_only=True)
class VAEOptions(Options):
    """Which VAE. Raises TypeError or ValueError, naming the field, for a wrong value."""

    network: str = option(
        "dense", "dense layers alone, or with convolutions before and after them", ("dense", "convolutional")
    )
    latent: int = option(16, "size of z", least=1)
    hidden: int = option(512, "units in a dense layer", least=1)
    layers: int = option(
        2, "hidden dense layers in the encoder, and as many in the decoder", least=0, most=1000
    )
    channels: int = option(
        32, "channels of the first convolution; each further one has twice as many", least=1
    )
    convolutions: int = option(2, "how many convolutions; each halves height and width", least=1, most=8)
    likelihood: str = option("bernoulli", "distribution of a pixel, given z", ("bernoulli", "gaussian"))
    scale: float | None = option(
        None, "standard deviation of the Gaussian; learnt by default", least=0, open_below=True
    )
    beta: float = option(1.0, "weight of the KL divergence", least=0)
    beta_rise: float = option(0.4, "share of the steps over which beta rises from 0", least=0, most=1)
    conditional: bool = option(False, "give encoder and decoder the class of an image")
    encoder_dropout: float = option(
        0.1,
        "share of the image (or of its features) that is hidden from the dense encoder in training",
        least=0,
        most=1,
        open_above=True,
    )
    batch: int = option(128, "images in a step", least=1)


@dataclass(frozen=True, kw_only=True)
class VAEData(Options):
    """Which images. Errors as in `VAEOptions`."""

    data: str = option(
        "digits",
        "digits, a folder of images or of MNIST's or CIFAR's files, .npy, .npz, or hf:NAME",
        place=("digits",),
    )
    size: int | None = option(
        None, "pixels of a side that images are brought to; by default as they are, all of one size", least=2
    )
    binarise: str | None = option(
        None,
        "pixels as 0 and 1: half: 1 from 0.5 on; draw: at random in each step, the pixel being the "
        "probability of 1; none: as they are; by default half, and none for a Gaussian",
        ("none", "half", "draw"),
    )
    held_out: float | None = option(
        None,
        "share of the images that is kept for measuring (by default the published test split of MNIST and "
        "CIFAR, else 0.2)",
        least=0,
        most=1,
        open_below=True,
        open_above=True,
    )
    column: str = option("image", "hf: column of the images; .npz: name of the array")
    split: str = option("train", "hf: which split to read")
    importance: int = option(
        50, "draws of z for the importance-weighted bound; 0: do not measure it", least=0
    )
    measured: int = option(2000, "measure at most so many held-out images", least=1)


@dataclass(frozen=True, kw_only=True)
class VAEFit(FitOptions):
    """How to train it. Errors as in `FitOptions`."""

    steps: int = option(3000, "optimiser steps", least=1)
    lr: float = option(
        8e-3,
        "Adam's highest learning rate: reached after 5 % of the steps, then lowered along a cosine",
        least=0,
        open_below=True,
    )
    weight_decay: float = option(
        0.4,
        "AdamW's weight decay: in each step weights lose this times the learning rate of their size",
        least=0,
    )


@dataclass(frozen=True, kw_only=True)
class VAESampling(Options):
    """What is drawn. Errors as in `VAEOptions`."""

    what: str = option(
        "all",
        "prior: new images; reconstruction: held-out images and what the model makes of them; interpolation: "
        "steps from one held-out image to another",
        ("all", "prior", "reconstruction", "interpolation"),
    )
    rows: int = option(4, "rows of samples, and of interpolations", least=1, most=100)
    seed: int = option(0, "seed of the draws", least=0, most=2**63 - 1)


class VAETask(Task):
    """Teaches a `VAE` or `ConvVAE` the training images, measures it on those held out.

    examples: a few held-out images. images: (to learn from, held out); None: a model that only draws.
    fit: its seed is of the order of the images.
    """

    options = {"model": VAEOptions, "data": VAEData, "fit": VAEFit}  # noqa: RUF012
    sampling = VAESampling
    weights: tuple[str, ...] = _WEIGHTS
    sizes = "batch", *_WEIGHTS, "rows"
    curves = True

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        return {"run": {"ema": 0.995}}

    def __init__(
        self,
        options: VAEOptions,
        source: VAEData,
        examples: Examples,
        images: tuple[Images, Images] | None = None,
        fit: VAEFit | None = None,
    ):
        if options.network == "dense":
            self.weights = tuple(name for name in _WEIGHTS if name != "channels")
        self.model = built(lambda: _model(options, examples), self.weights, options, source)
        self._fit = fit or VAEFit()
        self._options, self._source, self.examples = options, source, examples
        self._binarise = _binarisation(options, source)
        self._beta, self.reads = options.beta, (options.batch, "images")
        if images is not None:
            self.training, self.held_out = images
            self.skipped = tuple(dict.fromkeys((*images[0].skipped, *images[1].skipped)))
            self.notes = tuple(dict.fromkeys((*images[0].notes, *images[1].notes)))
            if source.binarise is None and self._binarise == "half":
                self.notes += _losses(self.training.pixels)

    @classmethod
    def from_options(
        cls, sections: Mapping[str, Any], folder: Path | None, *, data: bool = True, argument: str = "data"
    ) -> "VAETask":
        options, source = sections["model"], sections["data"]
        _binarisation(options, source)
        if options.likelihood == "bernoulli" and options.scale is not None:
            raise ValueError(f"scale: expected none for a Bernoulli likelihood, got {options.scale}")
        drawing.check()
        kept = folder / "examples.npz" if folder else None
        if not data:
            if kept is None:
                raise ValueError(f"{argument}: expected a run's folder, got none")
            return cls(options, source, Examples.read(kept, argument))
        training, held_out = _read(source, argument)
        if options.conditional and training.labels is None:
            raise ValueError(f"conditional: {training.name} has no labels")
        check_batch(options.batch, VAEOptions().batch, len(training), "images", held_out=len(held_out))
        examples = Examples.of(training, held_out, options.conditional)
        task = cls(options, source, examples, (training, held_out), sections["fit"])
        if kept and not kept.exists():
            examples.write(kept)
        return task

    @classmethod
    def idle(cls, sections: Mapping[str, Any]) -> dict[str, str]:
        model, source = sections["model"], sections["data"]
        found = of_rows(source.data, rows=False)
        if model.network == "dense":
            found |= dict.fromkeys(("channels", "convolutions"), "--network dense has no convolutions")
        if not model.layers:
            found["hidden"] = "--layers 0 has no hidden layers"
        if not model.beta:
            found["beta_rise"] = "--beta is 0 throughout"
        return found

    def idle_in(self, how: Any) -> dict[str, str]:
        if not isinstance(how, VAESampling) or how.what != "reconstruction":
            return {}
        return dict.fromkeys(("rows", "seed"), "what comes back is of held-out images, and not drawn")

    def data(self, shard: Shard) -> Fetched:
        """(float32 [B, C, H, W] in 0..1, and int64 [B] of a conditional model)."""
        order = Shuffled(
            len(self.training), self._options.batch, self._fit.seed, shard.of(self._options.batch)
        )
        return Fetched(order, lambda index: self._batch(self.training, index))

    def turns(self) -> tuple[Turn, ...]:
        decay = self._fit.weight_decay

        def optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
            return torch.optim.AdamW(
                model.parameters(), lr, betas=(0.9, 0.95), weight_decay=decay, fused=True
            )

        return (Turn("model", self.model, self.loss, optimizer=optimizer),)

    def at(self, step: int, steps: int) -> None:
        rise = self._options.beta_rise * steps
        self._beta = self._options.beta * (min(1.0, step / rise) if rise else 1.0)

    def loss(self, model: Any, batch: tuple[Tensor, ...], carried: None) -> tuple[Any, None]:
        x, *labels = batch
        if self._binarise == "draw":
            x = torch.bernoulli(x)
        terms = model.elbo(self._shaped(x), *labels)
        likelihood, kl = terms.log_likelihood.mean(), terms.kl.sum(-1).mean()
        return {"loss": self._beta * kl - likelihood, "log likelihood": likelihood, "KL": kl}, None

    @torch.no_grad()
    def evaluate(self, model: VAE | ConvVAE | None = None) -> dict[str, float]:
        """-ELBO, its terms, minus the importance-weighted bound, active units (`metrics.latent_measures`).

        With beta = 1 whatever the training's; z from fixed draws. A Gaussian's are densities, of pixels in
        0..1. Pixels that are drawn as 0 and 1 in training are drawn once here, always the same.
        """
        model = model or self.model
        like = next(model.parameters())
        generator = torch.Generator().manual_seed(0)
        count = min(len(self.held_out), self._source.measured)
        batches = []
        for index in torch.arange(count).split(_BATCH):
            x, *labels = self._batch(self.held_out, index)
            if self._binarise == "draw":
                x = torch.bernoulli(x, generator=generator)
            x = self._shaped(x).to(like.device, like.dtype)
            batches.append((x, *(each.to(like.device) for each in labels)))
        found = latent_measures(model, batches, k=self._source.importance, chunk=10, generator=generator)
        measures = {
            BOUND: -found.elbo,
            "log likelihood": found.log_likelihood,
            "KL": found.kl,
        }
        if found.importance is not None:
            measures[f"nats, {self._source.importance} draws"] = -found.importance
        return {**measures, "active units": float(found.active_units)}

    @torch.no_grad()
    def sample(self, how: VAESampling, model: VAE | ConvVAE | None = None) -> dict[str, str | bytes]:
        """One picture, a panel for each of what is asked for. Classes go round, where there are any."""
        shape = self.examples.pixels.shape[1:]
        panels = 3 if how.what == "all" else 1
        check_drawn(
            lambda rows: panels * picture_bytes(rows * COLUMNS, shape),
            {"rows": how.rows},
            {"rows": VAESampling().rows},
            "the picture",
        )
        with evaluating(model or self.model) as own:
            return {".png": drawing.png(drawing.images_figure(self._panels(own, how)))}

    def _panels(self, model: VAE | ConvVAE, how: VAESampling) -> list[drawing.Panel]:
        """One for each of what is asked for."""
        like = next(model.parameters())
        examples, index = self.examples, torch.arange(COLUMNS) % len(self.examples.pixels)
        flat, *besides = self.inputs(
            examples.pixels[index], None if examples.labels is None else examples.labels[index]
        )
        labels = besides[0] if besides else None
        panels: dict[str, Tensor] = {}
        if how.what in ("all", "prior"):
            count = how.rows * COLUMNS
            asked = (
                None if labels is None else torch.arange(count, device=like.device) % len(examples.classes)
            )
            generator = torch.Generator().manual_seed(how.seed)
            panels["samples of the prior"] = model.sample(count, asked, generator=generator)
        if how.what in ("all", "reconstruction"):
            name = "held-out images, and what comes back"
            panels[name] = torch.cat([flat, model.reconstruct(flat, labels)])
        if how.what in ("all", "interpolation"):
            first = torch.arange(how.rows, device=like.device) % COLUMNS
            # Both ends are of one class where the model is told it.
            last = (first + 1) % COLUMNS if labels is None else same_class(labels)[first]
            told = None if labels is None else labels[first]
            way = model.interpolate(flat[first], flat[last], COLUMNS, told)
            panels["ways from one held-out image to another"] = way.transpose(0, 1).flatten(0, 1)
        return [
            drawing.Panel(images.view(-1, *examples.pixels.shape[1:]) * 2 - 1, COLUMNS, title)
            for title, images in panels.items()
        ]

    def inputs(self, pixels: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """What the model's `encode` takes of images, uint8 [N, C, H, W] and their labels, which a model
        without classes is not told: on its device, binarised from half on where it reads 0 and 1."""
        like = next(self.model.parameters())
        x = pixels.to(like.device).to(like.dtype) / 255
        if self._binarise != "none":
            x = (x >= 0.5).to(like.dtype)
        if not self._options.conditional or labels is None:
            return (self._shaped(x),)
        return self._shaped(x), labels.to(like.device)

    def fingerprint(self) -> str:
        sides = self.training, self.held_out
        parts = (part for side in sides for part in (side.pixels, side.labels))
        return fingerprint_of(*(part for part in parts if part is not None))

    def _batch(self, images: Images, index: Tensor) -> tuple[Tensor, ...]:
        x = images.pixels[index].float() / 255
        if self._binarise == "half":
            x = (x >= 0.5).float()
        if not self._options.conditional or images.labels is None:
            return (x,)
        return x, images.labels[index]

    def _shaped(self, x: Tensor) -> Tensor:
        return x.flatten(1) if self._options.network == "dense" else x


def _read(source: VAEData, argument: str) -> tuple[Images, Images]:
    """(the images to learn from, those held out)."""
    split = source.split if source.data.startswith("hf:") else "train"
    images = read_images(source.data, argument, split=split, column=source.column, size=source.size)
    if source.held_out is None and has_test_split(source.data):
        test = read_images(source.data, argument, split="test", size=source.size)
        if test.pixels.shape[1:] != images.pixels.shape[1:]:
            raise ValueError(
                f"{argument}: the test images are {list(test.pixels.shape[1:])}, the others "
                f"{list(images.pixels.shape[1:])}"
            )
        return images, test
    share = _SHARE if source.held_out is None else source.held_out
    learn, held_out = parted(len(images), share, argument, "images")
    return _part(images, learn), _part(images, held_out)


def _part(images: Images, index: Tensor) -> Images:
    labels = None if images.labels is None else images.labels[index]
    return replace(images, pixels=images.pixels[index], labels=labels)


def _losses(pixels: Tensor) -> tuple[str, ...]:
    """What is said where pixels as 0 and 1 lose what the images show: colours, or many shades."""
    some = pixels[:: max(1, len(pixels) // _LOOKED_AT)]
    between = ((some > _SHADES[0]) & (some < _SHADES[1])).float().mean().item()
    kind = "colours" if pixels.shape[1] > 1 else "shades" if between > _MANY else ""
    if not kind:
        return ()
    return (
        f"{kind} are lost: every pixel becomes 0 or 1 (--binarise half); --likelihood gaussian keeps them",
    )


def _model(options: VAEOptions, examples: Examples) -> VAE | ConvVAE:
    C, H, W = examples.pixels.shape[1:]
    shared: dict[str, Any] = {
        "likelihood": options.likelihood,
        "scale": options.scale,
        "beta": options.beta,
        "num_classes": len(examples.classes) if options.conditional else None,
        "encoder_dropout": options.encoder_dropout,
    }
    hidden = (options.hidden,) * options.layers
    if options.network == "dense":
        return VAE(C * H * W, options.latent, hidden, **shared)
    channels = tuple(options.channels * 2**i for i in range(options.convolutions))
    if min(H, W) < 2**options.convolutions:
        raise ValueError(f"convolutions: {options.convolutions} cannot each halve images of {H} x {W}")
    return ConvVAE((C, H, W), options.latent, channels, hidden, **shared)


def _binarisation(options: VAEOptions, source: VAEData) -> str:
    if options.likelihood == "gaussian":
        if source.binarise not in (None, "none"):
            raise ValueError(f"binarise: expected none for a Gaussian likelihood, got {source.binarise!r}")
        return "none"
    return source.binarise or "half"
