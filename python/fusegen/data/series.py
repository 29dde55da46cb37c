"""Real-valued sequences: matplotlib's sample data, .npy, .csv and .wav files, cut into windows."""

from __future__ import annotations

import csv
import importlib
import os
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._arguments import number, whole
from .arrays import read_array


@dataclass(frozen=True)
class Series:
    """Windows of one or more recordings, time-major and scaled.

    name: where they came from, for people. values: float32 [T, N, F] in [-1, 1], zero past a window's end.
    lengths: int64 [N], or None where all windows are full. low, high: float64 [F], what -1 and 1 stand for.
    features: their names. overlap: how many windows after one still share steps with it. labels: int64 [N],
    the class of each window, and classes, their names, where the recordings have classes.
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
    """
    with np.load(_sample_data("goog.npz")) as found:
        table = found["price_data"]
        names = tuple(name for name in table.dtype.names if name != "date")
        values = np.stack([table[name].astype(np.float64) for name in names], 1)
    return windows("Google's share prices", [values], steps, stride, features=names)


def eeg(steps: int = 64, stride: int = 4) -> Series:
    """Four channels of an electroencephalogram, 800 samples, of matplotlib's sample data.

    Raises ModuleNotFoundError or FileNotFoundError where matplotlib or its sample data are missing.
    """
    values = np.fromfile(_sample_data("eeg.dat"), dtype=np.float64).reshape(800, 4)
    return windows("an electroencephalogram", [values], steps, stride, features=("PG3", "PG5", "PG7", "PG9"))


