"""``fusegen.inspect.record``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ... import _arguments
from ...nn._base import Layers
from ...nn.cells import RecurrentCell
from ...ops.spec import GRU, LSTM, CellSpec
from .calls import LayerCall, Made, Place, Run, run_in_parts
from .names import Recurrence, nearest, recurrent
from .recorded import Key, Module, Plane, Recording, Span, file_of
from .saved import GATES
from .storage import Array, InFile, InMemory
from .taps import Seat, tapped

_WHAT = "fusegen.inspect.record"
_PART_BYTES = 16 << 20  # of what a part of a long call makes

Chosen = slice | Sequence[int] | None


@contextmanager
def record(
    model: nn.Module,
    names: Sequence[str] | str | None = None,
    *,
    layers: Sequence[int] | None = None,
    directions: Sequence[int] | None = None,
    steps: slice | Sequence[int] | None = None,
    units: slice | Sequence[int] | None = None,
    arrays: Sequence[str] | None = None,
    folder: str | Path | None = None,
    part: int | None = None,
) -> Iterator[Recording]:
    """``with fusegen.inspect.record(model) as rec:`` keeps the gates, h and c of every step that fusegen's
    recurrent layers and cells in ``model`` take.

    ``rec[name][layer, direction]`` is a plane, with ``.gates`` by their names (LSTM i, f, g, o; GRU r, z, n;
    an RNN has none), ``.h`` and ``.c``, each [T, B, H], and ``.mask`` [T, B]; of a module with one plane
    ``rec[name].h`` is the same. They are the post-activation values of ``fusegen.reference``, before any
    dropout inside the recurrence, c and h behind zoneout; h is the projected one of a layer with proj_size,
    [T, B, P]. Calls follow each other along T, those of a cell too, a step each. B is in the caller's order,
    of a PackedSequence as well; unbatched input is a batch of one. Past a sequence's end all are zero. dtype
    and device are the layer's own; c is float32 at least, and under autocast the rest is autocast's.

    The fused kernels run as in training and what they save for backward is kept, in evaluation mode and under
    no_grad too; results and gradients are the same. Backends that would not run them (``"torch"``) are
    refused, ``"auto"`` is taken as ``"fused"``, and ``recompute=`` does nothing inside. What runs an op
    without its module (``TextLSTM`` in training with weight_drop or locked_dropout) is not seen: reading it
    raises.

    Args:
        model: a Module with layers or cells of ``fusegen.nn``, ``fusegen.convert``'s too.
        names: of modules, as ``model.named_modules()`` has them ("" is the model itself); all if None.
        layers: numbers, of stacked modules; all if None.
        directions: numbers, of bidirectional modules; all if None.
        steps: which steps to keep, a slice or increasing numbers, counted from 0 over all calls of a module.
        units: which of the H units, a slice or numbers; of a projected h all are kept.
        arrays: of "h", "c" and the gates' names, those to keep; all if None.
        folder: None keeps everything in memory. Else a folder, new or empty, gets a .npy file for each array
            and recording.json; reading gives tensors on memory maps, and ``fusegen.inspect.load`` opens it
            later.
        part: how many steps a call takes at a time where no gradient is recorded and only a choice is kept,
            or a folder; by default as many as give 16 MiB of gates and states. Beside its input and output a
            call then takes less than 64 MiB, so that sequences may be longer than memory has gates for. Calls
            that draw masks (recurrent dropout or zoneout in training) and those of an LSTM in 16 bits, whose
            states would be rounded in between, are made whole.

    Raises ValueError for a name, layer, direction, unit or array that does not exist, naming the nearest
    name, and for modules that are quantized or torch.nn's; TypeError if ``model`` is no Module (a Stream
    among them); RuntimeError for graphs of torch.compile or TorchScript, under torch.func, and where there
    are no fused kernels; FileExistsError for a folder with something in it. May be nested; a call from
    several threads at once is not told apart.
    """
    found = recurrent(_WHAT, model, names)
    choice = _Choice(_wholes("layers", layers), _wholes("directions", directions), steps, units, arrays)
    kept = [_Kept(name, m, choice, _room(folder)) for name, m in found.items()]
    recording = Recording({each.name: each.module for each in kept}, None if folder is None else Path(folder))
    if part is not None:
        _arguments.whole(f"{_WHAT}: part", part, 1)
    recording.write_index()
    recorder = _Recorder({id(m): each for m, each in zip(found.values(), kept, strict=True)}, part)
    try:
        with tapped(list(found.values()), recorder):
            yield recording
    finally:
        recording.write_index()


def _wholes(name: str, given: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if given is None else _arguments.wholes(f"{_WHAT}: {name}", given, 0)


def _room(folder: str | Path | None) -> Path | None:
    """The folder, made if it is not there."""
    if folder is None:
        return None
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise FileExistsError(f"{_WHAT}: expected a new or an empty folder, and {path} holds something")
    return path


class _Choice(NamedTuple):
    layers: tuple[int, ...] | None
    directions: tuple[int, ...] | None
    steps: Chosen
    units: Chosen
    arrays: Sequence[str] | None

    @property
    def is_part(self) -> bool:
        """Whether something of a call is left out."""
        return any(each is not None for each in self)

    def steps_of(self, begin: int, count: int) -> Tensor | None:
        """Which of the steps begin..begin + count are kept, counted from begin; None: all."""
        if self.steps is None:
            return None
        if isinstance(self.steps, slice):
            first, stop, step = self.steps.start or 0, self.steps.stop, self.steps.step or 1
            end = begin + count if stop is None else min(stop, begin + count)
            low = first + max(0, -(-(begin - first) // step)) * step
            return torch.arange(low, max(low, end), step) - begin
        listed = torch.tensor([s for s in self.steps if begin <= s < begin + count], dtype=torch.long)
        return listed - begin


def _check_steps(steps: Chosen) -> None:
    what = f"{_WHAT}: steps"
    if steps is None:
        return
    if isinstance(steps, slice):
        for name, least in (("start", 0), ("stop", 0), ("step", 1)):
            if (value := getattr(steps, name)) is not None:
                _arguments.whole(f"{what}.{name}", value, least)
        return
    listed = _arguments.wholes(what, list(steps), 0)
    if any(b <= a for a, b in pairwise(listed)):
        raise ValueError(f"{what}: expected increasing numbers, got {list(listed)}")


def _spec(m: Recurrence) -> CellSpec:
    spec: CellSpec = m._op.spec if isinstance(m, RecurrentCell) else m._spec  # type: ignore[assignment]
    return spec


def _keeps(m: Recurrence, spec: CellSpec) -> str | None:
    """The gate by which a step keeps the old state."""
    if spec is not GRU:
        return "f" if spec is LSTM else None
    kind = getattr(m, "_kind", None)
    return "1 - z" if kind is not None and kind.norm in ("ba", "dreamer") else "z"


class _Kept:
    """What is kept of one module, and how far it has come."""

    def __init__(self, name: str, m: Recurrence, choice: _Choice, folder: Path | None) -> None:
        self.name, self.choice, self.folder, self.H = name, choice, folder, m.hidden_size
        spec = _spec(m)
        is_stack = isinstance(m, Layers)
        layers = range(m.num_layers if isinstance(m, Layers) else 1)
        directions = range(2 if is_stack and m.bidirectional else 1)
        self.projected = isinstance(m, Layers) and m.proj_size > 0
        _check_steps(choice.steps)
        self.units = self._units()
        self.arrays = self._arrays(("h", *(("c",) if spec is LSTM else ()), *GATES[spec.name]))
        self.spans: list[Span] = []
        self.first, self.taken = 0, 0  # steps before this call, and with it
        self.is_part = choice.is_part
        self.planes = {
            (layer, d): self._plane((layer, d), GATES[spec.name], _keeps(m, spec))
            for layer in self._of("layers", layers, choice.layers)
            for d in self._of("directions", directions, choice.directions)
        }
        self.module = Module(name, spec.name, self.planes, self.spans)

    def _of(self, what: str, there: range, asked: tuple[int, ...] | None) -> Sequence[int]:
        if asked is None:
            return there
        for number in asked:
            if number not in there:
                who = self.name or "the model"
                raise ValueError(f"{_WHAT}: {who} has {what} 0..{len(there) - 1}, not {number}")
        return asked

    def _units(self) -> Tensor | None:
        units, H = self.choice.units, self.H
        if units is None:
            return None
        if isinstance(units, slice):
            return torch.arange(H)[units]
        listed = _arguments.wholes(f"{_WHAT}: units", list(units), 0)
        if any(u >= H for u in listed):
            raise ValueError(f"{_WHAT}: {self.name or 'the model'} has units 0..{H - 1}, not {max(listed)}")
        return torch.tensor(listed, dtype=torch.long)

    def _arrays(self, there: tuple[str, ...]) -> tuple[str, ...]:
        asked = self.choice.arrays
        if asked is None:
            return there
        known = {"h", "c", *(gate for gates in GATES.values() for gate in gates)}
        for name in [asked] if isinstance(asked, str) else asked:
            if name not in known:
                raise ValueError(f"{_WHAT}: no array is named {name!r}{nearest(name, sorted(known))}")
        return tuple(name for name in there if name in asked)

    def _plane(self, key: Key, gates: tuple[str, ...], keeps: str | None) -> Plane:
        plane = Plane(self.name, key, gates, self.spans, keeps)
        for array in self.arrays:
            file = None if self.folder is None else self.folder / file_of(plane, array)
            plane.arrays[array] = InMemory() if file is None else InFile(file)
        plane.steps_chosen = None if self.choice.steps is None else []
        return plane

    def begin(self, call: LayerCall, order: Tensor | None) -> None:
        """A new call of the module."""
        T, B = call.x.shape[:2]
        lengths = None if call.lengths is None else call.lengths.cpu()
        if lengths is not None and order is not None:
            lengths = lengths[order.cpu()]
        self.first, self.taken = self.taken, self.taken + T
        self.module.calls += 1
        before = self.spans[-1] if self.spans else None
        if before is not None and before.batch == B and before.lengths is None and lengths is None:
            before.steps += T
        else:
            self.spans.append(Span(T, B, lengths))
        self.rows = self.choice.steps_of(self.first, T)
        if self.rows is not None:
            for plane in self.planes.values():
                assert plane.steps_chosen is not None
                plane.steps_chosen += (self.rows + self.first).tolist()

    def is_view(self, array: str) -> bool:
        """Whether no units were taken out of it."""
        return self.units is None or (array == "h" and self.projected)

    def of_plane(self, key: Key, made: Made, names: tuple[str, ...], d: int) -> dict[str, Tensor]:
        """The arrays of a direction d of what was made, all steps: views."""
        P = made.states[0].shape[-1]
        given = {"h": made.y.detach()[..., d * P : (d + 1) * P]}
        if made.cells is not None:
            given["c"] = made.cells[d].detach()
        if made.gates is not None:
            gates = made.gates[d].detach()
            given |= {name: gates[..., j * self.H : (j + 1) * self.H] for j, name in enumerate(names)}
        if self.units is not None:
            given = {
                name: t if name == "h" and self.projected else t[..., self.units.to(t.device)]
                for name, t in given.items()
            }
        return {name: given[name] for name in self.planes[key].arrays}


class _Recorder:
    """The tap."""

    outermost = True

    def __init__(self, kept: dict[int, _Kept], part: int | None) -> None:
        self.kept, self.part = kept, part

    def __call__(self, seat: Seat, call: LayerCall, run: Run) -> Made:
        kept = self.kept[id(seat.module)]
        if seat.layer == 0:
            kept.begin(call, seat.order)
        mine = [(seat.layer, d) for d in range(call.directions) if (seat.layer, d) in kept.planes]
        if not mine:
            return run(call)
        if length := self._part_of(kept, call):
            return _in_parts(kept, seat, call, run, length)
        made = run(call)
        for key in mine:
            for name, value in kept.of_plane(key, made, call.names, key[1]).items():
                if kept.rows is not None:
                    value = value[kept.rows.to(value.device)]
                elif kept.is_view(name) and (name == "h" or kept.is_part):
                    value = value.clone()  # callers may write to theirs; the rest of a part is let go
                if seat.order is not None:
                    value = value.index_select(1, seat.order.to(value.device))
                kept.planes[key].arrays[name].take(value)
        return made

    def _part_of(self, kept: _Kept, call: LayerCall) -> int:
        """How many steps a part has; 0 where the call is made whole."""
        T, B = call.x.shape[:2]
        wanted = kept.folder is not None or kept.is_part
        if not wanted or T == 1 or call.draws or call.has_gradient:
            return 0
        if call.has_c and call.x.element_size() == 2:  # c would be rounded between parts
            return 0
        P, H = call.sizes
        each = B * (5 * H + 2 * P + call.x.shape[2]) * max(4, call.x.element_size())
        length = self.part or max(1, _PART_BYTES // max(1, each))
        return length if length < T else 0


def _in_parts(kept: _Kept, seat: Seat, call: LayerCall, run: Run, length: int) -> Made:
    T = call.x.shape[0]
    row_of = None
    if kept.rows is not None:
        row_of = torch.full((T,), -1)
        row_of[kept.rows] = torch.arange(len(kept.rows))
    begun: set[Key] = set()

    def look(part: LayerCall, made: Made, at: Place) -> Made:
        key = (seat.layer, at.d)
        if key not in kept.planes:
            return made
        rows = at.t.cpu()
        rows = rows if row_of is None else row_of[rows]
        for name, value in kept.of_plane(key, made, call.names, 0).items():
            array = kept.planes[key].arrays[name]
            if key not in begun:
                array.reserve(T if kept.rows is None else len(kept.rows), value)
            _write(array, rows, value, seat.order)
        begun.add(key)
        return made

    return run_in_parts(call, run, lambda d: [*range(0, T, length), T], look)


def _write(array: Array, rows: Tensor, value: Tensor, order: Tensor | None) -> None:
    """``rows`` [n] or [n, B] of it, -1 of what is not kept."""
    if order is not None:
        value = value.index_select(1, order.to(value.device))
        rows = rows if rows.dim() == 1 else rows.index_select(1, order.cpu())
    if rows.dim() == 1:
        array.write(rows[rows >= 0], value[(rows >= 0).to(value.device)])
        return
    for b in range(value.shape[1]) if (rows < 0).any() else ():
        array.write_one(b, rows[rows[:, b] >= 0, b], value[(rows[:, b] >= 0).to(value.device), b])
    if not (rows < 0).any():
        array.write(rows, value)
