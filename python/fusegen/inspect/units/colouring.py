"""Text coloured by what a unit holds: the drawing of Karpathy et al. 2015 (arXiv:1506.02078, figure 2)."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from torch import Tensor

from ... import _arguments

_WHAT = "fusegen.inspect.coloured"
# Okabe and Ito's blue and vermillion, told apart by the colour-blind, thinned so far that black text on them
# has a contrast of 5 to 1 or more.
_LOW, _HIGH, _THINNED = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), 0.75
_LEVELS = 24  # of a colour: few enough that neighbours share one span
_SHOWN = {"\n": "\u21b5\n", "\t": "\u21e5\t"}
KINDS = ("cell", "signed", "share")


class Coloured(NamedTuple):
    """A text token by token: pieces, values in -1..1, colours as #rrggbb; ``html`` draws it. In a notebook it
    shows itself."""

    pieces: list[str]
    values: list[float]
    colours: list[str]

    @property
    def html(self) -> str:
        """A <div> that stands alone: monospaced, lines as in the text and broken where there is no more room,
        a line's end shown as \u21b5. Each colour is a <span>'s background."""
        spans = []
        for colour, run in groupby(zip(self.colours, self.pieces, strict=True), key=lambda pair: pair[0]):
            text = html.escape("".join(_visible(piece) for _, piece in run), quote=False)
            spans.append(text if colour == "#ffffff" else f'<span style="background:{colour}">{text}</span>')
        style = (
            "font-family:monospace;white-space:break-spaces;overflow-wrap:anywhere;color:#000;background:#fff"
        )
        return f'<div class="coloured" style="{style}">{"".join(spans)}</div>'

    def _repr_html_(self) -> str:
        return self.html


def coloured(
    pieces: Sequence[str], values: Tensor | Sequence[float], *, kind: str = "cell", most: float = 1.0
) -> Coloured:
    """A text whose background tells what a unit held after each token.

    pieces: the text token by token, of ``Vocabulary.pieces``. values: as many numbers, or a Tensor [N]
    of any real dtype. kind: "cell" colours by tanh(value), as an LSTM lets its cell out; "signed" by
    value / most; both go from blue (-1) over white to orange (1). "share" goes from white (0) to orange
    (most). most: what gets the full colour, above 0; what is beyond is cut. "cell" does not use it.

    Raises TypeError or ValueError, which name the argument, for values that are not finite, too.
    """
    if isinstance(pieces, str) or not all(isinstance(piece, str) for piece in pieces):
        raise TypeError(f"{_WHAT}: expected pieces as a sequence of texts, one a token")
    _arguments.choice(f"{_WHAT}: kind", kind, KINDS)
    most = _arguments.number(f"{_WHAT}: most", most, 0, open_below=True)
    if isinstance(values, Tensor) and values.dim() != 1:
        raise ValueError(f"{_WHAT}: expected values [{len(pieces)}], got {list(values.shape)}")
    numbers = [float(value) for value in (values.tolist() if isinstance(values, Tensor) else values)]
    if len(numbers) != len(pieces):
        raise ValueError(f"{_WHAT}: expected as many values as pieces, {len(pieces)}, got {len(numbers)}")
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{_WHAT}: expected values that are finite, got {numbers}"[:200])
    low = 0.0 if kind == "share" else -1.0
    scaled = [math.tanh(x) if kind == "cell" else min(1.0, max(low, x / most)) for x in numbers]
    return Coloured(list(pieces), scaled, [colour_of(x) for x in scaled])


def colour_of(value: float) -> str:
    """#rrggbb of a value in -1..1: blue, white, orange."""
    depth = round(abs(value) * _LEVELS) / _LEVELS * _THINNED
    end = _HIGH if value > 0 else _LOW
    return "#" + "".join(f"{round(255 + (x - 255) * depth):02x}" for x in end)


def _visible(piece: str) -> str:
    """With signs for ends of lines and tabs, and for what cannot be shown."""
    return "".join(_SHOWN.get(c, c if c.isprintable() else "\N{REPLACEMENT CHARACTER}") for c in piece)
