"""Text that does not fit: rows of a data set, read as training asks for them, from a saved position."""

import copy
import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from .._errors import first_line
from .files.hub import hub_name, read_hub
from .files.paths import source_of
from .text import Lanes

WINDOW = 64  # chunks of every lane that are held at a time


class StreamError(OSError):
    """Data that broke off, or turned out to hold no text, after training had begun."""


class TextStream:
    """A column of texts through `datasets` with streaming=True: nothing is read before it is asked for.

    source: "hf:NAME", or a .parquet, .json or .jsonl file; column, split: as the data set calls them.
    held_out: so many of the first rows are `measured`, and in no batch.
    Raises OSError or ValueError, beginning with `argument`, for data that cannot be opened, that hold no such
    column, or that end before the held-out rows do.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        column: str,
        split: str,
        held_out: int,
        argument: str = "source",
    ) -> None:
        source = source_of(source, argument)
        self.name, self.column, self.skipped = source, column, held_out
        name = hub_name(source, argument)
        if name is None:
            raise ValueError(
                f"{argument}: expected hf:NAME or a .parquet or .json file to stream, got {source!r}"
            )
        self.rows = read_hub(name, split, argument, streaming=True)
        try:
            first = list(islice(self.rows, held_out + 1))
        except Exception as error:  # those of every library beneath it
            raise ValueError(f"{argument}: cannot read {source}: {first_line(error)}") from error
        if first and column not in first[0]:
            there = ", ".join(first[0])
            raise ValueError(
                f"{argument}: {source} has no column {column!r}: {there}; --column names one of them"
            )
        if len(first) <= held_out:
            raise ValueError(
                f"{argument}: {source} has {len(first)} rows: expected more than the {held_out} held out"
            )
        try:
            self.measured = "\n\n".join(filter(None, map(self.text, first[:held_out])))
        except ValueError as error:
            raise ValueError(f"{argument}: {source}: {error}") from error
        if not self.measured.strip():
            raise ValueError(f"{argument}: {source}: column {column!r} is empty in the rows held out")

    def text(self, row: dict[str, Any]) -> str:
        """A row's text, "" where there is none. Raises ValueError for what is not text."""
        value = row[self.column]
        if value is not None and not isinstance(value, str):
            kind = type(value).__name__
            raise ValueError(f"column {self.column!r} holds {kind}, not text")
        return (value or "").strip("\n")


class StreamedLanes:
    """One part's share of a stream in lanes: (inputs, targets), each int64 [chunk, batch], for ever.

    Of the rows that are not held out, part `index` of `count` takes every `count`-th, and encodes no other.
    Their texts, each with a blank line after it, are joined; `WINDOW` chunks at a time are cut into `batch`
    lanes, over which state may be carried. When the data end, they begin anew.

    encode: text -> integers [N]. Iterating raises StreamError where the data cannot be read on, and where
    they hold no text for this part.
    """

    def __init__(
        self,
        stream: TextStream,
        encode: Callable[[str], Tensor],
        batch: int,
        chunk: int,
        index: int = 0,
        count: int = 1,
    ):
        self._window: dict[str, Any] | None = None  # where it starts in the data
        self._stream, self._encode = stream, encode
        self._batch, self._chunk, self._part = batch, chunk, (index, count)
        self._begin(None)

    def __next__(self) -> tuple[tuple[Tensor, Tensor], bool]:
        """The next chunk, and whether a window begins with it."""
        lanes = self._lanes
        if lanes is None or self._next == len(lanes):
            rows = None if self._rows is None else self._rows.state_dict()
            self._window = {"rows": rows, "row": self._row, "left": self._left}
            lanes = self._fill()
        self._next += 1
        return lanes[self._next - 1], self._next == 1

    def state_dict(self) -> dict[str, Any]:
        """The position: that of the window's start in the data, and of the chunk in the window."""
        return {"part": list(self._part), "window": self._window, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Reads the window again. Raises ValueError for the position of another part."""
        if tuple(state["part"]) != self._part:
            (_, then), (_, now) = state["part"], self._part
            raise ValueError(f"the stream was dealt over {then} parts (processes x accumulate), not {now}")
        self._begin(state["window"])
        if state["window"] is not None:
            self._fill()
            self._next = state["next"]

    def _begin(self, window: dict[str, Any] | None) -> None:
        self._window = window
        self._lanes: Lanes | None = None
        self._next = 0  # chunk of the window
        self._left: Tensor = torch.empty(0, dtype=torch.uint8) if window is None else window["left"]
        self._rows: Any = None  # what `datasets` reads from
        self._row: int = 0
        self._texts = self._read(window)

    def _fill(self) -> Lanes:
        """The next window. Its first token is the last one's last target."""
        needed = self._batch * self._chunk * WINDOW + 1
        pieces, count = [self._left], len(self._left)
        while count < needed:
            pieces.append(self._encode(next(self._texts) + "\n\n"))
            count += len(pieces[-1])
        tokens = torch.cat(pieces)
        lanes = Lanes(tokens[:needed], self._batch, self._chunk, drop_last=True)
        self._lanes, self._next = lanes, 0
        self._left = tokens[needed - 1 :].clone()
        return lanes

    def _read(self, window: dict[str, Any] | None) -> Iterator[str]:
        """This part's texts from a window's start on."""
        (index, count), name = self._part, self._stream.name
        while True:
            # A copy: a data set keeps its place in itself, and begins every pass where it was once told to.
            self._rows, self._row = copy.deepcopy(self._stream.rows), 0
            if window is not None and window["rows"] is not None:
                self._rows.load_state_dict(window["rows"])
                self._row = window["row"]
            found = window is not None
            window = None
            rows = iter(self._rows)
            while True:
                try:
                    row = next(rows)
                    number = self._row - self._stream.skipped
                    self._row += 1
                    if number < 0 or number % count != index:
                        continue
                    text = self._stream.text(row)
                except StopIteration:
                    break
                except Exception as error:  # those of every library beneath it
                    raise StreamError(
                        f"cannot read on in {name} after {self._row} rows: {first_line(error)}"
                    ) from error
                if text:
                    found = True
                    yield text
            if not found:
                raise StreamError(f"{name} has no text for part {index} of {count}")
