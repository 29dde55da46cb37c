"""Images: scikit-learn's digits and photographs, folders, .npy files; grids of them as PNG.

Pixels stay uint8 until a batch is made; ``Images.samples`` brings them to [-1, 1], the range of tanh.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .._arguments import whole

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class Images:
    """name: where they came from, for people. pixels: uint8 [N, C, H, W], C 1 or 3. labels: int64 [N] or
    None; classes: their names. skipped: files that were left out, each with the reason."""

    name: str
    pixels: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def samples(self, index: Tensor | slice = slice(None)) -> Tensor:
        """float32 [n, C, H, W] in [-1, 1] of the images at ``index``."""
        return self.pixels[index].float() / 127.5 - 1


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


def read_images(
    path: str | os.PathLike,
    size: int | None = None,
    *,
    channels: int = 3,
    value_range: tuple[float, float] | None = None,
    argument: str = "path",
) -> Images:
    """The images in a folder (any depth), or in a .npy file.

    size: every image's shorter side is brought to it and the middle cut out; None: as they are, all of one
    shape. channels: 1 grey, 3 colour; converted where the files have others. Where all images of a folder
    lie in folders of their own inside it, these are the classes. Hidden files and folders are passed over;
    what is not an image, or cannot be read, is listed in ``Images.skipped``.

    .npy: [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3. uint8, or floating-point values in
    ``value_range``, (-1, 1) by default.

    Raises OSError for what cannot be read, ValueError for what holds no images or ones that do not fit,
    ModuleNotFoundError where pillow is missing; the message begins with ``argument``.
    """
    if not os.fspath(path):
        raise ValueError(f"{argument}: expected a path, got an empty one")
    path = Path(path)
    _check_channels(channels)
    if size is not None:
        whole("size", size, 1)
    if path.is_dir():
        if value_range is not None:
            raise ValueError("value_range: only .npy files have one, got a folder")
        return _read_folder(path, size, channels, argument)
    if path.suffix == ".npy":
        return _read_array(path, size, channels, value_range, argument)
    if not path.exists():
        raise FileNotFoundError(f"{argument}: cannot read {path}: No such file or directory")
    raise ValueError(f"{argument}: expected a folder of images or a .npy file, got {path}")


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


def save_grid(path: str | os.PathLike, samples: Tensor, columns: int = 8) -> None:
    """Writes ``grid(samples, columns)`` as an image file, the folder made where missing; its kind by the
    name's ending. The file is complete or not there."""
    image = _needed("PIL.Image", "pillow")
    picture = grid(samples, columns)
    array = picture[0].numpy() if picture.shape[0] == 1 else picture.permute(1, 2, 0).numpy()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.part{path.suffix}")
    image.fromarray(np.ascontiguousarray(array)).save(unfinished)
    unfinished.replace(path)


# ---- parts ------------------------------------------------------------------------------------------


def _needed(module: str, package: str):
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


def _read_folder(folder: Path, size: int | None, channels: int, argument: str) -> Images:
    image = _needed("PIL.Image", "pillow")
    pixels, groups, skipped = [], [], []

    def refuse(error: OSError) -> None:
        raise type(error)(f"{argument}: cannot read {error.filename}: {error.strerror}") from error

    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            path = Path(root, name)
            if path.suffix.lower() not in ENDINGS:
                skipped.append(f"{path} is not an image by its name")
                continue
            try:
                with image.open(path) as opened:
                    array = np.asarray(opened.convert("RGB" if channels == 3 else "L"))
            except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as error:
                skipped.append(f"{path} cannot be read as an image: {error}")
                continue
            one = torch.from_numpy(array.copy()).view(*array.shape[:2], channels).permute(2, 0, 1)
            pixels.append(one if size is None else _resized(one.unsqueeze(0), size)[0])
            inside = path.relative_to(folder).parts
            groups.append(inside[0] if len(inside) > 1 else None)
            if pixels[-1].shape != pixels[0].shape:
                first, here = (list(p.shape[1:]) for p in (pixels[0], pixels[-1]))
                raise ValueError(
                    f"{argument}: expected images of one size (or give size), got {first} and {here} ({path})"
                )
    if not pixels:
        why = "; ".join(skipped[:3]) or "it holds no files"
        raise ValueError(f"{argument}: no images in {folder}: {why}")
    classes = sorted(set(groups) - {None})
    labels = None
    if None not in groups and len(classes) > 1:
        labels = torch.tensor([classes.index(group) for group in groups])
    return Images(
        str(folder), torch.stack(pixels), labels, tuple(classes) if labels is not None else (), tuple(skipped)
    )


def load_array(path: Path, argument: str) -> np.ndarray:
    """A .npy file of numbers. Raises OSError or ValueError, the message beginning with ``argument``."""
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"{argument}: cannot read {path}: {reason}") from error
    except (ValueError, EOFError) as error:
        raise ValueError(f"{argument}: {path} is not a .npy file of numbers: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uif":
        kind = getattr(array, "dtype", type(array).__name__)
        raise ValueError(f"{argument}: {path}: expected an array of real numbers, got {kind}")
    if array.size == 0:
        raise ValueError(f"{argument}: {path} is empty: shape {list(array.shape)}")
    if not np.isfinite(array).all():
        where = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise ValueError(f"{argument}: {path} holds NaN or infinity, first at {where}")
    return array


def _read_array(path: Path, size, channels: int, value_range, argument: str) -> Images:
    array = load_array(path, argument)
    if array.dtype == np.uint8:
        if value_range is not None:
            raise ValueError(f"value_range: only floating-point arrays have one, {path} is uint8")
        low, high = 0.0, 255.0
    elif array.dtype.kind == "f":
        low, high = value_range or (-1.0, 1.0)
        if not low < high:
            raise ValueError(f"value_range: expected (low, high), got {value_range}")
        least, most = float(array.min()), float(array.max())
        if least < low or most > high:
            raise ValueError(
                f"{argument}: {path}: expected values from {low:g} to {high:g} (see value_range), "
                f"got {least:g} to {most:g}"
            )
    else:
        raise ValueError(f"{argument}: {path}: expected uint8 or floating point, got {array.dtype}")
    pixels = torch.from_numpy(np.ascontiguousarray(_channels_first(array, path, argument)))
    if pixels.dtype != torch.uint8:
        pixels = ((pixels.float() - low) * (255 / (high - low))).round().to(torch.uint8)
    pixels = _with_channels(pixels, channels)
    return Images(str(path), pixels if size is None else _resized(pixels, size))


def _channels_first(array: np.ndarray, path: Path, argument: str) -> np.ndarray:
    shape = list(array.shape)
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4:
        first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3)
        if last and not first:
            return array.transpose(0, 3, 1, 2)
        if first and not last:
            return array
        if first and last:
            raise ValueError(f"{argument}: {path}: cannot tell channels from width in shape {shape}")
    raise ValueError(
        f"{argument}: {path}: expected shape [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3, "
        f"got {shape}"
    )
