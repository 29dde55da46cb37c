"""Measures of models that give a likelihood or a bound on it: perplexity, bits per character, the ELBO."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from .._arguments import number, whole
from .._modes import evaluating

if TYPE_CHECKING:
    from ..models import VAE, ConvVAE, SequenceVAE


def perplexity(nats: float, tokens: int) -> float:
    """exp of the cross entropy per token: nats, -log p summed over ``tokens`` of them (Jelinek et al. 1977).

    What counts as a token decides: with the ends of sequences counted among them, their -log p belongs in
    ``nats``. From a bound on the likelihood it is an upper bound. inf where it is beyond a float.
    Raises TypeError or ValueError for numbers that are none, or no token.
    """
    rate = number("nats", nats, -math.inf) / whole("tokens", tokens, 1)
    return math.exp(rate) if rate < 709 else math.inf


def bits_per_character(nats: float, characters: int) -> float:
    """-log2 p per character of the text, whatever its tokens: nats / (characters ln 2). Models with other
    tokens compare by it (``count_characters`` counts those of bytes). Raises as ``perplexity``.

    The errors are TypeError and ValueError. The measure is that of Graves 2013 (arXiv:1308.0850).
    """
    return number("nats", nats, -math.inf) / (whole("characters", characters, 1) * math.log(2))


class LatentMeasures(NamedTuple):
    """Of a model with a latent variable, on N examples, in nats per example.

    elbo = log_likelihood - kl (Kingma and Welling 2014, arXiv:1312.6114): E_q log p(x | z), by ``draws``
    draws of z for each example, and KL(q(z | x) || p(z)), exact. importance: the importance-weighted bound
    from k draws (Burda et al. 2016, arXiv:1509.00519, eq. 8), which lies between the ELBO and log p(x) on
    average; None where k is 0. active_units: dimensions of z with Var_x E[z | x] above the threshold (the
    same, section 4.2).

    count: N.
    """

    elbo: float
    log_likelihood: float
    kl: float
    importance: float | None
    active_units: int
    count: int  # type: ignore[assignment]  # the name, which hides a tuple's method, is public


@torch.no_grad()
def latent_measures(
    model: VAE | ConvVAE | SequenceVAE,
    batches: Iterable[Any],
    *,
    k: int = 0,
    chunk: int | None = None,
    draws: int = 1,
    threshold: float = 0.01,
    generator: torch.Generator | None = None,
) -> LatentMeasures:
    """The measures of a ``VAE``, ``ConvVAE`` or ``SequenceVAE`` in evaluation mode, means over all examples.

    batches: x, or (x, labels) of a conditional VAE, or (tokens, lengths); read once and held. k, chunk: as in
    the model's ``iwae``. generator: where z is drawn; None: torch's global random numbers.
    Raises TypeError or ValueError naming the argument, ValueError where there is no example.

    draws: of z for each example, for the first two terms. threshold: above which variance a unit counts as
    active. Sources: Kingma and Welling 2014, Burda et al. 2016 (see ``LatentMeasures``).
    """
    k, draws = whole("k", k, 0), whole("draws", draws, 1)
    threshold = number("threshold", threshold, 0)
    held = [batch if isinstance(batch, tuple | list) else (batch,) for batch in batches]
    likelihood, kl, importance, count = 0.0, 0.0, 0.0, 0
    with evaluating(model):
        for batch in held:
            for _ in range(draws):
                terms = model.elbo(*batch, generator=generator)
                likelihood += terms.log_likelihood.double().sum().item() / draws
            kl += terms.kl.double().sum().item()
            count += len(terms.kl)
            if k:
                x, *rest = batch
                bound = model.iwae(x, k, *rest, chunk=chunk, generator=generator)
                importance += bound.double().sum().item()
        if not count:
            raise ValueError("batches: expected at least one example, got none")
        active = model.active_units(held, threshold)
    likelihood, kl, importance = likelihood / count, kl / count, importance / count
    return LatentMeasures(likelihood - kl, likelihood, kl, importance if k else None, active, count)
