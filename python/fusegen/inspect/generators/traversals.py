"""Ways through what a generator reads: along a dimension of a latent variable, from one noise to another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _arguments
from ..._modes import evaluating, like_of
from ...data import Vocabulary
from ...models import GAN, VAE, ConvVAE, RecurrentGAN, SequenceVAE
from ...models.latent import arcs

STEPS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)  # deviations of the prior


def traversals(
    model: VAE | ConvVAE,
    dimensions: Sequence[int],
    values: Sequence[float] = STEPS,
    *,
    base: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """What a VAE draws while one dimension of z goes from value to value and the others stay: the mean of
    p(x | z), [K, S, *data_shape], a row a dimension, in the dtype of the model.

    dimensions: K numbers, ``latent_dimensions(...).by_kl()`` for instance. values: S, in deviations of the
    prior; -3 to 3 by default. base [Z], of any real dtype: where the others stay; zeros, the prior's mean, if
    None; an example's posterior mean is another choice. labels: integers [1], of a model with classes.
    Without gradients, in evaluation mode. Raises TypeError or ValueError, which name the argument.
    """
    what = "fusegen.inspect.traversals"
    if not isinstance(model, (VAE, ConvVAE)):
        raise TypeError(f"{what}: expected a VAE or a ConvVAE, got {type(model).__name__}")
    z = _lines(what, model, dimensions, values, base)
    if labels is not None:
        labels = labels.expand(z.shape[0] * z.shape[1])
    with evaluating(model), torch.no_grad():
        drawn: Tensor = model.mean(model.decode(z.flatten(0, 1), labels)).unflatten(0, z.shape[:2])
    return drawn


def sentences_along(
    model: SequenceVAE,
    vocabulary: Vocabulary,
    dimensions: Sequence[int],
    values: Sequence[float] = STEPS,
    *,
    base: Tensor | None = None,
    max_length: int = 50,
) -> list[list[str]]:
    """What a SequenceVAE writes while one dimension of z goes from value to value and the others stay: K
    lists of S texts, of the likeliest tokens each.

    model: the SequenceVAE. vocabulary: what its tokens mean. dimensions: K numbers of dimensions of z.
    values: S, in deviations of the prior; -3 to 3 by default. base: a Tensor [Z] of any real dtype, where the
    others stay; zeros, the prior's mean, if None. max_length: of a text, in tokens, at most. Raises TypeError
    or ValueError, which name the argument.
    """
    what = "fusegen.inspect.sentences_along"
    if not isinstance(model, SequenceVAE):
        raise TypeError(f"{what}: expected a SequenceVAE, got {type(model).__name__}")
    if len(vocabulary) != model.vocab_size:
        raise ValueError(f"{what}: expected a vocabulary of {model.vocab_size} tokens, got {len(vocabulary)}")
    z = _lines(what, model, dimensions, values, base)
    tokens, lengths = model.decode(z.flatten(0, 1), max_length)
    texts = [
        vocabulary.decode(column[:length].cpu())
        for column, length in zip(tokens.T, lengths.tolist(), strict=True)
    ]
    S = z.shape[1]
    return [texts[row * S : (row + 1) * S] for row in range(len(z))]


def _lines(
    what: str,
    model: VAE | ConvVAE | SequenceVAE,
    dimensions: Sequence[int],
    values: Sequence[float],
    base: Tensor | None,
) -> Tensor:
    """z [K, S, Z]"""
    Z = model.latent_size
    chosen = _arguments.wholes(f"{what}: dimensions", list(dimensions), 0)
    if not chosen or max(chosen) >= Z:
        there = f"0..{Z - 1}" if Z else "none"
        raise ValueError(f"{what}: dimensions: z has {there}, got {list(chosen)}")
    steps = [_arguments.number(f"{what}: values", value, float("-inf")) for value in values]
    if not steps:
        raise ValueError(f"{what}: values: expected at least one")
    like = like_of(model)
    start = torch.zeros(Z) if base is None else base
    if not isinstance(start, Tensor) or start.shape != (Z,):
        came = list(start.shape) if isinstance(start, Tensor) else type(start).__name__
        raise ValueError(f"{what}: expected base [{Z}], got {came}")
    z = start.detach().to(like.device, like.dtype).repeat(len(chosen), len(steps), 1)
    for row, d in enumerate(chosen):
        z[row, :, d] = torch.tensor(steps, dtype=like.dtype, device=like.device)
    return z


def interpolation(
    gan: GAN,
    first: Tensor,
    last: Tensor,
    steps: int = 7,
    *,
    labels: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """What a GAN makes on the way from one noise to another, along arcs (White 2016, arXiv:1609.04468).

    first, last: of ``gan.noise``: [N, noise_size] of images, [T, N, noise_size] of sequences. steps: of a
    way, its ends included. labels: int [N], of a model with classes. seed: of what tokens are drawn by, the
    same at each step of a way.

    Returns [N, steps, ...] of images; of sequences [T, N, steps, F], of tokens int64 [T, N, steps]. Raises
    TypeError or ValueError, which name the argument.
    """
    what = "fusegen.inspect.interpolation"
    if not isinstance(gan, GAN):
        raise TypeError(f"{what}: expected a GAN, got {type(gan).__name__}")
    steps = _arguments.whole(f"{what}: steps", steps, 2)
    dim = gan.sample_dim
    for name, noise in (("first", first), ("last", last)):
        if not isinstance(noise, Tensor) or noise.dim() != 2 + dim or noise.shape[-1] != gan.noise_size:
            came = list(noise.shape) if isinstance(noise, Tensor) else type(noise).__name__
            shape = f"[{'T, ' * dim}N, {gan.noise_size}]"
            raise ValueError(f"{what}: expected {name} {shape}, as gan.noise gives it, got {came}")
    if first.shape != last.shape:
        raise ValueError(f"{what}: expected first and last of one shape, got {list(first.shape)} and "
                         f"{list(last.shape)}")  # fmt: skip
    if not isinstance(gan, RecurrentGAN):
        told = None if labels is None else labels.repeat_interleave(steps)
        made = gan.sample_of(arcs(first, last, steps).flatten(0, 1), told)
        found: Tensor = made.unflatten(0, (len(first), steps))
        return found
    T, N, Z = first.shape
    begin, end = (noise.transpose(0, 1).reshape(N, T * Z) for noise in (first, last))
    ways = arcs(begin, end, steps).view(N, steps, T, Z).permute(2, 0, 1, 3)
    columns = []
    for way in ways.unbind(2):
        drawn = torch.Generator().manual_seed(seed)
        columns.append(gan.sample_of(way.contiguous(), labels, generator=drawn))
    return torch.stack(columns, 2)
