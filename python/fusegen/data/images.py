"""Pictures: digits, folders of image files, MNIST and CIFAR in the formats they are published in, arrays."""

import contextlib
import gzip
import io
import os
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .._arguments import whole
from ._memory import check_fits
from .files.arrays import read_array
from .files.folders import files_below
from .files.paths import path_of, source_of

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".tga",
    ".tif", ".tiff", ".jp2",
)  # fmt: skip
# Pictures that pillow does not read, or not everywhere.
_FOREIGN = (".heic", ".heif", ".avif", ".svg", ".psd", ".raw", ".dng", ".nef", ".cr2", ".arw", ".eps", ".pdf")
_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}


@dataclass(frozen=True)
class Images:
    """pixels: uint8 [N, C, H, W]. labels: int64 [N] or None; classes: their names. skipped, notes: as in
    `Text`.

    name: where they came from, for people.
    """

    name: str
    pixels: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def samples(self, index: Tensor | slice = slice(None)) -> Tensor:
        """float32 [n, C, H, W] in [-1, 1], the range of tanh, of the images at `index`."""
        return self.pixels[index].float() / 127.5 - 1


def read_images(
    source: str | os.PathLike[str],
    argument: str = "source",
    *,
    split: str = "train",
    column: str = "image",
    channels: int | None = None,
    size: int | None = None,
) -> Images:
    """Pictures by their name or place:

    "digits": scikit-learn's 1,797 digits of 8 x 8, no download; values 0 to 16 spread over 0 to 255.
    A folder: MNIST's files (train-images-idx3-ubyte, t10k-..., with .gz or without), CIFAR-10's and -100's
    (data_batch_1.bin, train.bin, or the pickled ones, of which nothing but arrays is loaded), or image files,
    all of one size, or brought to ``size``, once they are upright (their EXIF orientation is followed) and,
    where they are transparent, on white; of several pictures in a file the first is read. The
    folders right below it are the classes, those that hold an image that can be read; links are followed,
    hidden folders and what programs leave behind passed over and named in `Images.skipped`.
    A .npy or .npz: [N, H, W] or [N, C, H, W], uint8, or real numbers from 0 to 1; memory-mapped as uint8.
    "hf:NAME": a data set's `column` of pictures, and its "label" where there is one.

    split: "train" or "test" of MNIST and CIFAR, or a data set's. channels: 1 or 3 brings image files, and
    those of a data set, to grey (ITU-R 601) or colour one by one, so that both may stand side by side.
    size: brings images of all sources to size x size, those of files and data sets one by one, so that they
    may be of several: the shorter side by bilinear interpolation, of the longer one the middle is kept;
    `Images.notes` says so. None leaves them as they are.
    Raises OSError or ValueError, beginning with `argument`, or with `split` or `column` where the source has
    no such thing.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"channels: expected 1 or 3, got {channels!r}")
    if size is not None:
        whole("size", size, 1)
    source = source_of(source, argument)
    is_array = source.lower().endswith((".npy", ".npz"))
    if not source:
        raise ValueError(f"{argument}: expected a name or a path, got an empty one")
    if not source.startswith("hf:"):
        if column != "image" and not source.lower().endswith(".npz"):
            raise ValueError(
                f"column: expected an hf: data set or an .npz to read {column!r} of, got {source}"
            )
        if split != "train" and (source == "digits" or is_array):
            raise ValueError(f"split: {source} has no parts, got {split!r}")
    found = _read(source, argument, split, column, channels, size)
    return found if size is None else _all_of_size(found, size)


def _read(
    source: str, argument: str, split: str, column: str, channels: int | None, size: int | None
) -> Images:
    if source == "digits":
        return _digits(argument)
    if source.startswith("hf:"):
        return _from_hub(source, split, column, argument, channels, size)
    if source.lower().endswith((".npy", ".npz")) and not Path(source).is_dir():
        return _from_array(source, None if column == "image" else column, argument)
    folder = path_of(source, argument)
    if not folder.is_dir():
        why = "it is not a folder" if folder.exists() else "No such file or directory"
        if folder.is_file() and folder.suffix.lower() in (*SUFFIXES, *_FOREIGN):
            why = "it is one picture; put pictures into a folder, and name that"
        raise FileNotFoundError(f"{argument}: cannot read {folder}: {why}")
    try:
        for reader in (_mnist, _cifar_bin, _cifar_pickled):
            if (images := reader(folder, split, argument)) is not None:
                return images
        if split != "train":
            raise ValueError(
                f"split: {folder} holds no files of MNIST or CIFAR of {split!r}, and no other parts"
            )
        return _from_files(folder, argument, channels, size)
    except OSError as error:
        if error.strerror is None:
            raise
        where = error.filename or folder
        raise type(error)(f"{argument}: cannot read {where}: {error.strerror}") from error


def has_test_split(source: str | os.PathLike[str]) -> bool:
    """Whether the source is a folder with MNIST's or CIFAR's files of the test split.

    source: as in `read_images`. Nothing is raised: what is no folder has none.
    """
    folder = Path(source)
    with contextlib.suppress(RuntimeError):
        folder = folder.expanduser()
    if _first_of(folder, "t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"):
        return True
    if (folder / "meta").is_file() and (folder / "test").is_file():
        return True
    return any((folder / name).is_file() for name in ("test_batch.bin", "test.bin", "test_batch"))


def _digits(argument: str) -> Images:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(f"{argument}: digits needs scikit-learn: pip install scikit-learn") from error
    held = load_digits()
    pixels = torch.from_numpy(np.rint(held.images * (255 / 16)).astype(np.uint8))[:, None]
    return Images("digits", pixels, torch.from_numpy(held.target).long(), tuple("0123456789"))


def _from_array(source: str, name: str | None, argument: str) -> Images:
    array = read_array(source, name, argument)
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[1] > 4):
        expected = "expected [N, H, W] or [N, C, H, W] with C at most 4"
        raise ValueError(f"{argument}: {source}: {expected}, got {list(array.shape)}")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            found = f"{array.min():g} to {array.max():g}"
            raise ValueError(f"{argument}: {source}: expected real numbers from 0 to 1, got {found}")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"{argument}: {source}: expected uint8 or real numbers, got {array.dtype}")
    pixels = torch.from_numpy(array)
    return Images(source, pixels[:, None] if pixels.dim() == 3 else pixels)


def _from_hub(
    source: str, split: str, column: str, argument: str, channels: int | None, size: int | None
) -> Images:
    from .files.hub import column_of, read_hub

    rows = read_hub(source, split, argument)
    pictures = list(column_of(rows, column, source, argument))

    def read() -> Iterator[tuple[str, np.ndarray]]:
        for number, picture in enumerate(pictures):
            where = f"{source}, row {number}"
            try:
                array = _bytes_of(picture) if hasattr(picture, "convert") else np.asarray(picture)
            except ValueError as error:
                raise ValueError(f"{argument}: {where}: {error}") from error
            if array.dtype != np.uint8 or array.ndim not in (2, 3):
                found = f"{array.dtype} {list(array.shape)}"
                raise ValueError(f"{argument}: {where}: expected a picture in {column!r}, got {found}")
            yield where, array

    pixels, notes = _stack(read(), argument, channels, size)
    labels = _labels(rows["label"], source, argument) if "label" in rows.column_names else None
    return Images(
        source, pixels, labels, tuple(getattr(rows.features.get("label"), "names", ()) or ()), (), notes
    )


def _labels(column: Any, source: str, argument: str) -> Tensor | None:
    """int64 [N]; None where all are -1, as in a test split that is not to be known."""
    labels = list(column)
    if wrong := [each for each in labels if type(each) is not int]:
        raise ValueError(f"{argument}: {source}: expected numbers of classes in 'label', got {wrong[0]!r}")
    if min(labels) < 0:
        if max(labels) < 0:
            return None
        raise ValueError(f"{argument}: {source}: expected labels of 0 or more, got {min(labels)}")
    return torch.tensor(labels)


def _from_files(folder: Path, argument: str, channels: int | None, size: int | None) -> Images:
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError(f"{argument}: {folder}: image files need pillow: pip install pillow") from error
    below, skipped = files_below(folder)
    paths = sorted(path for path in below if path.suffix.lower() in SUFFIXES)
    foreign = [path for path in below if path.suffix.lower() in _FOREIGN]
    skipped += [f"{path} is a picture in a format that is not read" for path in foreign]
    if not paths:
        besides = f" ({'; '.join(skipped[:3])})" if skipped else ""
        raise ValueError(f"{argument}: there is no image in {folder}{besides}")
    read, owners, unread = [], [], []
    several, transparent = [], []
    for path in paths:
        try:
            with Image.open(path) as picture:
                read.append((str(path), _bytes_of(picture)))
                if (
                    getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO"
                ):  # whose others are previews
                    several.append(path)
                if _is_transparent(picture):
                    transparent.append(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            unread.append(f"{path} is not an image, or is damaged: {error}")
            continue
        owners.append(path.relative_to(folder).parts[0] if path.parent != folder else None)
    if not read:
        raise ValueError(f"{argument}: no image in {folder} can be read: {unread[0]}")
    classes = sorted({owner for owner in owners if owner is not None})
    labels = None
    if classes and _PARTS.issuperset(name.casefold() for name in classes):
        skipped.append(
            f"the classes: {', '.join(classes)} are parts of a data set and no classes; "
            f"{folder / classes[0]} would be one part with its classes"
        )
    elif classes and None not in owners:
        labels = torch.tensor([classes.index(owner) for owner in owners if owner is not None])
    elif classes:
        skipped.append(f"the classes: {owners.count(None)} images lie in {folder} itself, in no class")
    names = tuple(classes) if labels is not None else ()
    pixels, notes = _stack(read, argument, channels, size)
    if several:
        notes += (f"{len(several)} files hold several pictures, of which the first is read: {several[0]}",)
    if transparent:
        notes += (f"{len(transparent)} pictures are transparent, and put on white: {transparent[0]}",)
    return Images(str(folder), pixels, labels, names, tuple(skipped + unread), notes)


def _bytes_of(picture: Any) -> np.ndarray:
    """uint8 [H, W], or [H, W, 3] of what has colours. Greys of 16 bits keep their upper 8, where pillow would
    make white of all above 255. Turned upright, where EXIF says how the camera was held. Raises ValueError
    for greys of another range."""
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        grey = np.asarray(picture)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"expected greys from 0 to 65535, got {grey.min()} to {grey.max()}")
        return (grey.astype(np.int64) >> 8).astype(np.uint8)
    if picture.mode == "F":
        raise ValueError("its greys are real numbers, of no known range")
    mode = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
    if _is_transparent(picture):
        from PIL import Image

        shown = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", shown.size, (255, 255, 255, 255)), shown)
    return np.asarray(picture.convert(mode))


def _is_transparent(picture: Any) -> bool:
    """Whether some of a picture is not opaque: what colour lies there is nobody's choice."""
    if picture.mode not in ("RGBA", "RGBa", "LA", "La", "PA") and "transparency" not in picture.info:
        return False
    return bool(np.asarray(picture.convert("RGBA"))[..., 3].min() < 255)


