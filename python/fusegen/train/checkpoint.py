"""Checkpoints: files of torch.save, written whole or not at all, proven whole when read, and holding no code.

A run's folder `checkpoints` has `step-00000100.pt`, ... (the last few) and `best.pt`. Each is a zip archive
whose entries bear checksums (torch writes them), so a torn or altered one is found before torch reads it.
"""

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._errors import first_line
from . import files

FORMAT = 1
_MARK = "fusegen checkpoint"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, and why."""


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Writes `state` (tensors, numbers, text, and lists, tuples and dicts of them).

    Raises OSError where it cannot be written; what lay at `path` is whole then.
    """
    content = io.BytesIO()  # torch's own writer may end the process when a disk is full
    torch.save({_MARK: FORMAT, **state}, content)
    files.clear_aside(path.parent)
    files.write(path, content.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """What `save` was given, on the CPU. Raises CheckpointError for a file that is not whole or not ours."""
    try:
        _check_whole(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"checkpoint {path} is foreign: it holds code, which is not run") from error
    except CheckpointError:
        raise
    except Exception as error:  # whatever torch makes of an archive that is not its own
        raise CheckpointError(f"checkpoint {path} is foreign: {first_line(error)}") from error
    if not isinstance(state, dict) or _MARK not in state:
        raise CheckpointError(f"checkpoint {path} is foreign: it was not written by fusegen train")
    if state.pop(_MARK) != FORMAT:
        raise CheckpointError(f"checkpoint {path} has a format that this version of fusegen does not know")
    return state


def _check_whole(path: Path) -> None:
    with open(path, "rb") as file:
        begin = file.read(4)
    if not begin:
        raise CheckpointError(f"checkpoint {path} is empty")
    if not begin.startswith(b"PK"):
        raise CheckpointError(f"checkpoint {path} is foreign: it does not begin as a file of torch.save does")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"checkpoint {path} is torn or cut short: {first_line(error)}") from error
    if damaged:
        raise CheckpointError(f"checkpoint {path} is damaged: {damaged} does not match its checksum")


class Checkpoints:
    """The checkpoints of one run. keep: how many of the last remain, besides the best."""

    def __init__(self, folder: Path, keep: int = 3):
        self.folder, self.keep = folder, keep

    def save(self, step: int, state: Mapping[str, Any], *, best: bool = False) -> Path:
        """Writes the checkpoint of `step`, makes it the best if it is, and lets the oldest go.

        Those of later steps go too: a run that was taken back to an earlier one has left them behind.
        Raises OSError; the checkpoints before are whole then.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(step)
        save(path, state)
        if best:
            self.make_best(path)
        steps = self.steps()
        later = [other for other in steps if other > step]
        for left in (*later, *steps[: len(steps) - len(later)][: -self.keep]):
            self.path(left).unlink(missing_ok=True)
        return path

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.pt"

    @property
    def best(self) -> Path:
        return self.folder / "best.pt"

    def steps(self) -> list[int]:
        """Those that are there, whole or not, oldest first."""
        names = (path.stem.removeprefix("step-") for path in self.folder.glob("step-*.pt"))
        return sorted(int(name) for name in names if name.isdigit())

    def find(self, which: str) -> Path:
        """The path of "last", "best" (the last where none was measured), a step, or a file.

        Raises CheckpointError where there is none.
        """
        steps = self.steps()
        if which == "best" and self.best.exists():
            return self.best
        if which in ("last", "best"):
            if not steps:
                raise CheckpointError(f"there is no checkpoint in {self.folder}")
            return self.path(steps[-1])
        if which.isdigit():
            if int(which) not in steps:
                there = ", ".join(map(str, steps)) or "none"
                raise CheckpointError(f"there is no checkpoint of step {which} in {self.folder}: {there}")
            return self.path(int(which))
        return Path(which)

    def load(self, which: str) -> dict[str, Any]:
        """The state in `find(which)`. Raises CheckpointError, which offers the last good one."""
        path = self.find(which)
        try:
            return load(path)
        except CheckpointError as error:
            good = self.last_good(besides=path)
            offer = f"the last good one is {good}" if good else "no other one is whole"
            raise CheckpointError(f"{error}; {offer}") from error

    def last_good(self, besides: Path | None = None) -> Path | None:
        """The newest checkpoint that can be read."""
        for path in (*(self.path(step) for step in reversed(self.steps())), self.best):
            if path == besides or not path.exists():
                continue
            try:
                load(path)
            except CheckpointError:
                continue
            return path
        return None

    def make_best(self, path: Path) -> None:
        """Makes the checkpoint at `path` the best. Raises OSError."""
        aside = self.folder / ".best.pt.aside"
        aside.unlink(missing_ok=True)
        try:
            os.link(path, aside)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, aside)
        os.replace(aside, self.best)
        files.sync_folder(self.folder)


def fill(model: nn.Module, weights: Mapping[str, Any], path: Path | str) -> None:
    """model.load_state_dict. Raises CheckpointError for what does not fit, nothing loaded then."""
    own = model.state_dict()
    for name in (*own, *weights):
        if name not in weights or name not in own:
            where = "the checkpoint" if name in weights else "the model"
            raise CheckpointError(f"checkpoint {path} does not fit: {name} is in {where} only")
        ours, theirs = list(own[name].shape), list(weights[name].shape)
        if ours != theirs:
            why = f"{name} is {theirs} there, and {ours} by this run's configuration and vocabulary"
            raise CheckpointError(f"checkpoint {path} does not fit: {why}")
    model.load_state_dict(weights)


def export(model: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes the weights as safetensors; weights shared by several names stand under the first.

    `safetensors.torch.load_model` reads it. Raises ModuleNotFoundError without safetensors, OSError.
    """
    from safetensors.torch import save as as_bytes

    seen: dict[tuple, str] = {}
    tensors, shared = {}, {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu()
        key = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() and key in seen:
            shared[name] = seen[key]  # as safetensors' save_model does
        else:
            seen[key] = name
            tensors[name] = value.contiguous()
    files.write(path, as_bytes(tensors, {**metadata, **shared}))
