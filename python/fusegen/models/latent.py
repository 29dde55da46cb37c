"""A latent variable z with a diagonal Gaussian posterior and the prior N(0, I): its mathematics, in nats."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Elbo(NamedTuple):
    """The terms of the evidence lower bound (Kingma and Welling 2014, arXiv:1312.6114), per example.

    log_likelihood [B]: E_q log p(x | z). kl [B]: KL(q(z | x) || p(z)). Both in nats, float32 or wider.
    """

    log_likelihood: Tensor  # [N]: log p(x | z), z drawn once from q(z | x)
    kl: Tensor  # [N, Z]: KL(q(z_d | x) || p(z_d)) of each latent dimension

    @property
    def bound(self) -> Tensor:
        """[N]: the one-sample estimate of the bound on log p(x)."""
        return self.log_likelihood - self.kl.sum(-1)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each element, in closed form; 16-bit types in float32."""
    mean, log_variance = at_least_float(mean), at_least_float(log_variance)
    return 0.5 * (mean.square() + log_variance.expm1() - log_variance)


def log_normal(x: Tensor, mean: Tensor | float, log_variance: Tensor | float) -> Tensor:
    """log N(x; mean, exp(log_variance)) of each element."""
    log_variance = torch.as_tensor(log_variance, dtype=x.dtype, device=x.device)
    return -0.5 * ((x - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi))


def standard_normal(shape: Iterable[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Drawn from N(0, 1) with the dtype and device of `like`; on the generator's device, if one is given."""
    shape = tuple(shape)
    if generator is None:  # not generator=None: that overload takes no symbolic sizes under torch.compile
        return torch.randn(shape, device=like.device, dtype=like.dtype)
    return torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def reparameterise(mean: Tensor, log_variance: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """mean + exp(log_variance / 2) * e with e from N(0, I): z of mean's shape, differentiable in both."""
    return mean + (0.5 * log_variance).exp() * standard_normal(mean.shape, mean, generator)


def arcs(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """Ways of ``steps`` points from each row of first [N, n] to that of last [N, n], along arcs (White 2016,
    arXiv:1609.04468): [N, steps, n], the ends included. On a straight line standard normal noise is too short
    in the middle to be what a generator knows. Rows of one direction, of which there is no arc, go straight.
    """
    share = torch.linspace(0, 1, steps, device=first.device, dtype=first.dtype)[:, None]
    first, last = first[:, None], last[:, None]
    angle = F.cosine_similarity(first, last, dim=2)[..., None].clamp(-1, 1).acos()
    length = angle.sin()
    curved = (((1 - share) * angle).sin() * first + (share * angle).sin() * last) / length
    return torch.where(length.abs() > 1e-4, curved, first.lerp(last, share))


def importance_bound(
    log_likelihood: Callable[[Tensor], Tensor],
    mean: Tensor,
    log_variance: Tensor,
    k: int,
    chunk: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """log 1/k sum_i p(x | z_i) p(z_i) / q(z_i | x) with z_i from q: [N].

    Burda et al. 2016, arXiv:1509.00519.
    log_likelihood: log p(x | z), [c, N] for z [c, N, Z]. mean, log_variance: of q(z | x), each [N, Z].
    k: samples; at k = 1 an estimate of the ELBO, rising to log p(x) as k grows.
    chunk: how many of them are held at a time (memory); None: all. Differentiable in all that is given.
    """
    weights = []
    for first in range(0, k, chunk or k):
        c = min(chunk or k, k - first)
        # one by one: torch.randn in other pieces gives other numbers, and the chunk must not matter
        z = torch.stack([reparameterise(mean, log_variance, generator) for _ in range(c)])
        weights.append(log_likelihood(z) + (log_normal(z, 0, 0) - log_normal(z, mean, log_variance)).sum(-1))
    return torch.cat(weights).logsumexp(0) - math.log(k)


@torch.no_grad()
def posterior_mean_variance(means: Iterable[Tensor]) -> Tensor:
    """Var over the data of E[z_d | x]: float64 [Z], from batches of posterior means [N, Z], read once.

    Batches are merged by Chan et al. 1983; the variance is the population's (over the count of examples).
    Raises ValueError where there is no example.
    """
    count, mean, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for batch in means:
        batch = batch.double()
        if not len(batch):
            continue
        total, shift = count + len(batch), batch.mean(0) - mean
        squares = (
            squares + (batch - batch.mean(0)).square().sum(0) + shift.square() * count * len(batch) / total
        )
        mean, count = mean + shift * len(batch) / total, total
    if not count:
        raise ValueError("loader: expected at least one example, got none")
    return squares / count


def check_latents(name: str, z: object, size: int) -> None:
    """Raises TypeError unless z is a floating-point tensor, ValueError unless its shape is [N, size]."""
    if not isinstance(z, Tensor) or not z.is_floating_point():
        got = z.dtype if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(f"{name}: expected a floating-point tensor, got {got}")
    if z.dim() != 2 or z.shape[1] != size:
        raise ValueError(f"{name}: expected shape [N, {size}], got {list(z.shape)}")


def at_least_float(t: Tensor) -> Tensor:
    """t, in float32 if its type is a 16-bit one."""
    return t.to(torch.promote_types(t.dtype, torch.float32))
