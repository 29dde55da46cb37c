"""A run's folder: config.json, log.jsonl, tensorboard's events, checkpoints, samples."""

import contextlib
import fcntl
import io
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import drawing
from ..data.files.paths import path_of
from . import config, files
from .checkpoint import CheckpointError, Checkpoints, export, fill
from .config import Sections
from .options import RunOptions
from .tasks import find_task
from .watching import telling

# What tasks keep of the data.
_OF_DATA = (
    "vocabulary.json", "source-vocabulary.json", "target-vocabulary.json", "data.json", "prompt.txt",
    "examples.json", "examples.npz", "examples.npy",
)  # fmt: skip


class Run:
    """A folder that holds all there is to know of one run.

    config.json       the task and its options, every one of them
    log.jsonl         a line per measure: {"step", "seconds", then numbers by name}
    checkpoints/      the last few and the best
    samples/          step-00000100.txt, .png, ... of evaluations; step-00000100-001.png of `fusegen sample`
    curves.png        measures and losses by step, of tasks that draw
    tensorboard/      where tensorboard is installed
    and what a task keeps beside them, such as vocabulary.json

    task_name: what it learns, as on the command line. sections: its options by section, "model", "data",
    "fit" and "run". run_id: tells checkpoints of this run from others'. ``Run.create`` and ``Run.open``
    make one, and raise FileExistsError, FileNotFoundError or ValueError for a folder that is no place for
    one.
    """

    def __init__(self, folder: str | os.PathLike[str], task_name: str, sections: Sections, run_id: str):
        folder = path_of(folder, "folder", new=True)
        self.folder, self.task_name, self.sections, self.id = folder, task_name, sections, run_id
        setup = sections["run"]
        assert isinstance(setup, RunOptions)
        self.checkpoints = Checkpoints(folder / "checkpoints", setup.keep)
        self.made: tuple[Path, ...] = ()  # the folders that `create` made, the inner ones first
        self.moved = False  # whether the data lie elsewhere than config.json says
        self._claim: int | None = None

    @classmethod
    def create(cls, folder: str | os.PathLike[str], task_name: str, sections: Sections) -> "Run":
        """A new folder with its config.json.

        Raises FileExistsError where something is in it already, OSError where it cannot be made.
        """
        folder = path_of(folder, "folder", new=True)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            holds = (folder / "config.json").exists()
            what = "holds a run already; --resume goes on with one" if holds else "is there and not empty"
            raise FileExistsError(f"folder: {folder} {what}")
        made = tuple(each for each in (folder, *folder.parents) if not each.exists())
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise type(error)(f"folder: cannot make {folder}: {error.strerror}") from error
        run = cls(folder, task_name, sections, uuid.uuid4().hex)
        run.made = made
        run.claim()
        run.write_config()
        return run

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Run":
        """The run in a folder. Raises OSError or ValueError, naming what is wrong with it; `folder` is what
        the message begins with."""
        folder = path_of(folder, "folder")
        path = folder / "config.json"
        if not path.exists():
            raise FileNotFoundError(f"folder: there is no run in {folder}: {path} is missing")
        content = config.read_json(path, "folder")
        name = str(content.get("task"))
        task = find_task(name, str(path))
        return cls(folder, name, config.from_json(task, content, str(path)), str(content.get("id")))

    def write_config(self) -> None:
        """Writes config.json anew: the task, every option, this version and the run's id. Places of data are
        written as absolute paths, so that a run goes on from any folder. Raises OSError."""
        from .. import __version__

        besides = {"fusegen": __version__, "id": self.id}
        content = config.to_json(self.task_name, config.placed(self.sections), **besides)
        files.write(self.folder / "config.json", content)

    def keep_config(self) -> None:
        """Writes config.json where it does not say what this run is."""
        if Run.open(self.folder).sections != config.placed(self.sections):
            self.write_config()

    def last_logged(self) -> int:
        """The last step that the log knows of; 0 of a run that never got on."""
        return max((int(line.get("step", 0)) for line in read_log(self.folder)), default=0)

    def not_improved(self, better: str) -> str | None:
        """What is to be said where no evaluation up to now was better than that before the first step."""
        lines = read_log(self.folder)
        first = next((line for line in lines if line.get("step") == 0), None)
        name = next((key for key in first or {} if key not in ("step", "seconds")), None)
        if first is None or name is None:
            return None
        found = [line[name] for line in lines if line.get("step") and name in line]
        if not found:
            return None
        best = max(found) if better == "higher" else min(found)
        if best > first[name] if better == "higher" else best < first[name]:
            return None
        return (
            f"training has not improved it: the {telling.spelled(name)} was {telling.figure(first[name])} "
            f"before the first step, and is {telling.figure(best)} at best"
        )

    def forget_data(self) -> None:
        """Removes what the run keeps of its data, for one that begins anew with others."""
        for name in _OF_DATA:
            (self.folder / name).unlink(missing_ok=True)

    def claim(self) -> None:
        """Keeps other processes from training in this folder, until `release` or the end of this one.

        Raises BlockingIOError where one does so already.
        """
        self.release()
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise BlockingIOError(
                error.errno, f"folder: another process is training in {self.folder}"
            ) from error
        except OSError:  # a file system without locks
            os.close(handle)
            return
        self._claim = handle

    def release(self) -> None:
        """Lets other processes train in the folder again, after ``claim``."""
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def discard(self) -> None:
        """Removes what a new run has written, so that its folder can be used anew; not once it has saved."""
        if self.checkpoints.steps():
            return
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for folder in self.made:
            with contextlib.suppress(OSError):  # another run has begun beside it
                folder.rmdir()

    def task(self, *, data: bool = True) -> Any:
        """The task that config.json describes, its weights new."""
        return find_task(self.task_name).from_options(
            self.sections, self.folder, data=data, argument="--data"
        )

    def load_weights(self, task: Any, which: str) -> dict[str, Any]:
        """Gives task.model the weights of a checkpoint, averaged ones where there are; returns all of it.

        Raises CheckpointError.
        """
        state = self.load(which)
        weights = state["model"]
        if state["average"] is not None:
            named = state["average"].items()
            weights = {name[7:]: value for name, value in named if name.startswith("module.")}
        fill(task.model, weights, self.checkpoints.find(which))
        return state

    def load(self, which: str) -> dict[str, Any]:
        """A checkpoint of this run. Raises CheckpointError, for one of another run too."""
        state = self.checkpoints.load(which)
        if state.get("run") != self.id:
            path = self.checkpoints.find(which)
            raise CheckpointError(f"checkpoint {path} is foreign: it is not of the run in {self.folder}")
        return state

    def save_sample(self, step: int, sample: Mapping[str, str | bytes]) -> list[Path]:
        """Writes what an evaluation drew, by suffix, as samples/step-STEP.SUFFIX; returns the files. A run
        that is taken back draws it again. Raises OSError."""
        return self._write_sample(f"step-{step:08d}", sample)

    def keep_sample(self, step: int, sample: Mapping[str, str | bytes]) -> list[Path]:
        """Writes what was asked for beside all others, as samples/step-STEP-NUMBER.SUFFIX under the first
        number that is free; returns the files. Raises OSError."""
        folder, number = self.folder / "samples", 1
        folder.mkdir(exist_ok=True)
        while True:
            stem = f"step-{step:08d}-{number:03d}"
            taken = any(path.name.removeprefix(stem)[:1] in (".", "") for path in folder.glob(f"{stem}*"))
            try:
                if not taken:  # by another process meanwhile
                    (folder / f"{stem}{next(iter(sample))}").open("xb").close()
                    return self._write_sample(stem, sample)
            except FileExistsError:
                pass
            number += 1

    def _write_sample(self, stem: str, sample: Mapping[str, str | bytes]) -> list[Path]:
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        paths = [folder / f"{stem}{suffix}" for suffix in sample]
        for path, content in zip(paths, sample.values(), strict=True):
            files.write(path, content)
        return paths

    def save_curves(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Draws the log, by default into curves.png.

        Raises ValueError for a run that has logged nothing, ModuleNotFoundError without matplotlib, OSError.
        """
        lines = read_log(self.folder)
        if not lines:
            raise ValueError(f"curves: {self.folder} has nothing in its log.jsonl yet")
        path = self.folder / "curves.png" if path is None else path_of(path, "path", new=True)
        files.write(path, drawing.png(drawing.training_figure(lines)))
        return path

    def export(self, model: Any, path: str | os.PathLike[str] | None = None) -> Path:
        """The weights as safetensors, by default in model.safetensors; the configuration is its metadata."""
        path = self.folder / "model.safetensors" if path is None else path_of(path, "path", new=True)
        export(model, path, {"fusegen": config.to_json(self.task_name, self.sections)})
        return path


class Log:
    """log.jsonl and tensorboard's events, from `step` on: what a killed run wrote after it is dropped."""

    def __init__(self, folder: Path, step: int, *, tensorboard: bool):
        self._path, self._start = folder / "log.jsonl", time.monotonic()
        kept = [line for line in read_log(folder) if line["step"] <= step] if step else []
        self._seconds = kept[-1]["seconds"] if kept else 0.0
        files.write(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        self._writer = _tensorboard(folder / "tensorboard", step) if tensorboard else None
        self.missing = ""  # what is to be said once
        if tensorboard and self._writer is None:
            self.missing = "tensorboard is not installed, only log.jsonl is written (pip install tensorboard)"

    def __call__(self, step: int, values: dict[str, float]) -> None:
        seconds = round(self._seconds + time.monotonic() - self._start, 3)
        self._file.write(json.dumps({"step": step, "seconds": seconds, **values}) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def sample(self, step: int, sample: Mapping[str, str | bytes]) -> None:
        """Shows pictures and text in tensorboard."""
        if self._writer is None:
            return
        for suffix, content in sample.items():
            if suffix == ".txt":
                lines = str(content).splitlines()
                self._writer.add_text("sample", "\n".join(f"    {line}" for line in lines), step)  # as it is
            elif suffix == ".png":
                self._writer.add_image("sample", pixels_of(content), step, dataformats="HWC")

    def close(self) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def read_log(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of log.jsonl; one that a killed run left half written is passed over."""
    lines = []
    try:
        content = (Path(folder) / "log.jsonl").read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    for line in content.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def pixels_of(png: str | bytes) -> np.ndarray:
    """uint8 [H, W, 3] of a picture's file."""
    from PIL import Image

    assert isinstance(png, bytes)
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
