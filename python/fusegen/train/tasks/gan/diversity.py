"""How varied samples are beside the data: what the signs of a collapse go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ....metrics import precision_recall
from .source import draw

if TYPE_CHECKING:
    from ....models import GAN
    from .source import Source

SAMPLES = 512  # real ones and as many fake ones
_NEIGHBOURS = 3


def diversity(
    real: Tensor, fake: Tensor, real_labels: Tensor | None = None, fake_labels: Tensor | None = None
) -> dict[str, float]:
    """Of points [N, D] and [M, D], at least 4 of each: "spread", the mean distance between two fake ones over
    that between two real ones, and "precision" and "recall" by three nearest neighbours (Kynkäänniemi et al.
    2019, arXiv:1904.06991).

    Spread is what Odena et al. 2017 (arXiv:1610.09585, section 4.2) ask of images by MS-SSIM, asked of any
    points by their distance: do two samples differ less than two of the data do? As there, with labels, only
    pairs of one class count: a generator may have one sample a class.
    """
    real, fake = real.double(), fake.double()
    near = precision_recall(real, fake, k=_NEIGHBOURS)
    apart = _mean_distance(real, real_labels)
    spread = _mean_distance(fake, fake_labels) / apart if apart else 1.0
    return {"precision": near.precision, "recall": near.recall, "spread": spread}


def _mean_distance(x: Tensor, labels: Tensor | None) -> float:
    """Between two different points, of one class where labels are given; 0 where there are no such two."""
    pairs = ~torch.eye(len(x), dtype=torch.bool)
    if labels is not None:
        pairs &= labels[:, None] == labels
    return torch.cdist(x, x)[pairs].mean().item() if pairs.any() else 0.0


def diversity_of(source: Source, gan: GAN, seed: int = 0) -> dict[str, float]:
    """That of what `gan` draws, its random numbers from a seed; {} for less than 4 samples of the data, and
    for drawn ones that are not finite, which the measure reports."""
    count = min(SAMPLES, len(source))
    if count <= _NEIGHBOURS:
        return {}
    random = torch.Generator().manual_seed(seed)
    batch = source.batch(torch.randperm(len(source), generator=random)[:count])
    labels = batch.get("labels") if gan.num_classes else None
    fake = draw(gan, count, random, labels=labels, lengths=batch.get("lengths"))
    real, fake = (source.points(x.movedim(gan.sample_dim, 0)) for x in (batch["real"], fake))
    return diversity(real, fake, labels, labels) if bool(fake.isfinite().all()) else {}
