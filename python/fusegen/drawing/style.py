"""The style of every picture: sizes in inches, of which a page's width has 8.3 at 100 pixels each."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

from ..data._optional import needed

WIDTH = 8.3
NARROW = 4.1
"""The width, in inches, of a picture that is read on a telephone too: its letters are legible where it is
shown 360 pixels wide."""
DPI = 100
"""The pixels an inch that pictures are written with."""
TEXT = 9  # points: 12.5 pixels
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00")
"""The colours of lines, as "#rrggbb": those of Okabe and Ito (2008), which colour-blind readers can tell
apart. The palest come last."""
MUTED = "#666666"
"""The grey of what stays in the background: axes, notes, lines to compare with."""
FAINT = "#e5e5e5"
ALARM = "#f6d9d0"
"""The tint behind what went wrong: a signal of a training run, the losing side of a benchmark."""

_STYLE = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # matplotlib brings it: the same letters everywhere
    "font.size": TEXT,
    "axes.titlesize": TEXT + 1,
    "axes.titlelocation": "left",
    "axes.labelsize": TEXT,
    "xtick.labelsize": TEXT - 1,
    "ytick.labelsize": TEXT - 1,
    "legend.fontsize": TEXT,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
}


def check() -> None:
    """Raises ModuleNotFoundError, saying what to install, without matplotlib."""
    needed("matplotlib", "matplotlib")


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Everything drawn inside has the style, whatever a user's own settings are."""
    needed("matplotlib", "matplotlib")
    from matplotlib import rcsetup, style

    with style.context({**_STYLE, "axes.prop_cycle": rcsetup.cycler(color=COLOURS)}, after_reset=True):
        yield


def figure(width: float = WIDTH, height: float = 3.0, **how: Any) -> Any:
    """A new figure of so many inches, of no window and of no list of figures, to be drawn in under
    ``styled``.

    width, height: in inches, of 100 pixels each. how: other arguments of matplotlib's Figure. Raises
    ModuleNotFoundError without matplotlib; other errors are matplotlib's own.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), **how)


def png(drawn: Any, dpi: int = DPI) -> bytes:
    """A figure as the content of a PNG file: the same bytes for the same figure and matplotlib.

    drawn: a figure of matplotlib's. dpi: pixels an inch. Raises ModuleNotFoundError without matplotlib;
    other errors are matplotlib's own.
    """
    content = io.BytesIO()
    with styled():
        drawn.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()


def plain(axis: Any) -> None:
    """0.1, 1, 10 at a logarithmic axis, not powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    if high < 100 * low:  # less than two powers of ten would have a number or two
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
