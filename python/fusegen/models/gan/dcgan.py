"""DCGAN: convolutions, after Radford et al. 2016 (arXiv:1511.06434)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from ..._arguments import whole
from .base import ImageGAN

SIZES = {28: 7, 32: 4, 64: 4}  # of an image, and where the generator's doubling begins


class DCGAN(ImageGAN):
    """Transposed convolutions with BatchNorm against strided convolutions.

    size: 28, 32 or 64 pixels. channels: 1 or 3; values in [-1, 1]. width: channels of the layer next to the
    image, doubled with every halving of the size. noise_size, num_classes, ema: see ``GAN``.
    spectral_norm: on the discriminator's weights.

    generator: [N, noise_size + num_classes] -> [N, channels, size, size]. discriminator:
    [N, channels + num_classes, size, size] -> [N, 1], labels as planes of ones and zeros. It has no BatchNorm
    (which would make a penalty of one sample depend on the others), so that the step's closed form knows it.
    Weights start as in the paper, normal with a deviation of 0.02.
    Raises TypeError or ValueError, naming the argument, for a wrong option.

    Source: Radford et al. 2016 (arXiv:1511.06434), whose layers and weights at the start these are.
    """

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        noise_size: int = 100,
        width: int = 64,
        *,
        num_classes: int = 0,
        spectral_norm: bool = False,
        ema: float = 0.0,
    ) -> None:
        super().__init__(noise_size, num_classes, ema)
        size, channels = whole("size", size, 1), whole("channels", channels, 1)
        if size not in SIZES:
            raise ValueError(f"size: expected one of {', '.join(map(str, SIZES))}, got {size!r}")
        if channels not in (1, 3):
            raise ValueError(f"channels: expected 1 or 3, got {channels!r}")
        whole("width", width, 1)
        self.size, self.channels, self.width = size, channels, width
        self.shape, self._own_width = (channels, size, size), channels
        side = SIZES[size]
        widths = [width << i for i in range((size // side).bit_length() - 1)]
        self.generator = _generator(self.noise_size + self.num_classes, side, widths[::-1], channels)
        self.discriminator = _discriminator(channels + self.num_classes, side, widths)
        _initialise(self.generator)
        _initialise(self.discriminator)
        self._finish(spectral_norm)

    def _joined(self, samples: Tensor, labels: Tensor) -> Tensor:
        planes = self._one_hot(labels, samples)[:, :, None, None].expand(-1, -1, *samples.shape[2:])
        return torch.cat((samples, planes), 1)


def _generator(inputs: int, side: int, widths: list[int], channels: int) -> nn.Sequential:
    """[N, inputs] -> [N, channels, side * 2^len(widths), ...]"""
    layers: list[nn.Module] = [
        nn.Unflatten(1, (inputs, 1, 1)),
        nn.ConvTranspose2d(inputs, widths[0], side, bias=False),
    ]
    for now, after in itertools.pairwise(widths):
        layers += [nn.BatchNorm2d(now), nn.ReLU(), nn.ConvTranspose2d(now, after, 4, 2, 1, bias=False)]
    now = widths[-1]
    layers += [nn.BatchNorm2d(now), nn.ReLU(), nn.ConvTranspose2d(now, channels, 4, 2, 1), nn.Tanh()]
    return nn.Sequential(*layers)


def _discriminator(inputs: int, side: int, widths: list[int]) -> nn.Sequential:
    """[N, inputs, side * 2^len(widths), ...] -> [N, 1]"""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(inputs, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        inputs = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * side * side, 1))


def _initialise(net: nn.Module) -> None:
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(m.weight, 0.0, 0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight, 1.0, 0.02)
            nn.init.zeros_(m.bias)
