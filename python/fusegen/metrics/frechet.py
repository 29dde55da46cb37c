"""The Frechet distance between feature sets (Heusel et al. 2017, arXiv:1706.08500, eq. 6).

With Inception's pool3 features, and only then, it is called FID.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import checked_features


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """The squared Frechet (2-Wasserstein) distance between Gaussians fitted to features [N, D] and [M, D],
    in float64, with unbiased covariances as the reference implementation has them.

    Finite samples bias it upwards, more so the fewer they are: compare only figures of equal N and M.
    Raises TypeError or ValueError for features that do not fit, or fewer than two samples.

    real, fake: features of any floating dtype, one row a sample. Lower is better. Source: Heusel et al.
    2017 (arXiv:1706.08500), by the formula of Dowson and Landau 1982.
    """
    real, fake = checked_features(real, fake, least=2)
    return gaussian_frechet(real.mean(0), real.T.cov(), fake.mean(0), fake.T.cov())


def gaussian_frechet(mean_1: Tensor, cov_1: Tensor, mean_2: Tensor, cov_2: Tensor) -> float:
    """||m_1 - m_2||^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) of means [D] and covariances [D, D] (Dowson and
    Landau 1982), never negative.

    tr (C_1 C_2)^(1/2) is the sum of the roots of the eigenvalues of C_1^(1/2) C_2 C_1^(1/2), which is
    symmetric: two calls of eigh, exact for singular covariances too.

    mean_1, cov_1, mean_2, cov_2: m_1, C_1, m_2, C_2, of any floating dtype, computed in float64. Raises
    RuntimeError, as torch does, for sizes that do not fit together.
    """
    mean_1, cov_1, mean_2, cov_2 = (
        x.detach().double().reshape(-1) if i % 2 == 0 else torch.atleast_2d(x.detach().double())
        for i, x in enumerate((mean_1, cov_1, mean_2, cov_2))
    )
    root = symmetric_root(cov_1)
    product = root @ cov_2 @ root
    overlap = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance = (mean_1 - mean_2).square().sum() + cov_1.trace() + cov_2.trace() - 2 * overlap
    return max(0.0, distance.item())


def symmetric_root(cov: Tensor) -> Tensor:
    """The root of a symmetric positive semi-definite matrix; eigenvalues below zero are rounding and count
    as zero.

    cov: [D, D] of a floating dtype. No paper: the root of each eigenvalue, by torch.linalg.eigh, whose
    errors are let through.
    """
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


class GaussianFit:
    """A Gaussian with the mean and the full covariance of samples [N, ...]: the baseline that a generative
    model should beat.

    samples: any floating dtype, two or more. ``sample(n)`` draws from it. Errors are torch's own. The
    Gaussian is the one whose Frechet distance Heusel et al. 2017 (arXiv:1706.08500) take.
    """

    def __init__(self, samples: Tensor) -> None:
        x = samples.flatten(1).double()
        self.shape = samples.shape[1:]
        self.mean, (count, size) = x.mean(0), x.shape
        # [., D] with root' root the covariance. Fewer samples than numbers are such a root themselves, where
        # that of a matrix [D, D] would take hours for thousands of numbers.
        few = 2 <= count <= size
        self.root = (
            (x - self.mean) / (count - 1) ** 0.5 if few else symmetric_root(torch.atleast_2d(x.T.cov()))
        )

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """float32 [n, ...]"""
        z = torch.randn(n, len(self.root), dtype=torch.float64, generator=generator)
        return (self.mean + z @ self.root).float().view(n, *self.shape)
