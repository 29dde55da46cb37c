"""Real-valued sequences: matplotlib's sample data, arrays, tables and sound files, cut into windows."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._arguments import number, whole
from ._memory import memory, told
from .files import sound, tables
from .files.arrays import read_array
from .files.folders import files_below
from .files.paths import path_of


@dataclass(frozen=True)
class Series:
    """Windows of one or more recordings, time-major and scaled.

    name: where they came from, for people. values: float32 [T, N, F] in [-1, 1], zero past a window's end.
    lengths: int64 [N], or None where all windows are full. low, high: float64 [F], what -1 and 1 stand for.
    features: their names. overlap: how many windows after one still share steps with it. labels: int64 [N],
    the class of each window, and classes, their names, where the recordings have classes. skipped: what of
    the data was left out, and why. notes: how they were read, where that is not plain. rate: of sounds, in
    hertz. recordings: how long each is, in steps, where they are known.
    """

    name: str
    values: Tensor
    lengths: Tensor | None
    low: Tensor
    high: Tensor
    features: tuple[str, ...]
    overlap: int = 0
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rate: int | None = None
    recordings: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.values.shape[1]

    def original(self, values: Tensor) -> Tensor:
        """values [..., F] in [-1, 1] in the units of the source, float64."""
        return self.low + (values.double() + 1) / 2 * (self.high - self.low)

    def split(self, held_out: float = 0.2) -> tuple[Series, Series]:
        """(The first windows, the last ``held_out`` of them), with those left out between that overlap both.

        Raises ValueError where one side would be empty.
        """
        held_out = number("held_out", held_out, 0, 1, open_below=True, open_above=True)
        last = max(1, round(len(self) * held_out))
        first = len(self) - last - self.overlap
        if first < 1:
            raise ValueError(
                f"held_out: {len(self)} windows, {self.overlap} of them overlapping a cut, "
                "leave nothing to train on"
            )
        return self._part(slice(0, first)), self._part(slice(len(self) - last, None))

    def _part(self, where: slice) -> Series:
        lengths, labels = (None if x is None else x[where] for x in (self.lengths, self.labels))
        return replace(self, values=self.values[:, where], lengths=lengths, labels=labels)


def share_prices(steps: int = 24, stride: int = 1) -> Series:
    """Google's daily open, high, low, close, volume and adjusted close, 2004 to 2008, of matplotlib's sample
    data: the first years of the "stocks" of TimeGAN (Yoon et al. 2019).

    Raises ModuleNotFoundError or FileNotFoundError where matplotlib or its sample data are missing.

    steps: of a window. stride: from one window to the next, in days.
    """
    with np.load(_sample_data("goog.npz")) as found:
        table = found["price_data"]
        names = tuple(name for name in table.dtype.names if name != "date")
        values = np.stack([table[name].astype(np.float64) for name in names], 1)
    return windows("Google's share prices", [values], steps, stride, features=names)


def eeg(steps: int = 64, stride: int = 4) -> Series:
    """Four channels of an electroencephalogram, 800 samples, of matplotlib's sample data.

    Raises ModuleNotFoundError or FileNotFoundError where matplotlib or its sample data are missing.

    steps: of a window. stride: from one window to the next, in steps.
    """
    values = np.fromfile(_sample_data("eeg.dat"), dtype=np.float64).reshape(800, 4)
    return windows("an electroencephalogram", [values], steps, stride, features=("PG3", "PG5", "PG7", "PG9"))


def read_series(
    path: str | os.PathLike[str],
    steps: int = 24,
    stride: int | None = None,
    *,
    argument: str = "path",
    delimiter: str | None = None,
    decimal: str | None = None,
    header: bool | None = None,
    column: str | None = None,
) -> Series:
    """Sequences of an array, a table or a sound file, or of all sound files below a folder, in windows of
    ``steps``.

    .npy, and .npz, of which ``column`` names the array where there are several: [S] or [S, F], one recording;
    [N, S, F], several. .csv, .tsv: a column a feature, as `read_table`
    reads them with ``delimiter``, ``decimal`` and ``header``. .wav, .flac, .ogg, .aiff: a feature a channel,
    scaled by full scale, or by the loudest sample where real numbers go beyond it; a folder's files must
    agree in channels and rate. stride: from one window to the next, by default ``steps`` (1 gives every
    window).

    Raises OSError for what cannot be read and ValueError for what does not fit, options of tables for what is
    none among it; the message begins with ``argument`` or the option. ModuleNotFoundError where pandas or
    soundfile is needed and missing.

    path: of the file or folder.
    """
    path = path_of(path, argument)
    steps = whole("steps", steps, 1)
    stride = steps if stride is None else stride
    suffix = path.suffix.lower()
    if not path.exists():
        raise FileNotFoundError(f"{argument}: cannot read {path}: No such file or directory")
    if path.name.lower().endswith(tables.SUFFIXES) and path.is_file():
        table = tables.read_table(path, argument, delimiter=delimiter, decimal=decimal, header=header)
        found = windows(str(path), [table.values], steps, stride, features=table.names)
        return replace(found, skipped=table.left_out, notes=table.notes)
    if column is not None and suffix != ".npz":
        raise ValueError(f"column: expected an .npz to read {column!r} of, got {path}")
    options = {"delimiter": delimiter, "decimal": decimal, "header": header}
    for name in (name for name, value in options.items() if value is not None):
        raise ValueError(
            f"{name}: expected a table ({', '.join(tables.SUFFIXES)}) to read with it, got {path}"
        )
    if path.is_dir():
        below, skipped = files_below(path)
        files = sorted(each for each in below if each.suffix.lower() in sound.SUFFIXES)
        skipped += [
            f"{each} is a sound in a format that is not read" for each in below if sound.is_foreign(each)
        ]
        if not files:
            raise ValueError(f"{argument}: no sound files ({', '.join(sound.SUFFIXES)}) in {path}")
        return replace(_recorded(str(path), files, steps, stride, argument), skipped=tuple(skipped))
    if suffix in sound.SUFFIXES:
        return _recorded(str(path), [path], steps, stride, argument)
    if suffix in (".npy", ".npz"):
        array = _numbers(path, column, argument).astype(np.float64)
        if array.ndim == 1:
            array = array[:, None]
        if array.ndim not in (2, 3):
            shape = list(array.shape)
            raise ValueError(f"{argument}: {path}: expected shape [S], [S, F] or [N, S, F], got {shape}")
        return windows(str(path), [array] if array.ndim == 2 else list(array), steps, stride)
    known = ", ".join((".npy", ".npz", *tables.SUFFIXES, *sound.SUFFIXES))
    raise ValueError(f"{argument}: expected a file ({known}) or a folder of sound files, got {path}")


def windows(
    name: str,
    recordings: list[np.ndarray],
    steps: int,
    stride: int,
    *,
    features: tuple[str, ...] = (),
    full_scale: float | None = None,
    labels: Sequence[int] = (),
    classes: tuple[str, ...] = (),
) -> Series:
    """Recordings [S_i, F] as windows of ``steps``, one every ``stride``. A recording shorter than ``steps``
    is one short window; what is left over at the end of others is not used. labels: of each recording, where
    they are of ``classes``.

    Each feature's least and largest value become -1 and 1 (a constant one becomes 0), or -full_scale and
    full_scale where that is given.

    name: where they came from, for people. recordings: of any real dtype; the values of the result are
    float32. features: the names of the F columns. Raises TypeError or ValueError for steps or a stride
    below 1, and ValueError for more steps than the longest recording has or a feature whose range is not
    finite; recordings that do not fit together end in numpy's own errors.
    """
    steps, stride = whole("steps", steps, 1), whole("stride", stride, 1)
    longest = max(map(len, recordings))
    if steps > longest:
        raise ValueError(f"steps: expected at most {longest}, as the longest recording has, got {steps}")
    joined = np.concatenate(recordings)
    F = joined.shape[1]
    count = sum(max(0, len(each) - steps) // stride + 1 for each in recordings)
    taken = 12 * count * steps * F  # three copies in float32, one after another
    if taken > memory():
        raise ValueError(
            f"stride: expected a larger one for windows of {steps:,} steps, got {stride}: {count:,} windows "
            f"would take about {told(taken)} of memory, and {told(memory())} is all there is"
        )
    if full_scale is None:
        low, high = joined.min(0), joined.max(0)
    else:
        low, high = np.full(F, -full_scale), np.full(F, full_scale)
    names = features or tuple(str(i) for i in range(F))
    for feature, least, most in zip(names, low.tolist(), high.tolist(), strict=True):
        if not np.isfinite(most - least):
            raise ValueError(
                f"recordings: expected features over a finite range, got {feature} from {least} to {most}"
            )
    middle, half = (low + high) / 2, np.where(high > low, (high - low) / 2, 1.0)
    cut, lengths, owners = [], [], []
    for i, recording in enumerate(recordings):
        scaled = ((recording - middle) / half).astype(np.float32)
        length = min(steps, len(scaled))
        own = np.lib.stride_tricks.sliding_window_view(scaled, length, axis=0)[::stride]  # [n, F, length]
        lengths += [length] * len(own)
        owners += [i] * len(own)
        cut.append(np.pad(own, ((0, 0), (0, 0), (0, steps - length))))
    values = torch.from_numpy(np.ascontiguousarray(np.concatenate(cut).transpose(2, 0, 1)))
    full = min(lengths) == steps
    return Series(
        name=name,
        values=values,
        lengths=None if full else torch.tensor(lengths),
        low=torch.from_numpy(middle - half),
        high=torch.from_numpy(middle + half),
        features=names,
        overlap=-(-steps // stride) - 1,
        labels=torch.tensor([labels[i] for i in owners]) if labels else None,
        classes=classes,
        recordings=tuple(map(len, recordings)),
    )


# ---- parts ------------------------------------------------------------------------------------------


def _sample_data(file: str) -> Path:
    try:
        root = importlib.import_module("matplotlib").get_data_path()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"matplotlib's sample data ({file}) are needed for this: pip install matplotlib", name=error.name
        ) from error
    path = Path(root, "sample_data", file)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: this matplotlib was installed without its sample data; read another series"
        )
    return path


def _recorded(name: str, files: list[Path], steps: int, stride: int, argument: str) -> Series:
    recordings, rate = sound.read_sounds(files, argument)
    loudest = max(float(np.abs(each).max()) for each in recordings)
    found = windows(name, recordings, steps, stride, full_scale=max(1.0, loudest))
    return replace(found, rate=rate, notes=(f"{len(files):,} files",) if len(files) > 1 else ())


def _numbers(path: Path, name: str | None, argument: str) -> np.ndarray:
    """The array in a .npy file, or of that name in a .npz, of finite real numbers."""
    array = read_array(path, name, argument)
    if array.dtype.kind not in "uif":
        raise ValueError(f"{argument}: {path}: expected an array of real numbers, got {array.dtype}")
    if not np.isfinite(array).all():
        where = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise ValueError(f"{argument}: {path} holds NaN or infinity, first at {where}")
    return array