def read_series(
    path: str | os.PathLike[str], steps: int = 24, stride: int | None = None, *, argument: str = "path"
) -> Series:
    """Sequences of a .npy, .csv or .wav file, or of all .wav files below a folder, in windows of ``steps``.

    .npy: [S] or [S, F], one recording; [N, S, F], several. .csv: a column a feature, perhaps with a line of
    names; columns that are not numbers (dates) are left out. .wav: PCM of 8, 16, 24 or 32 bits, a feature a
    channel, scaled by full scale; a folder's files must agree in channels and rate. stride: from one window
    to the next, by default ``steps`` (1 gives every window).

    Raises OSError for what cannot be read and ValueError for what does not fit; the message begins with
    ``argument``.
    """
    if not os.fspath(path):
        raise ValueError(f"{argument}: expected a path, got an empty one")
    path = Path(path)
    steps = whole("steps", steps, 1)
    stride = steps if stride is None else stride
    if path.is_dir():
        files = sorted(
            p for p in path.rglob("*") if p.suffix.lower() == ".wav" and not p.name.startswith(".")
        )
        if not files:
            raise ValueError(f"{argument}: no .wav files in {path}")
        return _read_waves(str(path), files, steps, stride, argument)
    if not path.exists():
        raise FileNotFoundError(f"{argument}: cannot read {path}: No such file or directory")
    suffix = path.suffix.lower()
    if suffix == ".wav":
        return _read_waves(str(path), [path], steps, stride, argument)
    if suffix == ".csv":
        values, names = _read_table(path, argument)
        return windows(str(path), [values], steps, stride, features=names)
    if suffix == ".npy":
        array = _numbers(path, argument).astype(np.float64)
        if array.ndim == 1:
            array = array[:, None]
        if array.ndim not in (2, 3):
            shape = list(array.shape)
            raise ValueError(f"{argument}: {path}: expected shape [S], [S, F] or [N, S, F], got {shape}")
        return windows(str(path), [array] if array.ndim == 2 else list(array), steps, stride)
    raise ValueError(f"{argument}: expected a .npy, .csv or .wav file or a folder of .wav files, got {path}")


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
    """
    steps, stride = whole("steps", steps, 1), whole("stride", stride, 1)
    joined = np.concatenate(recordings)
    F = joined.shape[1]
    if full_scale is None:
        low, high = joined.min(0), joined.max(0)
    else:
        low, high = np.full(F, -full_scale), np.full(F, full_scale)
    middle, half = (low + high) / 2, np.where(high > low, (high - low) / 2, 1.0)
    cut, lengths, owners = [], [], []
    for i, recording in enumerate(recordings):
        scaled = (recording - middle) / half
        for at in range(0, max(1, len(scaled) - steps + 1), stride):
            part = scaled[at : at + steps]
            lengths.append(len(part))
            owners.append(i)
            cut.append(np.pad(part, ((0, steps - len(part)), (0, 0))))
    values = torch.from_numpy(np.stack(cut, 1)).float()
    full = min(lengths) == steps
    return Series(
        name=name,
        values=values,
        lengths=None if full else torch.tensor(lengths),
        low=torch.from_numpy(middle - half),
        high=torch.from_numpy(middle + half),
        features=features or tuple(str(i) for i in range(F)),
        overlap=-(-steps // stride) - 1,
        labels=torch.tensor([labels[i] for i in owners]) if labels else None,
        classes=classes,
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


def _read_table(path: Path, argument: str) -> tuple[np.ndarray, tuple[str, ...]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row and not row[0].lstrip().startswith("#")]
    except OSError as error:
        raise type(error)(f"{argument}: cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{argument}: {path} is not a table of text: {error}") from error
    if not rows:
        raise ValueError(f"{argument}: {path} is empty")
    named = not any(_is_number(cell) for cell in rows[0])
    names = [cell.strip() for cell in rows[0]] if named else [str(i) for i in range(len(rows[0]))]
    rows = rows[1:] if named else rows
    if not rows:
        raise ValueError(f"{argument}: {path} holds names but no values")
    for i, row in enumerate(rows):
        if len(row) != len(names):
            raise ValueError(
                f"{argument}: {path}: expected {len(names)} columns, got {len(row)} in row {i + 1} of values"
            )
    kept = [j for j in range(len(names)) if _is_number(rows[0][j])]
    if not kept:
        raise ValueError(f"{argument}: {path}: no column holds numbers")
    for i, row in enumerate(rows):
        for j in kept:
            if not _is_number(row[j]):
                raise ValueError(
                    f"{argument}: {path}: column {names[j]!r}, row {i + 1} of values: "
                    f"expected a finite number, got {row[j]!r}"
                )
    values = np.array([[float(row[j]) for j in kept] for row in rows])
    return values, tuple(names[j] for j in kept)


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False


def _read_waves(name: str, files: list[Path], steps: int, stride: int, argument: str) -> Series:
    recordings: list[np.ndarray] = []
    formats: dict[tuple[int, int], Path] = {}  # (channels, rate) -> the first file that has them
    for path in files:
        values, rate = _read_wave(path, argument)
        recordings.append(values)
        formats.setdefault((values.shape[1], rate), path)
    if len(formats) > 1:
        (a, first), (b, other) = list(formats.items())[:2]
        raise ValueError(
            f"{argument}: expected one rate and number of channels, got {a[0]} at {a[1]} Hz in {first} "
            f"and {b[0]} at {b[1]} Hz in {other}"
        )
    return windows(name, recordings, steps, stride, full_scale=1.0)


def _read_wave(path: Path, argument: str) -> tuple[np.ndarray, int]:
    """PCM as float64 [S, channels] in [-1, 1), and the rate."""
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            content = file.readframes(file.getnframes())
    except OSError as error:
        raise type(error)(f"{argument}: cannot read {path}: {error.strerror}") from error
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{argument}: {path} is not a PCM .wav file: {error or 'it ends early'}") from error
    whole_frames = len(content) // (width * channels) * width * channels
    if whole_frames == 0:
        raise ValueError(f"{argument}: {path} holds no samples")
    raw = np.frombuffer(content[:whole_frames], np.uint8)
    if width == 1:  # unsigned, as the format has it
        values = raw.astype(np.float64) - 128
    else:  # little-endian signed; brought to 32 bits
        padded = np.zeros((raw.size // width, 4), np.uint8)
        padded[:, 4 - width :] = raw.reshape(-1, width)
        values = padded.view("<i4")[:, 0].astype(np.float64) / 2.0 ** (8 * (4 - width))
    return (values / 2.0 ** (8 * width - 1)).reshape(-1, channels), rate


def _numbers(path: Path, argument: str) -> np.ndarray:
    """The array in a .npy file, of finite real numbers."""
    array = read_array(path, None, argument)
    if array.dtype.kind not in "uif":
        raise ValueError(f"{argument}: {path}: expected an array of real numbers, got {array.dtype}")
    if not np.isfinite(array).all():
        where = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise ValueError(f"{argument}: {path} holds NaN or infinity, first at {where}")
    return array
