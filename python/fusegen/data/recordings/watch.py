"""Motion of a wrist during exercises, which the package seglearn brings along."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from ..series import Series, windows

EVERY = 5  # recorded samples, 50 a second, that are averaged to a step


def watch(steps: int = 24, stride: int = 1) -> Series:
    """A smartwatch's acceleration and rate of turn, three axes each, ten steps a second, in 140 recordings of
    seven shoulder exercises (Burns et al. 2018, arXiv:1802.01489), which are the classes.

    From the file that the package seglearn (3-clause BSD licence, its authors' own recordings) installs; it
    is read without importing the package. Raises ModuleNotFoundError or FileNotFoundError where that is
    missing.

    stride: from one window to the next, in steps of a tenth of a second.
    """
    found = importlib.util.find_spec("seglearn")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            "seglearn's recordings of a watch are needed for this: pip install --no-deps seglearn",
            name="seglearn",
        )
    path = Path(found.submodule_search_locations[0], "data", "watch_dataset.npy")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this seglearn was installed without its data")
    # A pickle, and as trusted as the code that is installed beside it.
    content = np.load(path, allow_pickle=True).item()
    return windows(
        "a watch's motion",
        [_averaged(np.asarray(each, dtype=np.float64)) for each in content["X"]],
        steps,
        stride,
        features=tuple(map(str, content["X_labels"])),
        labels=[int(label) for label in content["y"]],
        classes=tuple(map(str, content["y_labels"])),
    )


def _averaged(recording: np.ndarray) -> np.ndarray:
    """[S, F] -> [S // EVERY, F]"""
    whole = len(recording) // EVERY * EVERY
    return recording[:whole].reshape(-1, EVERY, recording.shape[1]).mean(1)
