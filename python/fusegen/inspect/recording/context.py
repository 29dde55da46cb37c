"""``fusegen.inspect.record``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ... import _arguments
from .calls import LayerCall, Made, Place, Run, run_in_parts
from .kept import WHAT, Choice, Kept, Seen
from .names import recurrent
from .recorded import Key, Recording
from .saved import straight
from .storage import Array
from .taps import Seat, Tap, tapped

_PART_BYTES = 16 << 20  # of what a part of a long call makes


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
    are no fused kernels; FileExistsError for a folder with something in it, NotADirectoryError for a file.
    May be nested; calls from several threads at once are not told apart. A call that raises leaves nothing
    behind, those before it stay; of a process that is killed a folder holds all but the last second.
    """
    found = recurrent(WHAT, model, names)
    choice = Choice(_wholes("layers", layers), _wholes("directions", directions), steps, units, arrays)
    kept = [Kept(name, m, choice, _room(folder)) for name, m in found.items()]
    recording = Recording({each.name: each.module for each in kept}, None if folder is None else Path(folder))
    if part is not None:
        _arguments.whole(f"{WHAT}: part", part, 1)
    recording.write_index()
    by_module = {id(m): each for m, each in zip(found.values(), kept, strict=True)}
    recorder = _Recorder(recording, by_module, part)
    try:
        with tapped(list(found.values()), recorder):
            yield recording
    finally:
        recording.write_index()


def _wholes(name: str, given: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if given is None else _arguments.wholes(f"{WHAT}: {name}", given, 0)


def _room(folder: str | Path | None) -> Path | None:
    """The folder, made if it is not there."""
    if folder is None:
        return None
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{WHAT}: expected folder to be a folder, and {path} is a file")
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise FileExistsError(f"{WHAT}: expected a new or an empty folder, and {path} holds something")
    return path


class _Recorder(Tap):
    outermost = True

    def __init__(self, recording: Recording, kept: dict[int, Kept], part: int | None) -> None:
        self.recording, self.kept, self.part = recording, kept, part

    def at_once(
        self, module: nn.Module, layer: int, order: Tensor | None, op: Any, given: Sequence[Any]
    ) -> Any:
        kept = self.kept[id(module)]
        if not kept.whole or (made := straight(op, *given)) is None:
            return None
        outputs, y, saved = made
        gates, cells = (*saved, None, None)[:2]
        # callers may write to what they are given
        kept.note(Seen(layer, y.detach().clone(), gates, cells, given[5] if len(given) > 5 else None, order))
        return outputs

    def __call__(self, seat: Seat, call: LayerCall, run: Run) -> Made:
        kept = self.kept[id(seat.module)]
        asked = any((seat.layer, d) in kept.planes for d in range(call.directions))
        length = self._part_of(kept, call) if asked else 0
        made = _in_parts(kept, seat, call, run, length) if length else run(call)
        y, gates, cells = made.y.detach(), made.gates, made.cells
        if length or not asked:  # nothing is left to keep but how many steps and rows there were
            y, gates, cells = y.new_empty(*y.shape[:2], 0), None, None
        elif kept.whole:
            y = y.clone()
        written = bool(length) or not asked
        kept.note(Seen(seat.layer, y, gates, cells, call.lengths, order=seat.order, written=written))
        return made

    def done(self, module: nn.Module) -> None:
        kept = self.kept[id(module)]
        kept.done()
        if kept.folder is not None:
            self.recording.write_index(now=False)

    def failed(self, module: nn.Module) -> None:
        self.kept[id(module)].failed()

    def _part_of(self, kept: Kept, call: LayerCall) -> int:
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


def _in_parts(kept: Kept, seat: Seat, call: LayerCall, run: Run, length: int) -> Made:
    T = call.x.shape[0]
    row_of, chosen = None, kept.rows_of(T)
    if chosen is not None:
        row_of = torch.full((T,), -1)
        row_of[chosen] = torch.arange(len(chosen))
    begun: set[Key] = set()

    def look(part: LayerCall, made: Made, at: Place) -> Made:
        key = (seat.layer, at.d)
        if key not in kept.planes:
            return made
        rows = at.t.cpu()
        rows = rows if row_of is None else row_of[rows]
        plane = kept.planes[key]
        for name, value in kept.of_plane(plane, 0, made.y, made.gates, made.cells).items():
            array = plane.held[name]
            if key not in begun:
                array.reserve(T if chosen is None else len(chosen), value)
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
