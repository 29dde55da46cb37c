"""What ``record`` gives: per module, layer and direction the gates by their names, h and c."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from .names import nearest
from .storage import Array, InMemory, mapped, mixed

Key = tuple[int, int]  # layer, direction
_FORMAT = 1
_INDEX = "recording.json"
_OFTEN = 1.0  # seconds between two indices that are written while calls come


def _nothing() -> None:
    """Nothing is left to be put in order."""


def not_called(name: str) -> ValueError:
    return ValueError(f"fusegen.inspect: {name or 'the model'} was not called inside the context")


class Plane:
    """One direction of one layer. T counts the steps recorded, over all calls in the context; B is the batch,
    U the units chosen (all H if none were), P what h holds (U without a projection).

    name: of the module. key: (layer, direction). gates: their names. spans: which steps belong to which
    call. keeps: which gate says how long the layer holds its state, "f", "z" or "1 - z", None of an RNN.
    settle: called before anything is read, to work out what was only noted. ``record`` makes
    planes; asking for an array that was not recorded raises ValueError.
    """

    def __init__(
        self,
        name: str,
        key: Key,
        gates: tuple[str, ...],
        spans: list[Span],
        keeps: str | None = None,
        settle: Callable[[], None] = _nothing,
    ) -> None:
        self.name, self.layer, self.direction, self._gates = name, *key, gates
        self._keeps = keeps  # "f", "z", or "1 - z"
        self.held: dict[str, Array] = {}
        self._spans, self._settle = spans, settle
        self.steps_chosen: list[int] | None = None

    def __repr__(self) -> str:
        held = ", ".join(self.held)
        return f"Plane({self.name!r}, layer {self.layer}, direction {self.direction}: {held})"

    @property
    def arrays(self) -> dict[str, Array]:
        """What is recorded, by name."""
        self._settle()
        return self.held

    @property
    def gates(self) -> dict[str, Tensor]:
        """The gates by name, post-activation, [T, B, U] each: i, f, g, o of an LSTM, r, z, n of a GRU, none
        of an RNN."""
        return {name: self.array(name) for name in self._gates if name in self.held}

    @property
    def h(self) -> Tensor:
        """[T, B, P]: what each step gave, zero past a sequence's end."""
        return self.array("h")

    @property
    def c(self) -> Tensor:
        """[T, B, U], an LSTM's, float32 at least; zero past a sequence's end."""
        return self.array("c")

    @property
    def keep(self) -> Tensor:
        """[T, B, U]: what share of the old state a step keeps: f of an LSTM; of a GRU z, or 1 - z where a
        normalised one has them so. Raises ValueError of an RNN."""
        if self._keeps is None:
            raise ValueError(f"fusegen.inspect: {self!r} has no gate that keeps its state")
        gate = self.array(self._keeps[-1])
        return 1 - gate if self._keeps.startswith("1") else gate

    def state(self, step: int) -> Tensor | tuple[Tensor, Tensor]:
        """The state after a step, by its number: h [B, P], of an LSTM (h, c). Raises ValueError for a step
        that was not recorded."""
        steps = self.steps
        at = (steps == step).nonzero().flatten()
        if len(at) != 1:
            raise ValueError(f"fusegen.inspect: {self!r} has {len(steps)} steps, among which {step} is not")
        row = int(at)
        return (self.h[row], self.c[row]) if "f" in self._gates else self.h[row]

    @property
    def mask(self) -> Tensor:
        """[T, B] bool: whether a step is one of its sequence, not padding."""
        self._settle()
        widths = sorted({span.batch for span in self._spans})
        if len(widths) > 1:
            raise mixed(*widths[:2])
        return torch.cat([span.mask() for span in self._spans])[self._rows()]

    @property
    def steps(self) -> Tensor:
        """[T]: the number of each step recorded, counted over all calls."""
        self._settle()
        return torch.arange(sum(span.steps for span in self._spans))[self._rows()]

    def _rows(self) -> slice | list[int]:
        return slice(None) if self.steps_chosen is None else self.steps_chosen

    def array(self, name: str) -> Tensor:
        """One of them by name. Raises ValueError, naming what there is, for another."""
        if name not in self.held:
            held = ", ".join(self.held) or "nothing"
            raise ValueError(f"fusegen.inspect: {self!r} holds {held}, not {name!r}")
        self._settle()
        if not self._spans:
            raise not_called(self.name)
        return self.held[name].read()


