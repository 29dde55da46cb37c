"""What a run's log tells: measures, losses and the rest by step, and where something was wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import style

SIGNAL = "signal: "  # how the log names what went wrong, 1 while it does and 0 when it ends
_ROW = 1.75  # inches
_POINTS = 60  # of a curve of losses, about: more are averaged
_NAMES = 6  # in a panel
_WIDE = 20  # times the least value: what spans more is drawn on a logarithmic axis

# What is drawn together, the first that a name fits: (title, how its names end, how the axis is).
_PANELS: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
    ("gradient norms", ("gradient norm",), {}),
    ("losses", ("loss",), {}),
    ("mean logits", ("real logit", "fake logit"), {}),
    ("mean sign of D on real samples, r_t (1: all known)", ("real sign",), {"ylim": (-1.05, 1.05)}),
    ("precision, recall and spread (the data: 1)", ("precision", "recall", "spread"), {"ylim": (0, None)}),
)

Points = Sequence[tuple[int, float]]


def training_figure(log: Iterable[Mapping[str, Any]], title: str = "", columns: int = 2) -> Any:
    """A panel for the first measure, and for each of the kinds of figures that there are, by step.

    columns: 2 panels side by side, or 1, half as wide. log: the lines of log.jsonl, {"step", "seconds", then
    numbers by name}; a line with "lr" holds losses, the others measures. Means over about 60 parts of the
    steps are drawn of losses. Shaded: where the log has a signal. Raises ValueError for a log without
    figures, ModuleNotFoundError without matplotlib.

    title: above all panels; none by default.
    """
    lines = list(log)
    panels = _panels(lines)
    if not panels:
        raise ValueError("log: expected at least one line with figures, got none")
    signals = _signals(lines)
    rows = -(-len(panels) // columns)
    with style.styled():
        wide = style.WIDTH if columns > 1 else style.NARROW
        figure = style.figure(wide, rows * _ROW + 0.35 * (bool(title) + bool(signals)) + 0.2,
                              layout="constrained")  # fmt: skip
        axes = figure.subplots(rows, min(columns, len(panels)), squeeze=False, sharex=True).flatten()
        for axis, (name, how, curves) in zip(axes, panels, strict=False):
            _fill(axis, name, how, curves)
            for begin, end in (span for spans in signals.values() for span in spans):
                axis.axvspan(begin, end, color=style.ALARM, zorder=0)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        for axis in axes[: len(panels)][-columns:]:
            axis.set_xlabel("step")
            axis.tick_params(labelbottom=True)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=style.TEXT + 1)
        if signals:
            figure.supxlabel(_told(signals), x=0.01, ha="left", fontsize=style.TEXT)
    return figure


def _panels(lines: list[Mapping[str, Any]]) -> list[tuple[str, dict[str, Any], dict[str, Points]]]:
    """(title, how the axis is, curves by name) of each panel that has some."""
    measured = [line for line in lines if "lr" not in line]
    own = [name for line in measured[:1] for name in line if name not in ("step", "seconds")]
    found: list[tuple[str, dict[str, Any], dict[str, Points]]] = []
    if own:
        found.append((own[0], {}, {own[0]: _points(measured, own[0])}))
    names = list(dict.fromkeys(name for line in lines for name in line))
    left = [n for n in names if n not in ("step", "seconds", "lr", *own[:1]) and not n.startswith(SIGNAL)]
    for title, endings, how in _PANELS:
        fitting = [name for name in left if name.endswith(endings)][:_NAMES]
        left = [name for name in left if name not in fitting]
        if fitting:
            found.append((title, how, {name: _points(lines, name) for name in fitting}))
    # The measure, then losses, then what tells of them: a reader's order.
    order = [own[0] if own else "", "losses", *(title for title, *_ in _PANELS)]
    return sorted(found, key=lambda panel: order.index(panel[0]))


def _points(lines: list[Mapping[str, Any]], name: str) -> Points:
    points = [(line["step"], float(line[name])) for line in lines if name in line]
    return [(step, value) for step, value in points if math.isfinite(value)]


def _fill(axis: Any, title: str, how: Mapping[str, Any], curves: Mapping[str, Points]) -> None:
    common = _ending(list(curves))
    for name, points in curves.items():
        mean, few = _averaged(points), len(points) <= _POINTS
        label = name.removesuffix(common).strip() or name
        axis.plot(*zip(*mean, strict=True) if mean else ((), ()), marker="o" if few else None, label=label)
    axis.set_title(title)
    axis.set(**how)
    values = [value for line in axis.lines for value in line.get_ydata()]  # as drawn: means
    if min(values, default=0) > 0 and max(values) > _WIDE * min(values):
        axis.set_yscale("log")
    if axis.get_yscale() == "log":
        style.plain(axis.yaxis)
    if len(curves) > 1:
        axis.legend(loc="best", handlelength=1.2, labelspacing=0.2)


def _ending(names: list[str]) -> str:
    """What several names end with, a word at least: of "discriminator loss" and "generator loss" " loss"."""
    words = [name.split() for name in names]
    count = 0
    while (
        len(words) > 1 and all(len(w) > count + 1 for w in words) and len({w[-count - 1] for w in words}) == 1
    ):
        count += 1
    return "".join(f" {word}" for word in words[0][len(words[0]) - count :])


def _averaged(points: Points) -> Points:
    """About `_POINTS` means of neighbouring points."""
    size = max(1, len(points) // _POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _signals(lines: list[Mapping[str, Any]]) -> dict[str, list[tuple[int, int]]]:
    """(first, last step) of the times at which each signal stood, by name."""
    found: dict[str, list[tuple[int, int]]] = {}
    last = lines[-1]["step"] if lines else 0
    for name in dict.fromkeys(name for line in lines for name in line if name.startswith(SIGNAL)):
        spans, begin = [], None
        for step, value in _points(lines, name):
            if value and begin is None:
                begin = step
            elif not value and begin is not None:
                spans.append((begin, step))
                begin = None
        found[name.removeprefix(SIGNAL)] = spans + ([(begin, last)] if begin is not None else [])
    return {name: spans for name, spans in found.items() if spans}


def _told(signals: Mapping[str, list[tuple[int, int]]]) -> str:
    said = [f"{name} " + ", ".join(f"{a}–{b}" for a, b in spans[:3]) for name, spans in signals.items()]
    return f"shaded: {'; '.join(said)}"
