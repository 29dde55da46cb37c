"""Plain plots: bars, lines, distributions, points and maps of numbers, narrow enough for a telephone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from . import style

_BAR, _REST, _MOST = 0.2, 0.9, 40  # inches: a bar's height, of title and axis; bars of one group at most
_HEIGHT = 2.6  # inches
_BINS = 24
_LETTERS, _KEY = 56, 5  # in a line of a legend, and what a name's sign takes of them
_TICKS = 30  # names along a side of a map at most, unless all have room


def bars_figure(
    bars: Mapping[str, Sequence[float]],
    names: Sequence[str],
    *,
    title: str = "",
    value: str = "",
    mark: tuple[float, str] | None = None,
    stacked: bool = False,
    width: float = style.NARROW,
) -> Any:
    """Bars from left to right, a row for each of ``names`` with a bar for each of ``bars`` (a colour each).

    bars: by name, a value for each row. names: of the rows, the first on top; 1 to 40. title: above the plot.
    value: what the bars measure, below the axis. mark: a value at which a line crosses all rows, and what it
    is. stacked: the bars of a row in one place, of which all but one are 0. width: in inches.

    Returns a figure of matplotlib's. Raises ValueError for no bars, more than 40 names, or another number of
    values than of names; ModuleNotFoundError without matplotlib.
    """
    if not bars or not names or len(names) > _MOST:
        raise ValueError(f"names: expected 1 to {_MOST}, and bars for them, got {len(names)}")
    for label, values in bars.items():
        if len(values) != len(names):
            raise ValueError(f"bars: expected {len(names)} values of {label!r}, got {len(values)}")
    thick = 0.8 / (1 if stacked else len(bars))
    lines = max(1.0, 0.6 * (1 if stacked else len(bars)), *(1 + name.count("\n") for name in names))
    height = _REST + _BAR * len(names) * lines + 0.25 * (len(bars) > 1)
    with _plot(width, height, title, value, "") as (figure, axis):
        for i, (label, values) in enumerate(bars.items()):
            beside = 0.0 if stacked else (i - (len(bars) - 1) / 2) * thick
            at = [row + beside for row in range(len(names))]
            axis.barh(at, list(values), thick, label=label)
        if mark is not None:
            axis.axvline(mark[0], color=style.MUTED, linestyle="--", label=mark[1])
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.4, -0.6)  # the first on top
        axis.grid(False, axis="y")
        axis.locator_params(axis="x", nbins=5)
    return figure


def lines_figure(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str = "",
    x: str = "",
    y: str = "",
    log: str = "",
    mark: tuple[float, str] | None = None,
    width: float = style.NARROW,
) -> Any:
    """Curves, a colour each, with a dot at each point where a curve has 12 points or fewer.

    curves: by name, each (xs, ys), as many of one as of the other. title: above the plot. x, y: what the axes
    measure. log: the axes that are logarithmic, "x", "y" or "xy"; they cannot show what is not above 0. mark:
    an x at which a line goes upwards, and what it is. width: in inches.

    Returns a figure of matplotlib's. Raises ValueError for no curves; ModuleNotFoundError without matplotlib.
    """
    if not curves:
        raise ValueError("curves: expected at least one, got none")
    with _plot(width, _HEIGHT, title, x, y) as (figure, axis):
        for label, (xs, ys) in curves.items():
            axis.plot(list(xs), list(ys), marker="o" if len(xs) <= 12 else None, label=label)
        _scale(axis, log)
        if mark is not None:
            axis.axvline(mark[0], color=style.MUTED, linestyle="--", label=mark[1])
    return figure


def distribution_figure(
    groups: Mapping[str, Sequence[float]],
    *,
    title: str = "",
    x: str = "",
    log: bool = False,
    width: float = style.NARROW,
) -> Any:
    """How values are spread: a histogram of 24 bins for each group, as an outline, in percent of the group.

    groups: values by name; those that are not finite are left out. title: above the plot. x: what the values
    measure. log: bins of equal ratios on a logarithmic axis; what is not above 0 is left out. width: in
    inches.

    Returns a figure of matplotlib's. Raises ValueError where nothing is left to draw; ModuleNotFoundError
    without matplotlib.
    """
    import numpy as np

    kept = {
        label: [v for v in values if math.isfinite(v) and (v > 0 or not log)]
        for label, values in groups.items()
    }
    every = [v for values in kept.values() for v in values]
    if not every:
        raise ValueError("groups: expected at least one value to draw, got none")
    low, high = min(every), max(every)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    edges = np.geomspace(low, high, _BINS + 1) if log else np.linspace(low, high, _BINS + 1)
    with _plot(width, _HEIGHT, title, x, "% of them") as (figure, axis):
        for label, values in kept.items():
            if values:
                weights = np.full(len(values), 100 / len(values))
                inside = np.clip(values, edges[0], edges[-1])  # rounding may put the largest outside
                axis.hist(inside, edges, weights=weights, histtype="step", linewidth=1.4, label=label)
        _scale(axis, "x" if log else "")
    return figure


def points_figure(
    groups: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str = "",
    x: str = "",
    y: str = "",
    line: tuple[float, float, float, float] | None = None,
    width: float = style.NARROW,
) -> Any:
    """Points, a colour and a sign for each group, on axes that both go from 0 to 1. Points beyond are not
    seen.

    groups: by name, each (xs, ys), as many of one as of the other. title: above the plot. x, y: what the axes
    measure. line: (x0, y0, x1, y1), the ends of a dashed line. width: in inches.

    Returns a figure of matplotlib's. Raises ValueError for no groups; ModuleNotFoundError without matplotlib.
    """
    if not groups:
        raise ValueError("groups: expected at least one, got none")
    with _plot(width, width * 0.8, title, x, y) as (figure, axis):
        for marker, (label, (xs, ys)) in zip("o^sDvP*" * len(groups), groups.items(), strict=False):
            axis.plot(list(xs), list(ys), marker, markersize=4, alpha=0.6, label=label, linestyle="none")
        if line is not None:
            axis.plot(line[::2], line[1::2], color=style.MUTED, linestyle="--", linewidth=1)
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    return figure


def heat_figure(
    values: Tensor,
    *,
    title: str = "",
    x: str = "",
    y: str = "",
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    label: str = "",
    signed: bool = False,
    width: float = style.NARROW,
) -> Any:
    """A map of numbers, row 0 on top, with a scale beside it.

    values: a Tensor [R, C] of any real dtype, neither R nor C 0. title: above the plot. x, y: what the
    columns and the rows are. rows, columns: R and C names along the sides, of which every so-many-th is shown
    where there are more than 30; numbers without them. label: what the colours measure. signed: blue, white
    and orange around 0; else white to blue, from 0 (or the smallest number, if that is below) to the largest
    absolute number. width: in inches.

    Returns a figure of matplotlib's. Raises ValueError for another shape or another number of names;
    ModuleNotFoundError without matplotlib.
    """
    if values.dim() != 2 or 0 in values.shape:
        raise ValueError(f"values: expected shape [R, C], neither 0, got {list(values.shape)}")
    for name, given, count in (("rows", rows, values.shape[0]), ("columns", columns, values.shape[1])):
        if given and len(given) != count:
            raise ValueError(f"{name}: expected {count} names, got {len(given)}")
    shown = values.detach().double().cpu().numpy()
    most = float(abs(shown).max()) or 1.0
    scale = {"vmin": -most, "vmax": most} if signed else {"vmin": min(0.0, float(shown.min())), "vmax": most}
    high = min(1.3 * width, max(1.6, 0.75 * width * values.shape[0] / values.shape[1]))
    with _plot(width, high + 0.7, title, x, y) as (figure, axis):
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.ticker import MaxNLocator

        ends = (style.COLOURS[0], "#ffffff", style.COLOURS[1]) if signed else ("#ffffff", style.COLOURS[0])
        colours = LinearSegmentedColormap.from_list("fusegen", ends)
        drawn = axis.imshow(shown, cmap=colours, aspect="auto", interpolation="nearest", **scale)
        for side, names in ((axis.yaxis, rows), (axis.xaxis, columns)):
            step = -(-len(names) // _TICKS) or 1
            if names:
                side.set_ticks(range(0, len(names), step), names[::step])
            else:
                side.set_major_locator(MaxNLocator(integer=True))
        axis.grid(False)
        figure.colorbar(drawn, ax=axis, label=label, fraction=0.08, pad=0.02)
    return figure


@contextmanager
def _plot(width: float, height: float, title: str, x: str, y: str) -> Iterator[tuple[Any, Any]]:
    """A figure and its one axes, to be drawn on in the package's style; then told what they are."""
    with style.styled():
        figure = style.figure(width, height, layout="constrained")
        axis = figure.subplots()
        yield figure, axis
        axis.set(title=title, xlabel=x, ylabel=y)
        _legend(figure, axis)


def _scale(axis: Any, log: str) -> None:
    for which in log:
        getattr(axis, f"set_{which}scale")("log")
        style.plain(getattr(axis, f"{which}axis"))


def _legend(figure: Any, axis: Any) -> None:
    """Below the axes, of as many columns as there is room for; none of a single name."""
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) > 1:
        columns = max(1, min(3, _LETTERS // (_KEY + max(map(len, labels)))))
        how = {"handlelength": 1.2, "columnspacing": 1.2, "handletextpad": 0.4}
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, **how)