class Span:
    """A call of a module, or several of full sequences: steps, batch, and the lengths [B] of ragged ones."""

    def __init__(self, steps: int, batch: int, lengths: Tensor | None) -> None:
        self.steps, self.batch, self.lengths = steps, batch, lengths

    def mask(self) -> Tensor:
        if self.lengths is None:
            return torch.ones(self.steps, self.batch, dtype=torch.bool)
        return torch.arange(self.steps).unsqueeze(1) < self.lengths


class Module:
    """What one module gave: ``module[layer, direction]`` is a ``Plane``. Of a module with one of them alone,
    the plane's own attributes are there too.

    name: the module's in its model, "" for the model itself. cell: "lstm", "gru" or "rnn". planes: by
    (layer, direction). spans: which recorded steps belong to which call. count: calls recorded. settle: as
    of a plane. Raises ValueError for a layer or
    direction that was not recorded, and for a module that was not called.
    """

    def __init__(
        self,
        name: str,
        cell: str,
        planes: dict[Key, Plane],
        spans: list[Span],
        count: int = 0,
        settle: Callable[[], None] = _nothing,
    ) -> None:
        self.name, self.cell, self.planes, self.count = name, cell, planes, count
        self._spans, self._settle = spans, settle

    def __repr__(self) -> str:
        return f"Module({self.name!r}, {self.cell}, planes {', '.join(map(str, self.planes))})"

    @property
    def spans(self) -> list[Span]:
        """Which recorded steps belong to which call."""
        self._settle()
        return self._spans

    @property
    def calls(self) -> int:
        """How often it was called."""
        self._settle()
        return self.count

    @property
    def steps(self) -> int:
        """How many steps its calls had."""
        return sum(span.steps for span in self.spans)

    def __iter__(self) -> Iterator[Plane]:
        return iter(self.planes.values())

    def __getitem__(self, key: Key) -> Plane:
        if not self.spans:
            raise not_called(self.name)
        if key not in self.planes:
            held = ", ".join(map(str, self.planes))
            raise ValueError(f"fusegen.inspect: expected one of the (layer, direction) {held}, got {key}")
        return self.planes[key]

    @property
    def only(self) -> Plane:
        """The only plane. Raises ValueError where there are several."""
        if len(self.planes) != 1:
            held = ", ".join(map(str, self.planes))
            raise ValueError(
                f"fusegen.inspect: {self.name or 'the model'} has several planes; take one by its "
                f"(layer, direction): {held}"
            )
        return self[next(iter(self.planes))]

    @property
    def gates(self) -> dict[str, Tensor]:
        """As ``Plane.gates``, of the only plane."""
        return self.only.gates

    @property
    def h(self) -> Tensor:
        """As ``Plane.h``, of the only plane."""
        return self.only.h

    @property
    def c(self) -> Tensor:
        """As ``Plane.c``, of the only plane."""
        return self.only.c

    @property
    def mask(self) -> Tensor:
        """As ``Plane.mask``, of the only plane."""
        return self.only.mask


class Recording:
    """What ``record`` gives: ``rec[name]`` is a ``Module``. ``folder``: where the arrays lie, None in
    memory.

    modules: by name. Raises KeyError for a module that was not recorded, ValueError for a file of another
    format.
    """

    def __init__(self, modules: dict[str, Module], folder: Path | None = None) -> None:
        self.modules, self.folder = modules, folder
        self._written = -math.inf  # when the index was

    def __repr__(self) -> str:
        return f"Recording({', '.join(map(repr, self.modules))})"

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)

    def __getitem__(self, name: str) -> Module:
        if name not in self.modules:
            raise KeyError(f"fusegen.inspect: {name!r} was not recorded{nearest(name, list(self.modules))}")
        return self.modules[name]

    def planes(self) -> Iterator[Plane]:
        """Every plane of every module."""
        for module in self.modules.values():
            yield from module

    def save(self, path: str | Path) -> Path:
        """Writes one .npz file (numpy's, not compressed, bfloat16 as float32), which ``load`` reads; returns
        its path. Raises FileExistsError where there is one, ValueError for another ending."""
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"Recording.save: expected a path that ends in .npz, got {str(path)!r}")
        arrays = {
            file_of(plane, name): plane.array(name)
            for module in self.modules.values()
            if module.calls
            for plane in module
            for name in plane.held
        }
        made = {
            name: (t.float() if t.dtype == torch.bfloat16 else t).cpu().numpy() for name, t in arrays.items()
        }
        with open(path, "xb") as file:
            index = np.array(json.dumps(self.index()))
            np.savez(file, **{_INDEX: index}, **made)  # type: ignore[arg-type]  # none is called allow_pickle
        return path

    def index(self) -> dict[str, object]:
        """What a folder or a file says of its arrays."""
        return {"format": _FORMAT, "modules": {name: _said(m) for name, m in self.modules.items()}}

    def write_index(self, now: bool = True) -> None:
        """Into the folder, if there is one; else than ``now`` once a second at most, so that little of a
        recording is lost whose process was killed."""
        if self.folder is None or not (now or time.monotonic() > self._written + _OFTEN):
            return
        path = self.folder / _INDEX
        half = path.with_suffix(".half")
        half.write_text(json.dumps(self.index()), encoding="utf-8")
        half.replace(path)
        self._written = time.monotonic()


