"""What a text is doing at each of its tokens: where in the line it is, inside quotes or not, how far in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _arguments

_WHAT = "fusegen.inspect.text_labels"
_TAB = 8
UNKNOWN = -1


def text_labels(
    pieces: Sequence[str], *, width: int = 10, last: int = 70, begun: bool = True
) -> dict[str, Tensor]:
    """What each token of a text has led to, int64 [N] each, for ``probe``; -1 where it cannot be said.

    "line position": characters since the line began, in bins: 0 for 0..width - 1, 1 for the next, and so on;
    all from column ``last`` on in one. "inside quotes": 1 from a double quotation mark to the next, 0
    elsewhere; a blank line ends what was left open. "indentation": the columns of white space before the
    line's first other character, once that is read; before it, and on blank lines, -1. A tab goes on to the
    next multiple of 8.

    pieces: the text token by token, of ``Vocabulary.pieces``; joined they are the text. width, last: of the
    bins. begun: whether the text begins where a line does; else all is -1 until one has ended.

    Raises TypeError or ValueError, which name the argument.
    """
    if isinstance(pieces, str) or not all(isinstance(piece, str) for piece in pieces):
        raise TypeError(f"{_WHAT}: expected pieces as a sequence of texts, one a token")
    width = _arguments.whole(f"{_WHAT}: width", width, 1)
    last = _arguments.whole(f"{_WHAT}: last", last, 0)
    line = _Line(begun)
    rows = []
    for piece in pieces:
        for character in piece:
            line.read(character)
        rows.append((min(line.column, last) // width if line.known else UNKNOWN, line.quoted, line.depth))
    table = torch.tensor(rows, dtype=torch.int64).view(-1, 3)
    names = ("line position", "inside quotes", "indentation")
    return {name: table[:, i].contiguous() for i, name in enumerate(names)}


class _Line:
    """Where a text is, character by character."""

    def __init__(self, begun: bool) -> None:
        self.known = begun
        self.column = 0
        self.indent: int | None = None  # of this line, once something stands in it
        self.quoted = 0 if begun else UNKNOWN

    @property
    def depth(self) -> int:
        return UNKNOWN if self.indent is None or not self.known else self.indent

    def read(self, character: str) -> None:
        if character == "\n":
            if self.quoted == UNKNOWN or (self.known and self.indent is None):
                self.quoted = 0
            self.column, self.indent, self.known = 0, None, True
            return
        if self.indent is None and not character.isspace():
            self.indent = self.column
        if character == '"' and self.quoted != UNKNOWN:
            self.quoted = 1 - self.quoted
        self.column += _TAB - self.column % _TAB if character == "\t" else 1
