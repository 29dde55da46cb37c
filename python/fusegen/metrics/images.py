"""All measures of images at once, by features of Inception, of the digits classifier or of your module."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._arguments import whole
from .._modes import evaluating
from .digits import digits_classifier
from .frechet import frechet_distance
from .kernel import kernel_distance
from .scores import inception_score, precision_recall

_BATCH = 250


def image_measures(
    real: Tensor,
    fake: Tensor,
    by: str | os.PathLike[str] | nn.Module = "digits",
    *,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """Measures of fake images [M, C, H, W] against real ones [N, C, H, W], values in [-1, 1], by name.

    by: "digits" for the classifier trained on scikit-learn's digits ("digits Frechet distance", "digits
    kernel distance", "digits classifier score", "digits precision", "digits recall"); a path to Inception's
    weights (torch-fidelity's pt_inception-2015-12-05-6726825d.pth) for "FID", "KID" and "IS" as torchmetrics
    computes them; or a module of yours whose output on [n, C, H, W] is features [n, D] ("Frechet distance",
    "kernel distance", "precision", "recall" and its class's name).

    Lower is better of distances, higher of the others. The kernel distance is over 100 random subsets of at
    most 1,000, drawn from ``generator`` (KID: from torch's global random numbers).

    Raises TypeError or ValueError for images or features that do not fit, FileNotFoundError for a path that
    is not there, ModuleNotFoundError, saying what to install, for a missing package.

    real, fake: any floating dtype.
    """
    for name, x in (("real", real), ("fake", fake)):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            found = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name}: expected a floating-point tensor of images, got {found}")
        if x.dim() != 4:
            raise ValueError(f"{name}: expected shape [N, C, H, W], got {list(x.shape)}")
        if not bool(x.isfinite().all()):
            raise ValueError(f"{name}: the images hold NaN or infinity")
    if real.shape[1:] != fake.shape[1:]:
        raise ValueError(
            f"real, fake: expected images of one shape, got {list(real.shape[1:])} and {list(fake.shape[1:])}"
        )
    if isinstance(by, nn.Module):
        return _by_module(real, fake, by, generator)
    if by == "digits":
        return _by_digits(real, fake, generator)
    return _by_inception(real, fake, Path(by))


@torch.no_grad()
def in_batches(run: Callable[[Tensor], Tensor], x: Tensor, batch: int = _BATCH) -> Tensor:
    """run(x) in parts of ``batch`` rows, without gradient."""
    return torch.cat([run(part) for part in x.split(whole("batch", batch, 1))])


def digits_frechet_distance(real: Tensor, fake: Tensor) -> float:
    """The Frechet distance of grey images [N, 1, H, W] in [-1, 1], by the features of the digits
    classifier.

    real, fake: of any floating dtype. Lower is better. Errors as of ``frechet_distance``, whose paper is
    Heusel et al. 2017 (arXiv:1706.08500).
    """
    classifier = digits_classifier()
    return frechet_distance(*(in_batches(classifier.features, x) for x in (real, fake)))


def _by_features(r: Tensor, f: Tensor, generator: torch.Generator | None) -> dict[str, float]:
    size = min(1000, len(r), len(f))
    near = precision_recall(r, f)
    return {
        "Frechet distance": frechet_distance(r, f),
        "kernel distance": kernel_distance(r, f, subset_size=size, generator=generator).mean,
        "precision": near.precision,
        "recall": near.recall,
    }


def _by_digits(real: Tensor, fake: Tensor, generator: torch.Generator | None) -> dict[str, float]:
    classifier = digits_classifier()
    r, f = (in_batches(classifier.features, x) for x in (real, fake))
    found = _by_features(r, f, generator)
    found["classifier score"] = inception_score(classifier.head(f), splits=1).mean
    return {f"digits {name}": value for name, value in found.items()}


def _by_module(
    real: Tensor, fake: Tensor, module: nn.Module, generator: torch.Generator | None
) -> dict[str, float]:
    with evaluating(module):
        r, f = (in_batches(module, x) for x in (real, fake))
    found = _by_features(r, f, generator)
    return {f"{name} by {type(module).__name__}": value for name, value in found.items()}


def _by_inception(real: Tensor, fake: Tensor, path: Path) -> dict[str, float]:
    if not path.is_file():
        raise FileNotFoundError(
            f"by: expected 'digits', a module, or the path of Inception's weights; there is no file {path}"
        )
    metrics = _torchmetrics()
    net = metrics("fid").NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path))
    given = _Pooled()
    fid = metrics("fid").FrechetInceptionDistance(given)
    kid = metrics("kid").KernelInceptionDistance(given, subset_size=min(1000, len(real), len(fake)))
    score = metrics("inception").InceptionScore(given, splits=min(10, len(fake)))
    for x, is_real in ((real, True), (fake, False)):
        pooled = in_batches(lambda part: net(_as_bytes(part)), x)
        for metric in (fid, kid):
            metric.update(pooled, real=is_real)
    score.update(pooled @ net.fc.weight.T)  # of the fake ones; without the bias, as the score is defined
    return {"FID": fid.compute().item(), "KID": kid.compute()[0].item(), "IS": score.compute()[0].item()}


class _Pooled(nn.Identity):
    """Stands in for Inception, which runs once: the metrics are given what it found."""

    num_features = 2048


def _torchmetrics() -> Callable[[str], Any]:
    def part(name: str) -> Any:
        try:
            importlib.import_module("torch_fidelity")
            return importlib.import_module(f"torchmetrics.image.{name}")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "FID, KID and IS need: pip install torchmetrics torch-fidelity torchvision",
                name=error.name,
            ) from error

    return part


def _as_bytes(x: Tensor) -> Tensor:
    """[-1, 1] -> uint8 [N, 3, H, W]"""
    pixels = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1) if x.shape[1] == 1 else pixels
