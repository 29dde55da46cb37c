"""The kernel distance between feature sets (Binkowski et al. 2018, arXiv:1801.01401, section 4).

With Inception's features, and only then, it is called KID.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._arguments import number, whole
from ._checks import checked_features


class KernelDistance(NamedTuple):
    """Mean and standard deviation over subsets (0 for a single one).

    mean and deviation: floats.
    """

    mean: float
    deviation: float


def polynomial_mmd(
    real: Tensor, fake: Tensor, *, degree: int = 3, gamma: float | None = None, offset: float = 1.0
) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, lemma 6) between
    features [N, D] and [M, D] with the kernel k(x, y) = (gamma x·y + offset)^degree, gamma 1/D by default.

    Unbiased: its mean is 0 where the distributions agree, and it may be negative.
    Raises TypeError or ValueError for features that do not fit, or fewer than two samples.

    real, fake: features of any floating dtype, one row a sample. Computed in float64.
    """
    real, fake = checked_features(real, fake, least=2)
    degree = whole("degree", degree, 1)
    gamma = 1 / real.shape[1] if gamma is None else number("gamma", gamma, 0, open_below=True)
    offset = number("offset", offset, 0)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (gamma * (x @ y.T) + offset) ** degree

    def within(x: Tensor) -> Tensor:
        K, n = kernel(x, x), x.shape[0]
        return (K.sum() - K.trace()) / (n * (n - 1))

    return (within(real) + within(fake) - 2 * kernel(real, fake).mean()).item()


def kernel_distance(
    real: Tensor,
    fake: Tensor,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    generator: torch.Generator | None = None,
    **kernel: Any,
) -> KernelDistance:
    """``polynomial_mmd`` (whose options ``kernel`` takes), averaged over ``subsets`` random subsets of
    ``subset_size`` rows each, drawn without replacement from ``generator``, as the paper's figures are. Where
    subset_size takes in all rows of both, they are compared once.

    Raises ValueError where either has fewer rows than subset_size; else as ``polynomial_mmd``.

    real, fake: features [N, D] and [M, D] of any floating dtype, computed in float64. Lower is better.
    Source: Bińkowski et al. 2018 (arXiv:1801.01401), the kernel inception distance.
    """
    subsets, size = whole("subsets", subsets, 1), whole("subset_size", subset_size, 2)
    fewest = min(real.shape[0], fake.shape[0])
    if fewest < size:
        raise ValueError(f"subset_size: expected at most the {fewest} samples there are, got {size}")
    if real.shape[0] == fake.shape[0] == size:
        return KernelDistance(polynomial_mmd(real, fake, **kernel), 0.0)

    def part(x: Tensor) -> Tensor:
        return x[torch.randperm(x.shape[0], generator=generator)[:size].to(x.device)]

    found = torch.tensor(
        [polynomial_mmd(part(real), part(fake), **kernel) for _ in range(subsets)], dtype=torch.float64
    )
    return KernelDistance(found.mean().item(), found.std(correction=0).item())
