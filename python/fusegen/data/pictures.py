"""Pictures of one size for the GANs, from scikit-learn's digits and photographs; grids of samples as PNG."""

from __future__ import annotations

import importlib
import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .._arguments import whole
from .images import Images


def digits(size: int = 28) -> Images:
    """scikit-learn's 1,797 handwritten digits (Alpaydin and Kaynak 1998, UCI), 8 x 8 pixels of 17 greys,
    enlarged bilinearly to ``size``. Needs no download.

    Raises ModuleNotFoundError, saying what to install, where scikit-learn is missing.
    """
    whole("size", size, 8)
    found = _needed("sklearn.datasets", "scikit-learn").load_digits()
    pixels = torch.from_numpy(found.images).float().unsqueeze(1) * (255 / 16)
    labels = torch.from_numpy(found.target).long()
    classes = tuple(str(c) for c in range(10))
    return Images("scikit-learn's digits", _resized(pixels, size), labels, classes)


def photo_patches(size: int = 32, count: int = 4096, *, channels: int = 3, seed: int = 0) -> Images:
    """``count`` random patches of scikit-learn's two sample photographs ("china.jpg", "flower.jpg", each
    427 x 640), half of each, at half their resolution. Labels: which photograph.

    Raises ModuleNotFoundError, saying what to install, where scikit-learn or pillow is missing.
    """
    size, count = whole("size", size, 4, 213), whole("count", count, 2)
    _check_channels(channels)
    _needed("PIL", "pillow")
    found = _needed("sklearn.datasets", "scikit-learn").load_sample_images()
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
    the middle cut out; grey ones repeated to 3 channels, coloured ones made grey by ITU-R 601."""
    _check_channels(channels)
    pixels = images.pixels if images.pixels.shape[1] in (1, 3) else images.pixels[:, :3]
    if pixels.shape[1] == 2:  # grey and opacity
        pixels = pixels[:, :1]
    pixels = _with_channels(_resized(pixels, whole("size", size, 1)), channels)
    return replace(images, pixels=pixels)


def grid(samples: Tensor, columns: int = 8) -> Tensor:
    """Samples [N, C, H, W] in [-1, 1] as one picture uint8 [C, rows * H, columns * W], row by row; values
    beyond are cut, places left over are black."""
    if samples.dim() != 4:
        raise ValueError(f"samples: expected shape [N, C, H, W], got {list(samples.shape)}")
    n, C, H, W = samples.shape
    columns = min(whole("columns", columns, 1), max(n, 1))
    rows = -(-n // columns)
    pixels = ((samples.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    pixels = torch.cat((pixels, pixels.new_zeros(rows * columns - n, C, H, W)))
    return pixels.view(rows, columns, C, H, W).permute(2, 0, 3, 1, 4).reshape(C, rows * H, columns * W)


def curves(sequences: Tensor, lengths: Tensor | None = None, columns: int = 4) -> Tensor:
    """Sequences [T, N, F] in [-1, 1] as one picture uint8 [3, H, W] of a small plot each, row by row: a line
    for each feature, -1 at the bottom; what lies past ``lengths`` [N] is not drawn. Needs pillow."""
    if sequences.dim() != 3 or 0 in sequences.shape:
        raise ValueError(f"sequences: expected shape [T, N, F], got {list(sequences.shape)}")
    image, draw = (_needed(f"PIL.{name}", "pillow") for name in ("Image", "ImageDraw"))
    T, n, F = sequences.shape
    columns = min(whole("columns", columns, 1), n)
    width, height = _PLOT
    picture = image.new("RGB", (columns * width, -(-n // columns) * height), "white")
    pen = draw.Draw(picture)
    y = (1 - sequences.detach().float().cpu().clamp(-1, 1)) / 2 * (height - 9) + 4
    x = torch.linspace(4, width - 5, T) if T > 1 else torch.tensor([width / 2])
    for i in range(n):
        left, top = i % columns * width, i // columns * height
        pen.rectangle((left, top, left + width - 1, top + height - 1), outline=(210, 210, 210))
        end = T if lengths is None else int(lengths[i])
        for feature in range(F):
            points = [(left + x[t].item(), top + y[t, i, feature].item()) for t in range(end)]
            pen.line(points if end > 1 else points * 2, fill=_COLOURS[feature % len(_COLOURS)])
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def png(picture: Tensor) -> bytes:
    """A picture uint8 [C, H, W] of 1 or 3 channels as the content of a PNG file."""
    content = io.BytesIO()
    _as_image(picture).save(content, "PNG", optimize=True)
    return content.getvalue()


def save_grid(path: str | os.PathLike[str], samples: Tensor, columns: int = 8) -> None:
    """Writes ``grid(samples, columns)`` as an image file, the folder made where missing; its kind by the
    name's ending. The file is complete or not there."""
    picture = _as_image(grid(samples, columns))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.part{path.suffix}")
    picture.save(unfinished)
    unfinished.replace(path)


# ---- parts ------------------------------------------------------------------------------------------


_PLOT = (120, 80)  # pixels of one sequence's plot
# Okabe and Ito's colours, which the colour-blind tell apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def _as_image(picture: Tensor) -> Any:
    image = _needed("PIL.Image", "pillow")
    array = picture[0].numpy() if picture.shape[0] == 1 else picture.permute(1, 2, 0).numpy()
    return image.fromarray(np.ascontiguousarray(array))


def _needed(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{package} is needed for this: pip install {package}", name=error.name
        ) from error


def _check_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise ValueError(f"channels: expected 1 or 3, got {channels!r}")


def _resized(pixels: Tensor, size: int) -> Tensor:
    """[N, C, H, W] of 0..255, any dtype, its shorter side brought to ``size`` and the middle cut out."""
    H, W = pixels.shape[2:]
    if (size, size) != (H, W):
        short = min(H, W)
        shape = [max(size, round(n * size / short)) for n in (H, W)]
        pixels = F.interpolate(pixels.float(), shape, mode="bilinear", align_corners=False, antialias=True)
        top, left = ((n - size) // 2 for n in shape)
        pixels = pixels[:, :, top : top + size, left : left + size]
    return pixels.round().clamp(0, 255).to(torch.uint8) if pixels.is_floating_point() else pixels


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
