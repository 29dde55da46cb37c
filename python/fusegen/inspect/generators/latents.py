"""The dimensions of a latent variable: which of them carry something, and how far posteriors overlap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ... import _arguments
from ..._modes import evaluating
from ...models.latent import kl_to_standard_normal


class Dimensions(NamedTuple):
    """Of each dimension of z, [Z] in float64, over the data: kl, its mean KL(q(z_d | x) || p(z_d)) in nats;
    variance, Var_x E[z_d | x], by which Burda et al. 2016 call it active; noise, E_x Var[z_d | x]: with the
    variance it adds up to what the prior has, 1, where the posteriors together fill the prior. active [Z]
    bool. means: the mean over the data of E[z_d | x]."""

    kl: Tensor
    variance: Tensor
    noise: Tensor
    active: Tensor
    means: Tensor

    def by_kl(self, active: bool = True) -> list[int]:
        """The dimensions, those of most nats first; without ``active`` those that are not active too."""
        order = self.kl.argsort(descending=True, stable=True).tolist()
        return [d for d in order if self.active[d] or not active]


class Overlap(NamedTuple):
    """matrix [N, N]: Bhattacharyya's coefficient of the posteriors of two examples, over all of z: 1 where
    they are the same, 0 where they have nothing in common; mean: that of two different examples. by_dimension
    [Z]: that mean of each dimension alone. In float64."""

    matrix: Tensor
    mean: float
    by_dimension: Tensor


def latent_dimensions(model: nn.Module, batches: Iterable[Any], *, threshold: float = 0.01) -> Dimensions:
    """What each dimension of z is used for, over data: its KL divergence, and whether it is active, with
    Var_x E[z_d | x] above ``threshold`` (Burda et al. 2016, arXiv:1509.00519, section 4.2).

    model: a ``VAE``, ``ConvVAE`` or ``SequenceVAE``, in evaluation mode for this. batches: what its
    ``encode`` takes: x, or tuples (x, labels) or (tokens, lengths). Raises TypeError for another model,
    ValueError where there is no example.
    """
    what = "fusegen.inspect.latent_dimensions"
    threshold = _arguments.number(f"{what}: threshold", threshold, 0)
    mean, log_variance = _posteriors(what, model, batches)
    variance = mean.var(0, correction=0)
    return Dimensions(
        kl_to_standard_normal(mean, log_variance).mean(0),
        variance,
        log_variance.exp().mean(0),
        active=variance > threshold,
        means=mean.mean(0),
    )


def posterior_overlap(model: nn.Module, batches: Iterable[Any], *, most: int = 256) -> Overlap:
    """How far the posteriors of different examples overlap, by Bhattacharyya's coefficient of each two of the
    first ``most`` (Kailath 1967, "The divergence and Bhattacharyya distance measures in signal selection").

    Where all overlap fully, z says nothing of x (posterior collapse); where none do, every example has a
    place of its own and what lies between them was never decoded in training.

    model: a ``VAE``, ``ConvVAE`` or ``SequenceVAE``, in evaluation mode for this. batches: what its
    ``encode`` takes, as for ``latent_dimensions``; none is read once ``most`` examples are there. most: 2 or
    more. Raises TypeError for another model, TypeError or ValueError for another ``most``, and ValueError
    for fewer than two examples.
    """
    what = "fusegen.inspect.posterior_overlap"
    most = _arguments.whole(f"{what}: most", most, 2)
    mean, log_variance = (t[:most] for t in _posteriors(what, model, batches, most))
    N, Z = mean.shape
    if N < 2:
        raise ValueError(f"{what}: expected two examples or more, got {N}")
    variance = log_variance.exp()
    distance = torch.zeros(N, N, dtype=torch.float64)  # the sum over dimensions of -log of the coefficient
    apart = ~torch.eye(N, dtype=torch.bool)
    by_dimension = torch.ones(Z, dtype=torch.float64)
    for d in range(Z):  # one at a time: N x N x Z may not fit
        both = variance[:, None, d] + variance[None, :, d]
        logs = (log_variance[:, None, d] + log_variance[None, :, d]) / 2
        own = (mean[:, None, d] - mean[None, :, d]).square() / (4 * both) + ((both / 2).log() - logs) / 2
        own.fill_diagonal_(0)
        distance += own
        by_dimension[d] = (-own[apart]).exp().mean()
    matrix = (-distance).exp()
    return Overlap(matrix, matrix[apart].mean().item(), by_dimension)


def _posteriors(
    what: str, model: nn.Module, batches: Iterable[Any], most: int | None = None
) -> tuple[Tensor, Tensor]:
    """Means and log variances [N, Z] in float64, on the CPU; of ``most`` examples or a batch more."""
    if not isinstance(model, nn.Module) or not callable(getattr(model, "encode", None)):
        raise TypeError(f"{what}: expected a VAE, a ConvVAE or a SequenceVAE, got {type(model).__name__}")
    encoder: Any = model
    found: list[tuple[Tensor, ...]] = []
    with evaluating(model), torch.no_grad():
        for batch in batches:
            given = batch if isinstance(batch, (tuple, list)) else (batch,)
            found.append(tuple(t.double().cpu() for t in encoder.encode(*given)))
            if most is not None and sum(len(mean) for mean, _ in found) >= most:
                break
    if not sum(len(mean) for mean, _ in found):
        raise ValueError(f"{what}: expected at least one example, got none")
    mean, log_variance = (torch.cat(parts) for parts in zip(*found, strict=True))
    return mean, log_variance
