"""The inception score's formula, and precision and recall of feature sets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .._arguments import whole
from ._checks import checked_features


class InceptionScore(NamedTuple):
    """Mean and standard deviation over splits (0 for a single one).

    mean and deviation: floats.
    """

    mean: float
    deviation: float


class PrecisionRecall(NamedTuple):
    """Shares from 0 to 1 of samples that lie among those of the other side.

    precision: of fake samples among real ones. recall: of real samples among fake ones. Higher is better of
    both.
    """

    precision: float
    recall: float


def inception_score(logits: Tensor, *, splits: int = 10) -> InceptionScore:
    """exp of the mean of KL(p(y|x) || p(y)) over samples (Salimans et al. 2016, arXiv:1606.03498, section 4),
    from a classifier's logits [N, K]; the mean over ``splits`` parts of equal size, in order. Between 1 and
    K. With Inception's classifier, and only then, it is called IS.

    Raises TypeError or ValueError for logits that do not fit, or fewer samples than splits.

    logits: any floating dtype, computed in float64. Higher is better.
    """
    splits = whole("splits", splits, 1)
    if not isinstance(logits, Tensor):
        raise TypeError(f"logits: expected a tensor, got {type(logits).__name__}")
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits: expected shape [N, K] with K at least 2, got {list(logits.shape)}")
    if logits.shape[0] < splits:
        raise ValueError(f"logits: expected at least a sample a split ({splits}), got {logits.shape[0]}")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("logits: they hold NaN or infinity")
    log_p = logits.detach().double().log_softmax(1)
    scores = []
    for part in log_p.tensor_split(splits):
        p = part.exp()
        log_marginal = p.mean(0).log()
        # A class that no sample can have contributes 0, not 0 * (-inf).
        divergence = torch.where(p > 0, p * (part - log_marginal), 0.0).sum(1)
        scores.append(divergence.mean().exp())
    found = torch.stack(scores)
    return InceptionScore(found.mean().item(), found.std(correction=0).item())


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 3) -> PrecisionRecall:
    """Precision: the share of fake samples that lie within the distance from some real sample to its k-th
    nearest real neighbour; recall: the same with the roles exchanged (Kynkäänniemi et al. 2019,
    arXiv:1904.06991, eq. 1 to 3). Features [N, D] and [M, D].

    Raises TypeError or ValueError for features that do not fit, or fewer than k + 1 samples.

    real, fake: features of any floating dtype, one row a sample. Computed in float64. Higher is better of
    both.
    """
    k = whole("k", k, 1)
    real, fake = checked_features(real, fake, least=k + 1)
    return PrecisionRecall(_covered(fake, real, k), _covered(real, fake, k))


def _covered(points: Tensor, by: Tensor, k: int) -> float:
    """The share of points within the k-nearest-neighbour ball of one of ``by``."""
    radii = torch.cat([_distances(rows, by).kthvalue(k + 1, 1).values for rows in by.split(_ROWS)])
    inside = [(_distances(rows, by) <= radii).any(1) for rows in points.split(_ROWS)]
    return torch.cat(inside).double().mean().item()


_ROWS = 2048  # of a distance matrix at a time


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # Not by |a|^2 + |b|^2 - 2ab: a sample's distance to itself has to be 0.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