def _stack(
    read: Iterable[tuple[str, np.ndarray]], argument: str, channels: int | None, size: int | None
) -> tuple[Tensor, tuple[str, ...]]:
    """(name, uint8 [H, W] or [H, W, C]) -> uint8 [N, C, H, W] and remarks. The first one's size is
    everybody's, unless they are brought to one."""
    pixels: list[np.ndarray] = []
    shapes: dict[tuple[int, ...], None] = {}
    first = ""
    for name, array in read:
        array = _brought_to(channels, array) if channels else array
        array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
        if size is not None:
            shapes[array.shape[1:]] = None
            array = resized(torch.from_numpy(np.array(array))[None], size)[0].numpy()
        if pixels and array.shape != pixels[0].shape:
            ours, theirs = ("x".join(map(str, each.shape)) for each in (array, pixels[0]))
            same_size = array.shape[1:] == pixels[0].shape[1:]
            way_out = "give channels, 1 or 3" if same_size else "give a size, to which all are brought"
            raise ValueError(
                f"{argument}: {name} is {ours} (channels x height x width), and {first} is {theirs}; "
                f"{way_out}"
            )
        first = first or name
        pixels.append(array)
    if not pixels:
        raise ValueError(f"{argument}: there is no image")
    notes = (_resized_from(list(shapes), size),) if size and set(shapes) - {(size, size)} else ()
    return torch.from_numpy(np.stack(pixels)), notes


