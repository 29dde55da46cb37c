"""What a recording keeps of one module: the choice, and the calls that were made so far.

A call is only noted when it is made; slices, spans and choices of a recording in memory are worked out when
somebody reads it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ... import _arguments
from ...nn._base import Layers
from ...nn.cells import RecurrentCell
from ...ops.spec import GRU, LSTM, CellSpec
from .names import Recurrence, nearest
from .recorded import Key, Module, Plane, Span, file_of
from .saved import GATES
from .storage import Array, InFile, InMemory

WHAT = "fusegen.inspect.record"

Chosen = slice | Sequence[int] | None


class Choice(NamedTuple):
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


def _listed(name: str, given: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(given, Iterable):
        raise TypeError(f"{WHAT}: {name}: expected a slice or numbers, got {type(given).__name__}")
    return _arguments.wholes(f"{WHAT}: {name}", list(given), 0)


def _check_steps(steps: Chosen) -> None:
    what = f"{WHAT}: steps"
    if steps is None:
        return
    if isinstance(steps, slice):
        for name, least in (("start", 0), ("stop", 0), ("step", 1)):
            if (value := getattr(steps, name)) is not None:
                _arguments.whole(f"{what}.{name}", value, least)
        return
    listed = _listed("steps", steps)
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


class Seen(NamedTuple):
    """What a layer's call gave, in memory that nobody else writes to; of a cell without T and D.
    ``written``: nothing is left to be kept, and y has no elements."""

    layer: int
    y: Tensor  # [T, B, D*P]
    gates: Tensor | None  # [D, T, B, n*H]
    cells: Tensor | None  # [D, T, B, H]
    lengths: Tensor | None
    order: Tensor | None
    written: bool = False


class Kept:
    """What is kept of one module, and how far it has come."""

    def __init__(self, name: str, m: Recurrence, choice: Choice, folder: Path | None) -> None:
        self.name, self.choice, self.folder, self.H = name, choice, folder, m.hidden_size
        spec = _spec(m)
        is_stack = isinstance(m, Layers)
        layers = range(m.num_layers if isinstance(m, Layers) else 1)
        directions = range(2 if is_stack and m.bidirectional else 1)
        self.projected = isinstance(m, Layers) and m.proj_size > 0
        self.P = m.proj_size if isinstance(m, Layers) and self.projected else self.H
        _check_steps(choice.steps)
        self.units = self._units()
        self.gates = GATES[spec.name]
        self.names = self._names(("h", *(("c",) if spec is LSTM else ()), *self.gates))
        self.spans: list[Span] = []
        self.is_part = choice.is_part
        self.whole = folder is None and not self.is_part  # nothing of a call is let go, or written
        self.taken = 0  # steps of the calls that are in the arrays
        self._now: list[Seen] = []  # of the call under way
        self._calls: deque[list[Seen]] = deque()  # made, and not in the arrays yet
        self.planes = {
            (layer, d): self._plane((layer, d), _keeps(m, spec))
            for layer in self._of("layers", layers, choice.layers)
            for d in self._of("directions", directions, choice.directions)
        }
        self.module = Module(name, spec.name, self.planes, self.spans, settle=self.settle)

    def _of(self, what: str, there: range, asked: tuple[int, ...] | None) -> Sequence[int]:
        if asked is None:
            return there
        for number in asked:
            if number not in there:
                who = self.name or "the model"
                raise ValueError(f"{WHAT}: {who} has {what} 0..{len(there) - 1}, not {number}")
        return asked

    def _units(self) -> Tensor | None:
        units, H = self.choice.units, self.H
        if units is None:
            return None
        if isinstance(units, slice):
            return torch.tensor(range(H)[units], dtype=torch.long)
        listed = _listed("units", units)
        if any(u >= H for u in listed):
            raise ValueError(f"{WHAT}: {self.name or 'the model'} has units 0..{H - 1}, not {max(listed)}")
        return torch.tensor(listed, dtype=torch.long)

    def _names(self, there: tuple[str, ...]) -> tuple[str, ...]:
        asked = self.choice.arrays
        if asked is None:
            return there
        known = {"h", "c", *(gate for gates in GATES.values() for gate in gates)}
        for name in [asked] if isinstance(asked, str) else asked:
            if name not in known:
                raise ValueError(f"{WHAT}: no array is named {name!r}{nearest(name, sorted(known))}")
        return tuple(name for name in there if name in asked)

    def _plane(self, key: Key, keeps: str | None) -> Plane:
        plane = Plane(self.name, key, self.gates, self.spans, keeps, settle=self.settle)
        for array in self.names:
            file = None if self.folder is None else self.folder / file_of(plane, array)
            plane.held[array] = InMemory() if file is None else InFile(file)
        plane.steps_chosen = None if self.choice.steps is None else []
        return plane

    @property
    def arrays(self) -> list[Array]:
        return [array for plane in self.planes.values() for array in plane.held.values()]

    def is_view(self, array: str) -> bool:
        """Whether no units were taken out of it."""
        return self.units is None or (array == "h" and self.projected)

    # ---- a call, layer by layer

    def note(self, seen: Seen) -> None:
        """What a layer of the call under way gave."""
        self._now.append(seen)

    def done(self) -> None:
        """The call was made."""
        now, self._now = self._now, []
        self._calls.append(now)
        if not self.whole:
            try:
                self.settle()
            finally:
                self._calls.clear()

    def failed(self) -> None:
        """The call raised: nothing of it is kept."""
        self._now = []
        self._roll_back()

    def _roll_back(self) -> None:
        for array in self.arrays:
            array.roll_back()

    # ---- and what becomes of it

    def settle(self) -> None:
        """Puts the calls that were made into the arrays."""
        while self._calls:
            self._enter(self._calls[0])
            self._calls.popleft()

    def _enter(self, layers: list[Seen]) -> None:
        first = layers[0]
        T, B = (1, *first.y.shape)[-3:-1]
        rows = self.rows_of(T)
        try:
            for seen in layers:
                if not seen.written:
                    self._take(seen, rows)
            for array in self.arrays:
                array.commit()
        except BaseException:
            self._roll_back()
            raise
        lengths = None if first.lengths is None else first.lengths.cpu()
        if lengths is not None and first.order is not None:
            lengths = lengths[first.order.cpu()]
        if rows is not None:
            for plane in self.planes.values():
                assert plane.steps_chosen is not None
                plane.steps_chosen += (rows + self.taken).tolist()
        before = self.spans[-1] if self.spans else None
        if before is not None and before.batch == B and before.lengths is None and lengths is None:
            before.steps += T
        else:
            self.spans.append(Span(T, B, lengths))
        self.module.count += 1
        self.taken += T

    def rows_of(self, T: int) -> Tensor | None:
        """Which of the T steps of the next call are kept; None: all."""
        return self.choice.steps_of(self.taken, T)

    def _take(self, seen: Seen, rows: Tensor | None) -> None:
        y, gates, cells, order = seen.y, seen.gates, seen.cells, seen.order
        if y.dim() == 2:  # a cell's
            y = y.unsqueeze(0)
            gates, cells = (None if t is None else t.view(1, 1, *t.shape) for t in (gates, cells))
        for (layer, d), plane in self.planes.items():
            if layer != seen.layer:
                continue
            for name, value in self.of_plane(plane, d, y, gates, cells).items():
                if rows is not None:
                    value = value[rows.to(value.device)]
                elif self.is_part and self.is_view(name):
                    value = value.clone()  # the rest of what it is a part of is let go
                if order is not None:
                    value = value.index_select(1, order.to(value.device))
                plane.held[name].take(value)

    def of_plane(
        self, plane: Plane, d: int, y: Tensor, gates: Tensor | None, cells: Tensor | None
    ) -> dict[str, Tensor]:
        """The plane's arrays, all steps, of what the directions gave of which it is number d: views."""
        H, P = self.H, self.P
        given = {"h": y.detach()[..., d * P : (d + 1) * P]}
        if cells is not None:
            given["c"] = cells[d].detach()
        if gates is not None:
            own = gates[d].detach()
            given |= {name: own[..., j * H : (j + 1) * H] for j, name in enumerate(self.gates)}
        if self.units is not None:
            given = {
                name: t if name == "h" and self.projected else t[..., self.units.to(t.device)]
                for name, t in given.items()
            }
        return {name: given[name] for name in plane.held}
