"""MLPGAN: dense layers on small images, or on any feature vectors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..._arguments import number, whole
from .base import ImageGAN


class MLPGAN(ImageGAN):
    """Noise 100 -> 256 -> 512 -> 784, tanh; and 784 -> 256 -> 256 -> 1, LeakyReLU.

    shape: of one sample, [C, H, W] for images, [F] for vectors; values in [-1, 1], where tanh can reach.
    noise_size: length of the noise. hidden: widths inside the generator; critic_hidden: inside the
    discriminator. slope: of every LeakyReLU below zero. num_classes, ema: see ``GAN``. spectral_norm: on the
    discriminator's weights.

    generator: [N, noise_size + num_classes] -> [N, *shape]. discriminator: an nn.Sequential that the fused
    discriminator step knows, [N, *shape] -> [N, 1]; with classes [N, prod(shape) + num_classes] -> [N, 1].
    Raises TypeError or ValueError, naming the argument, for a wrong option.

    Source: the dense networks of Goodfellow et al. 2014 (arXiv:1406.2661), in sizes of our own.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        noise_size: int = 100,
        hidden: Sequence[int] = (256, 512),
        critic_hidden: Sequence[int] = (256, 256),
        *,
        num_classes: int = 0,
        slope: float = 0.2,
        spectral_norm: bool = False,
        ema: float = 0.0,
    ) -> None:
        super().__init__(noise_size, num_classes, ema)
        self.shape = _sizes("shape", shape)
        self._own_width = math.prod(self.shape)
        slope = number("slope", slope, 0)
        first, last = self.noise_size + self.num_classes, self._own_width
        self.generator = nn.Sequential(
            *_dense((first, *_sizes("hidden", hidden), last), slope), nn.Tanh(), nn.Unflatten(1, self.shape)
        )
        sizes = (self._own_width + self.num_classes, *_sizes("critic_hidden", critic_hidden), 1)
        self.discriminator = nn.Sequential(nn.Flatten(), *_dense(sizes, slope))
        self._finish(spectral_norm)

    def _joined(self, samples: Tensor, labels: Tensor) -> Tensor:
        return torch.cat((samples.flatten(1), self._one_hot(labels, samples)), 1)


def _dense(sizes: Sequence[int], slope: float) -> list[nn.Module]:
    """Linear layers with LeakyReLU between them."""
    layers: list[nn.Module] = []
    for n, m in itertools.pairwise(sizes):
        layers += [nn.Linear(n, m), nn.LeakyReLU(slope)]
    return layers[:-1]


def _sizes(name: str, given: Sequence[int]) -> tuple[int, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"{name}: expected a sequence of integers, got {type(given).__name__}")
    if not given:
        raise ValueError(f"{name}: expected at least one size, got none")
    return tuple(whole(f"{name}[{i}]", size, 1) for i, size in enumerate(given))