def file_of(plane: Plane, array: str) -> str:
    """The name of an array's file: of the module, layer, direction and array."""
    return f"{quote(plane.name, safe='') or 'model'}.l{plane.layer}.d{plane.direction}.{array}.npy"


def _said(m: Module) -> dict[str, object]:
    spans = [
        {"steps": s.steps, "batch": s.batch, "lengths": None if s.lengths is None else s.lengths.tolist()}
        for s in m.spans
    ]
    planes = [
        {"layer": p.layer, "direction": p.direction, "gates": list(p._gates), "keeps": p._keeps,
         "steps": p.steps_chosen,
         "arrays": {name: file_of(p, name) for name in p.arrays}}
        for p in m
    ]  # fmt: skip
    return {"cell": m.cell, "calls": m.calls, "spans": spans, "planes": planes}


def load(path: str | Path) -> Recording:
    """A recording that ``record(folder=...)`` or ``Recording.save`` wrote. Arrays of a folder are memory maps
    (what is written to the tensors does not reach the files); those of an .npz are read into memory.

    Raises FileNotFoundError where there is none, ValueError where it is something else, or of another format.

    path: the folder, or the .npz file.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / _INDEX).exists():
            raise FileNotFoundError(f"fusegen.inspect.load: {path} holds no {_INDEX}: no recording")
        said = json.loads((path / _INDEX).read_text(encoding="utf-8"))
        return _made(said, path, {})
    if not path.exists():
        raise FileNotFoundError(f"fusegen.inspect.load: there is no {path}")
    with np.load(path, allow_pickle=False) as file:
        if _INDEX not in file:
            raise ValueError(f"fusegen.inspect.load: {path} holds no {_INDEX}: no recording")
        held = {name: torch.from_numpy(file[name]) for name in file.files if name != _INDEX}
        return _made(json.loads(str(file[_INDEX])), None, held)


class _Loaded(InMemory):
    """The rows of a file that the index tells of: a process that was killed may have written more."""

    def __init__(self, path: Path, rows: int) -> None:
        super().__init__()
        self._path, self._rows = path, rows

    def read(self) -> Tensor:
        if not self._parts:
            found = mapped(self._path)
            if len(found) < self._rows:
                raise ValueError(
                    f"fusegen.inspect.load: {self._path} is cut off: expected {self._rows} steps, "
                    f"got {len(found)}"
                )
            self.take(found[: self._rows])
            self.commit()
        return super().read()


def _made(said: dict[str, object], folder: Path | None, held: dict[str, Tensor]) -> Recording:
    if said.get("format") != _FORMAT:
        raise ValueError(f"fusegen.inspect.load: expected format {_FORMAT}, got {said.get('format')!r}")
    modules: dict[str, Module] = {}
    listed = said["modules"]
    assert isinstance(listed, dict)
    for name, of in listed.items():
        spans = [
            Span(s["steps"], s["batch"], None if s["lengths"] is None else torch.tensor(s["lengths"]))
            for s in of["spans"]
        ]
        planes: dict[Key, Plane] = {}
        for p in of["planes"]:
            key = (p["layer"], p["direction"])
            plane = planes[key] = Plane(name, key, tuple(p["gates"]), spans, p["keeps"])
            plane.steps_chosen = p["steps"]
            for array, file in p["arrays"].items():
                if folder is not None:
                    plane.held[array] = _Loaded(folder / file, len(plane.steps))
                else:
                    plane.held[array] = InMemory()
                    if file in held:  # else the module was not called
                        plane.held[array].take(held[file])
                        plane.held[array].commit()
        modules[name] = Module(name, of["cell"], planes, spans, of["calls"])
    return Recording(modules, folder)
