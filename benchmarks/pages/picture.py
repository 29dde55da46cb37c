"""A machine's picture: six panels, a line for each shape, a mark for each peer."""

from __future__ import annotations

from pathlib import Path

from fusegen import drawing
from harness.bars import select
from harness.problem import CELLS
from harness.record import Row
from speed.rnn import SHAPES

MODES = ("inference", "training")
MARKS = {
    "torch": ("o", drawing.COLOURS[1]),
    "onnxruntime": ("s", drawing.COLOURS[2]),
    "openvino": ("^", drawing.COLOURS[6]),
    "onednn": ("D", drawing.COLOURS[0]),
}
TICKS = (0.3, 0.5, 1, 2, 3, 5, 10, 20)


def drawn_of(rows: list[Row]) -> list[Row]:
    """The fp32 layers of the grid beside a peer, of which a quick run has some."""
    layers = select(rows, suite="rnn", dtype="float32", peer=tuple(MARKS))
    return [e for e in layers if (e.H, e.B, e.T) in SHAPES]


def draw(rows: list[Row], ratio, names: dict[str, str], path: Path) -> None:
    """fp32 layer rows to a PNG; `ratio(row)`: the peer's time over fusegen's; `names`: peers as people know
    them.

    Right of the line at 1 fusegen is faster; the ground left of it is tinted, so that losses are seen.
    """
    rows = drawn_of(rows)
    with drawing.styled():
        figure = drawing.figure(height=6.0, layout="constrained")
        axes = figure.subplots(2, 3, sharex=True, sharey=True)
        for line, mode in zip(axes, MODES, strict=True):
            for axis, cell in zip(line, CELLS, strict=True):
                panel(axis, select(rows, mode=mode, cell=cell), ratio, names)
                axis.set_title(f"{cell.upper()} {mode}")
        scale(axes[0, 0], min(0.8, *map(ratio, rows)) / 1.08, max(1.2, *map(ratio, rows)) * 1.12)
        legend = axes[0, 0].get_legend_handles_labels()
        figure.legend(*legend, loc="outside lower center", ncols=len(MARKS))
        figure.suptitle("Time of each peer over fusegen's, fp32 (in the tinted part the peer is faster)")
    path.write_bytes(drawing.png(figure))


def panel(axis, rows: list[Row], ratio, names: dict[str, str]) -> None:
    axis.axvspan(1e-3, 1, color=drawing.ALARM, zorder=0)
    axis.axvline(1, color=drawing.MUTED, linewidth=1, zorder=1)
    axis.grid(axis="x", visible=False)
    for peer, (marker, color) in MARKS.items():
        part = select(rows, peer=peer)
        if not part:  # nor does it belong into the legend
            continue
        lines = [SHAPES.index((e.H, e.B, e.T)) for e in part]
        values = [ratio(e) for e in part]
        axis.scatter(values, lines, s=26, marker=marker, color=color, label=names[peer], zorder=3)


def scale(axis, low: float, high: float) -> None:
    """Shared by all panels."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.set_xticks([tick for tick in TICKS if low < tick < high])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_yticks(range(len(SHAPES)), [f"H{H} B{B} T{T}" for H, B, T in SHAPES])
    axis.set_ylim(len(SHAPES) - 0.5, -0.5)