def _resized_from(shapes: list[tuple[int, ...]], size: int) -> str:
    """What is said of images [H, W] that were brought to one size."""
    least, most = min(shapes, key=np.prod), max(shapes, key=np.prod)
    sizes = f"{least[0]} x {least[1]}" + (f" to {most[0]} x {most[1]}" if least != most else "")
    square = all(H == W for H, W in shapes)
    cut = "" if square else ", of the longer side the middle"
    return f"images of {sizes} pixels (height x width) are brought to {size} x {size}{cut}"


def _all_of_size(images: Images, size: int) -> Images:
    """The same, those that are of one other size brought to this one."""
    if images.pixels.shape[2:] == (size, size):
        return images
    note = _resized_from([tuple(images.pixels.shape[2:])], size)
    return replace(images, pixels=resized(images.pixels, size), notes=(*images.notes, note))


def resized(pixels: Tensor, size: int) -> Tensor:
    """[N, C, H, W] of 0..255, any dtype, its shorter side brought to ``size`` bilinearly and the middle cut
    out: uint8 [N, C, size, size]."""
    H, W = pixels.shape[2:]
    if (size, size) != (H, W):
        short = min(H, W)
        _check_room(pixels.shape[:2].numel(), size)
        shape = [max(size, round(n * size / short)) for n in (H, W)]
        pixels = F.interpolate(pixels.float(), shape, mode="bilinear", align_corners=False, antialias=True)
        top, left = ((n - size) // 2 for n in shape)
        pixels = pixels[:, :, top : top + size, left : left + size]
    return pixels.round().clamp(0, 255).to(torch.uint8) if pixels.is_floating_point() else pixels


def _check_room(planes: int, size: int) -> None:
    """Raises ValueError, naming `size`, where so many planes of size x size do not fit in memory."""
    # As floats, rounded, cut off, and as bytes.
    check_fits(lambda size: 13 * planes * size**2, {"size": size}, {"size": 28}, "the images")


def _brought_to(channels: int, array: np.ndarray) -> np.ndarray:
    """uint8 [H, W] or [H, W, C] as grey [H, W] or coloured [H, W, 3]."""
    if array.ndim == 3 and array.shape[2] in (1, 2):  # grey, perhaps with opacity
        array = array[:, :, 0]
    if (array.ndim == 2) == (channels == 1):
        return array if channels == 1 else array[:, :, :3]
    if channels == 3:
        return np.repeat(array[:, :, None], 3, 2)
    from PIL import Image

    return np.asarray(Image.fromarray(np.ascontiguousarray(array[:, :, :3])).convert("L"))


def _mnist(folder: Path, split: str, argument: str) -> Images | None:
    """http://yann.lecun.com/exdb/mnist: big-endian sizes, then bytes. Fashion-MNIST's files are the same."""
    begin = "train" if split == "train" else "t10k"
    path = _first_of(folder, f"{begin}-images-idx3-ubyte", f"{begin}-images.idx3-ubyte")
    if path is None:
        return None
    pixels = _idx(path, 3, argument)
    labelled = _first_of(folder, f"{begin}-labels-idx1-ubyte", f"{begin}-labels.idx1-ubyte")
    labels = None if labelled is None else _idx(labelled, 1, argument).long()
    if labels is not None and len(labels) != len(pixels):
        raise ValueError(f"{argument}: {labelled} has {len(labels)} labels for {len(pixels)} images")
    return Images(str(folder), pixels[:, None], labels, tuple("0123456789") if labels is not None else ())


def _first_of(folder: Path, *names: str) -> Path | None:
    places = (folder / (name + end) for name in names for end in ("", ".gz"))
    return next((path for path in places if path.exists()), None)


def _idx(path: Path, dims: int, argument: str) -> Tensor:
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError) as error:
            raise ValueError(f"{argument}: {path} is not gzip, or is cut short: {error}") from error
    if content[:4] != bytes([0, 0, 8, dims]):
        raise ValueError(f"{argument}: {path} is not an IDX file of bytes in {dims} dimensions")
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
    if len(content) - 4 - 4 * dims != np.prod(shape, dtype=np.int64) or 0 in shape:
        raise ValueError(f"{argument}: {path} is cut short: it says {shape}, and has {len(content)} bytes")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 + 4 * dims).view(shape)


