"""A machine's picture: a panel for each cell and mode, a line for each shape, a mark for each peer."""

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
TICKS = ((0.3, 0.5, 1, 2, 3, 5, 10, 20), (0.01, 0.1, 1, 10, 100))  # the second where marks lie far apart
MARGIN = 0.05  # of an axis, outside its outermost marks: more than the half of a mark in the narrowest panel


def drawn_of(rows: list[Row]) -> list[Row]:
    """The fp32 layers of the grid beside a peer, of which a quick run has some."""
    layers = select(rows, suite="rnn", dtype="float32", peer=tuple(MARKS))
    return [e for e in layers if (e.H, e.B, e.T) in SHAPES]


def draw(rows: list[Row], ratio, names: dict[str, str], path: Path) -> None:
    """fp32 layer rows to a PNG; `ratio(row)`: the peer's time over fusegen's; `names`: peers as people know
    them.

    Right of the line at 1 fusegen is faster; the ground left of it is tinted, so that losses are seen.
    """
    path.write_bytes(drawing.png(figure_of(rows, ratio, names)))


def figure_of(rows: list[Row], ratio, names: dict[str, str]):
    """The figure that `draw` writes. Cells, modes, shapes and peers that were not read are left out."""
    rows = drawn_of(rows)
    read = {
        (mode, cell): part for mode in MODES for cell in CELLS if (part := select(rows, mode=mode, cell=cell))
    }
    shapes = [shape for shape in SHAPES if shape in {(e.H, e.B, e.T) for e in rows}]
    wide, legend = min(len(CELLS), len(read)), {}
    high = -(-len(read) // wide)
    with drawing.styled():
        figure = drawing.figure(height=1.1 + high * (0.65 + 0.2 * len(shapes)), layout="constrained")
        axes = figure.subplots(high, wide, sharex=True, sharey=True, squeeze=False).ravel()
        for axis, ((mode, cell), part) in zip(axes, read.items(), strict=False):
            panel(axis, part, shapes, ratio, names)
            axis.set_title(f"{cell.upper()} {mode}")
            marks, labels = axis.get_legend_handles_labels()
            legend |= dict(zip(labels, marks, strict=True))
        for axis, above in zip(axes[len(read) :], axes[len(read) - wide :], strict=False):
            axis.remove()
            above.tick_params(labelbottom=True)  # nothing stands below it
        scale(axes[0], shapes, list(map(ratio, rows)))
        names_drawn = [names[peer] for peer in MARKS if names[peer] in legend]
        figure.legend(
            [legend[name] for name in names_drawn], names_drawn,
            loc="outside lower center", ncols=len(MARKS),
        )  # fmt: skip
        figure.suptitle("Time of each peer over fusegen's, fp32 (in the tinted part the peer is faster)")
    return figure


def panel(axis, rows: list[Row], shapes: list[tuple[int, int, int]], ratio, names: dict[str, str]) -> None:
    axis.axvspan(1e-3, 1, color=drawing.ALARM, zorder=0)
    axis.axvline(1, color=drawing.MUTED, linewidth=1, zorder=1)
    axis.grid(axis="x", visible=False)
    for peer, (marker, color) in MARKS.items():
        part = select(rows, peer=peer)
        if not part:  # nor does it belong into the legend
            continue
        lines = [shapes.index((e.H, e.B, e.T)) for e in part]
        values = [ratio(e) for e in part]
        axis.scatter(values, lines, s=26, marker=marker, color=color, label=names[peer], zorder=3)


def scale(axis, shapes: list[tuple[int, int, int]], values: list[float]) -> None:
    """Shared by all panels: every mark lies inside, and both sides of 1 are seen."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    low, high = min(0.8, *values), max(1.2, *values)
    margin = (high / low) ** MARGIN
    low, high = low / margin, high * margin
    usual, wide = TICKS
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.set_xticks([tick for tick in (usual if high < 100 * low else wide) if low < tick < high])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_yticks(range(len(shapes)), [f"H{H} B{B} T{T}" for H, B, T in shapes])
    axis.set_ylim(len(shapes) - 0.5, -0.5)
