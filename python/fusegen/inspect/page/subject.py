"""The run that a page is about: its model with a checkpoint's weights, and its data where they are at "
"hand."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..._errors import NotFiniteError
from ...data.files.hub import FILES
from ...train.run import Run, read_log
from ...train.tasks import find_task
from ..recording.names import nearest

_BYTES = 256 << 20  # that a page holds of anything it could take more of
_MOST_BYTES = 1 << 30  # of data that are read for a page
_KEPT = (".json", ".npz", ".npy")  # what tasks keep in a run's folder, beside checkpoints and samples


@dataclass
class Subject:
    """run, and task: with the weights of checkpoint ``state``, in evaluation mode, knowing of the data what
    the run keeps. data: the same task with the data in reach; None where they are not, and ``absent`` says
    why. layer: the layer asked for, by name; None: what the page chooses."""

    run: Run
    task: Any
    state: dict[str, Any]
    data: Any
    absent: str
    layer: str | None
    say: Callable[[str], None] = lambda title: None  # told of each section

    @property
    def model(self) -> Any:
        return self.task.model

    @property
    def log(self) -> list[dict[str, Any]]:
        return read_log(self.run.folder)

    def option(self, section: str, name: str) -> Any:
        return getattr(self.run.sections[section], name)

    def chosen(self, layers: Sequence[str]) -> list[str]:
        """The layer asked for, if the page can show it; else all of these. Raises ValueError, naming the
        nearest, for one that it cannot."""
        if self.layer is None:
            return list(layers)
        if self.layer not in layers:
            raise ValueError(
                f"layer: this run's model has no layer {self.layer!r} to look into"
                f"{nearest(self.layer, list(layers))}"
            )
        return [self.layer]


def fitting(most: int, each: int, least: int = 1) -> int:
    """How many of something are taken that take ``each`` bytes: ``most`` at most, and ``least`` in any "
    "case."""
    return max(least, min(most, _BYTES // max(1, each)))


def open_subject(run: Run | str | Path, checkpoint: str, layer: str | None) -> Subject:
    """Nothing is written to the run. Raises OSError or ValueError (CheckpointError among them) for a run that
    cannot be used, NotFiniteError for weights that are not finite."""
    found = run if isinstance(run, Run) else Run.open(Path(run))
    task = found.task(data=False)
    state = found.load_weights(task, checkpoint)
    if not all(bool(p.isfinite().all()) for p in task.model.parameters()):
        raise NotFiniteError(f"the weights in {found.checkpoints.find(checkpoint)} are not finite")
    task.model.eval().requires_grad_(False)
    data, absent = _with_data(found)
    if data is not None and state.get("fingerprint") not in (None, data.fingerprint()):
        data, absent = None, "what is there now is not what the run was trained on"
    return Subject(found, task, state, data, absent, layer)


def _with_data(run: Run) -> tuple[Any, str]:
    """(The task with its data, ""), or (None, why they are not at hand)."""
    source = run.sections["data"].data
    if why := _out_of_reach(source):
        return None, why
    with tempfile.TemporaryDirectory() as folder:
        # Of the task's files a copy: it may write what is missing beside them.
        for path in run.folder.iterdir():
            if path.suffix in _KEPT and path.is_file():
                shutil.copy(path, folder)
        try:
            task = find_task(run.task_name).from_options(run.sections, Path(folder), argument="data")
        except (OSError, ValueError, TypeError, ModuleNotFoundError) as error:
            return None, without_folders(str(error).removeprefix("data: "), source)
    return task, ""


def without_folders(message: str, source: str | None) -> str:
    """The message with the files of data by their names alone: a page may be shown to others."""
    for place in (source or "").removeprefix("mo:").split(","):
        message = message.replace(place, Path(place).name)
    return message


def _out_of_reach(source: str | None) -> str:
    """Why data are not even looked for; "" where they are."""
    if source is None:
        return ""
    if (source.startswith("hf:") and source[3:].partition(":")[0] not in FILES) or "://" in source:
        return f"{source} is on a network, which this page does without"
    places = source.removeprefix("mo:").split(",")
    size = sum(_size(Path(place.partition(":")[2] or place if place.startswith("hf:") else place))
               for place in places)  # fmt: skip
    return f"{source} has more than {_MOST_BYTES >> 30} GiB" if size > _MOST_BYTES else ""


def _size(path: Path) -> int:
    """Bytes of a file, or below a folder as far as it takes to see that they are too many."""
    try:
        if not path.is_dir():
            return path.stat().st_size
        total = 0
        for folder, _, names in os.walk(path):
            total += sum(os.stat(os.path.join(folder, name)).st_size for name in names)
            if total > _MOST_BYTES:
                break
        return total
    except OSError:
        return 0  # reading it says what is wrong


def layers_of(model: nn.Module, prefix: str = "") -> list[str]:
    """The names of a model's layers that have units to silence: all without parts of their own."""
    return [
        name
        for name, m in model.named_modules()
        if name.startswith(prefix) and not any(True for _ in m.children()) and name
    ]
