"""Pictures of one size for the GANs: scikit-learn's digits and photographs, others brought to that size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .._arguments import whole
from ._optional import needed
from .images import Images, resized


def digits(size: int = 28) -> Images:
    """scikit-learn's 1,797 handwritten digits (Alpaydin and Kaynak 1998, UCI), 8 x 8 pixels of 17 greys,
    enlarged bilinearly to ``size``. Needs no download.

    Raises ModuleNotFoundError, saying what to install, where scikit-learn is missing.
    """
    whole("size", size, 8)
    found = needed("sklearn.datasets", "scikit-learn").load_digits()
    pixels = torch.from_numpy(found.images).float().unsqueeze(1) * (255 / 16)
    labels = torch.from_numpy(found.target).long()
    classes = tuple(str(c) for c in range(10))
    return Images("scikit-learn's digits", resized(pixels, size), labels, classes)


def photo_patches(size: int = 32, count: int = 4096, *, channels: int = 3, seed: int = 0) -> Images:
    """``count`` random patches of scikit-learn's two sample photographs ("china.jpg", "flower.jpg", each
    427 x 640), half of each, at half their resolution. Labels: which photograph.

    Raises ModuleNotFoundError, saying what to install, where scikit-learn or pillow is missing.

    size: pixels of a side. channels: 3, or 1 for grey. seed: of the places. Pixels are uint8 [count,
    channels, size, size].
    """
    size, count = whole("size", size, 4, 213), whole("count", count, 2)
    _check_channels(channels)
    needed("PIL", "pillow")
    found = needed("sklearn.datasets", "scikit-learn").load_sample_images()
    random = torch.Generator().manual_seed(whole("seed", seed, 0))
    patches, labels = [], torch.arange(count) * 2 // count
    photos = [_halved(torch.from_numpy(photo.copy())) for photo in found.images]
    for label in labels.tolist():
        photo = photos[label]
        top, left = (int(torch.randint(n - size + 1, (), generator=random)) for n in photo.shape[1:])
        patches.append(photo[:, top : top + size, left : left + size])
    pixels = _with_channels(torch.stack(patches), channels)
    classes = tuple(Path(name).stem for name in found.filenames)
    return Images("patches of scikit-learn's photographs", pixels, labels, classes)


def fitted(images: Images, size: int, channels: int) -> Images:
    """The same images as uint8 [N, channels, size, size]: the shorter side brought to ``size`` bilinearly and
    the middle cut out; grey ones repeated to 3 channels, coloured ones made grey by ITU-R 601.

    Raises TypeError or ValueError for a size below 1, or other channels than 1 and 3.
    """
    _check_channels(channels)
    pixels = images.pixels if images.pixels.shape[1] in (1, 3) else images.pixels[:, :3]
    if pixels.shape[1] == 2:  # grey and opacity
        pixels = pixels[:, :1]
    pixels = _with_channels(resized(pixels, whole("size", size, 1)), channels)
    return replace(images, pixels=pixels)


# ---- parts ------------------------------------------------------------------------------------------


def _check_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise ValueError(f"channels: expected 1 or 3, got {channels!r}")


def _halved(photo: Tensor) -> Tensor:
    """uint8 [H, W, C] -> [C, H // 2, W // 2]"""
    pixels = photo.permute(2, 0, 1).unsqueeze(0).float()
    return F.avg_pool2d(pixels, 2)[0].round().to(torch.uint8)


def _with_channels(pixels: Tensor, channels: int) -> Tensor:
    """uint8 [N, 1 or 3, H, W] -> [N, channels, H, W]; grey by ITU-R 601, as pillow does."""
    if pixels.shape[1] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(-1, 3, -1, -1).contiguous()
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (pixels * weights).sum(1, keepdim=True).round().to(torch.uint8)