def _cifar_bin(folder: Path, split: str, argument: str) -> Images | None:
    """https://www.cs.toronto.edu/~kriz/cifar.html: records of a label (CIFAR-100: two, the fine one last) and
    3072 bytes."""
    ten = ["test_batch.bin"] if split == "test" else [f"data_batch_{i}.bin" for i in range(1, 6)]
    for names, labels in ((ten, 1), ([f"{split}.bin"], 2)):
        paths = [folder / name for name in names if (folder / name).exists()]
        if not paths:
            continue
        parts = []
        for path in paths:
            content = path.read_bytes()
            if not content or len(content) % (labels + 3072):
                raise ValueError(
                    f"{argument}: {path} is cut short: expected records of {labels + 3072} bytes, "
                    f"got {len(content)} bytes"
                )
            parts.append(np.frombuffer(content, np.uint8).reshape(-1, labels + 3072))
        records = torch.from_numpy(np.concatenate(parts))
        pixels = records[:, labels:].reshape(-1, 3, 32, 32).contiguous()
        meta = folder / ("batches.meta.txt" if labels == 1 else "fine_label_names.txt")
        classes = tuple(meta.read_text().split()) if meta.exists() else ()
        return Images(str(folder), pixels, records[:, labels - 1].long(), classes)
    return None


