"""Recordings in sound files, read by soundfile (libsndfile)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from .._optional import needed
from .paths import path_of

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64", ".caf")
_FOREIGN = (".m4a", ".aac", ".wma", ".ape", ".amr", ".mp4", ".webm")  # which libsndfile does not read


def is_sound(path: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a sound file, or of a folder that has some."""
    path = Path(os.path.expanduser(path))
    if os.path.isdir(path):  # where Path.is_dir would raise for a folder that may not be entered
        return any(each.suffix.lower() in SUFFIXES for each in path.rglob("*"))
    return path.suffix.lower() in SUFFIXES


def is_foreign(path: Path) -> bool:
    """Whether a name is that of a sound file of a kind that is not read."""
    return path.suffix.lower() in _FOREIGN


def _cut_short(path: Path) -> str:
    """Of a RIFF (.wav) or an AIFF file that ends before its header says so: how; libsndfile reads what is
    there and says nothing. A length of 0 or of all ones is that of a stream, which says none."""
    with open(path, "rb") as file:
        begin, size = file.read(12), os.fstat(file.fileno()).st_size
    order: Literal["little", "big"] = "big" if begin.startswith((b"FORM", b"RIFX")) else "little"
    said = int.from_bytes(begin[4:8], order) + 8
    if begin[8:] not in (b"WAVE", b"AIFF", b"AIFC") or said == 8 or said > 0xFFFFFF00 or said <= size:
        return ""
    return f"its header says {said:,} bytes, and it has {size:,}"


def read_sound(path: str | os.PathLike[str], argument: str = "path") -> tuple[np.ndarray, int]:
    """float64 [samples, channels], and the rate in hertz. Whole numbers of any width are scaled to [-1, 1) by
    their full scale, real ones are as they are.

    Raises OSError for what cannot be read and ValueError for what is no sound, holds no samples, or NaN or
    infinity; messages begin with ``argument``. ModuleNotFoundError where soundfile is missing.

    path: of the file. The samples are [S, C].
    """
    soundfile, path = needed("soundfile", "soundfile"), path_of(path, argument)
    try:
        if why := _cut_short(path):
            raise ValueError(f"{argument}: {path} is cut short: {why}")
        with open(path, "rb") as file:
            values, rate = soundfile.read(file, dtype="float64", always_2d=True)
    except OSError as error:
        raise type(error)(f"{argument}: cannot read {path}: {error.strerror}") from error
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        why = str(error).removeprefix(f"Error opening {file!r}: ") or "it ends early"
        raise ValueError(f"{argument}: {path} is not a sound file that libsndfile reads: {why}") from error
    if not len(values):
        raise ValueError(f"{argument}: {path} holds no samples")
    if not np.isfinite(values).all():
        at, channel = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(f"{argument}: {path} holds NaN or infinity, first at sample {at}, channel {channel}")
    return values, int(rate)


def read_sounds(files: list[Path], argument: str = "path") -> tuple[list[np.ndarray], int]:
    """Several recordings of one rate and number of channels, and the rate. Errors as in `read_sound`;
    ValueError too where they differ, naming two files that do."""
    recordings: list[np.ndarray] = []
    formats: dict[tuple[int, int], Path] = {}  # (channels, rate) -> the first file that has them
    for path in files:
        values, rate = read_sound(path, argument)
        recordings.append(values)
        formats.setdefault((values.shape[1], rate), path)
    if len(formats) > 1:
        (a, first), (b, other) = list(formats.items())[:2]
        raise ValueError(
            f"{argument}: expected one rate and number of channels, got {a[0]} at {a[1]} Hz in {first} "
            f"and {b[0]} at {b[1]} Hz in {other}"
        )
    return recordings, next(iter(formats))[1]
