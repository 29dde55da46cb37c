"""A machine's picture: six panels, a line for each shape, a mark for each peer."""

from __future__ import annotations

from pathlib import Path

from harness.bars import select
from harness.problem import CELLS
from harness.record import Row
from speed.rnn import SHAPES

MODES = ("inference", "training")
MARKS = {
    "torch": ("o", "#c44e2c"),
    "onnxruntime": ("s", "#3a7d44"),
    "openvino": ("^", "#8a6d2b"),
    "onednn": ("D", "#2b5c8a"),
}
TICKS = (0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20)


def draw(rows: list[Row], ratio, names: dict[str, str], path: Path) -> None:
    """fp32 layer rows to a PNG; `ratio(row)`: the peer's time over fusegen's; `names`: peers as people know
    them.

    Right of the line at 1 fusegen is faster; the ground left of it is tinted, so that losses are seen.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = select(rows, suite="rnn", dtype="float32", peer=tuple(MARKS))
    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6.4), sharex=True, sharey=True, layout="constrained")
    for line, mode in zip(axes, MODES, strict=True):
        for axis, cell in zip(line, CELLS, strict=True):
            panel(axis, select(rows, mode=mode, cell=cell), ratio, names)
            axis.set_title(f"{cell.upper()} {mode}", fontsize=10, loc="left")
    scale(axes[0, 0], min(0.8, *map(ratio, rows)) / 1.08, max(1.2, *map(ratio, rows)) * 1.12)
    legend = axes[0, 0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=len(MARKS), frameon=False)
    figure.suptitle(
        "Time of each peer over fusegen's, fp32 (left of the line the peer is faster)", fontsize=11
    )
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def panel(axis, rows: list[Row], ratio, names: dict[str, str]) -> None:
    axis.tick_params(labelsize=8)
    axis.axvspan(1e-3, 1, color="#f6e6e0", zorder=0)
    axis.axvline(1, color="#888888", linewidth=1, zorder=1)
    axis.grid(axis="y", color="#e5e5e5", linewidth=0.6, zorder=1)
    axis.spines[["top", "right"]].set_visible(False)
    for peer, (marker, color) in MARKS.items():
        part = select(rows, peer=peer)
        if not part:  # nor does it belong into the legend
            continue
        lines = [SHAPES.index((e.H, e.B, e.T)) for e in part]
        values = [ratio(e) for e in part]
        axis.scatter(values, lines, s=30, marker=marker, color=color, label=names[peer], zorder=3)


def scale(axis, low: float, high: float) -> None:
    """Shared by all panels."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.set_xticks([tick for tick in TICKS if low < tick < high])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_yticks(range(len(SHAPES)), [f"H{H} B{B} T{T}" for H, B, T in SHAPES])
    axis.set_ylim(len(SHAPES) - 0.5, -0.5)