def _cifar_pickled(folder: Path, split: str, argument: str) -> Images | None:
    ten = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    for names, key, meta, named in (
        (ten, b"labels", "batches.meta", b"label_names"),
        ([split], b"fine_labels", "meta", b"fine_label_names"),
    ):
        paths = [folder / name for name in names if (folder / name).is_file()]
        if not paths or not (folder / meta).is_file():
            continue
        batches = [_unpickle(path, argument) for path in paths]
        try:
            rows = np.concatenate([np.asarray(each[b"data"], np.uint8) for each in batches])
            pixels = torch.from_numpy(rows).view(-1, 3, 32, 32)
            labels = [label for each in batches for label in each[key]]
            classes = tuple(name.decode() for name in _unpickle(folder / meta, argument)[named])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{argument}: {paths[0]} is not a batch of CIFAR: {error}") from error
        return Images(str(folder), pixels, torch.tensor(labels), classes)
    return None


class _ArraysOnly(pickle.Unpickler):
    """Loads what CIFAR's batches are made of, and runs nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.replace("numpy._core", "numpy.core"), name) in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }:
            return getattr(__import__(module, fromlist=[name]), name)
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickle(path: Path, argument: str) -> dict[bytes, Any]:
    try:
        held = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"{argument}: {path} is not a batch of CIFAR, or is damaged: {error}") from error
    if not isinstance(held, dict):
        raise ValueError(f"{argument}: {path} is not a batch of CIFAR")
    return {os.fsencode(key) if isinstance(key, str) else key: each for key, each in held.items()}
