"""README's measured table and picture from the newest results: `python benchmarks/report.py`.

For each suite the newest complete file of results/MACHINE is read. The text goes between the markers
bench:start and bench:end of README.md, the picture to results/MACHINE/layers.png.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import geometric_mean

import picture
import record
from bars import ratios, select
from picture import MODES
from record import Row
from suites.rnn import CELLS

START, END = "<!-- bench:start -->", "<!-- bench:end -->"
PEERS = {
    "torch": "torch.nn",
    "compile": "torch.compile",
    "onnxruntime": "ONNX Runtime",
    "onednn": "oneDNN from C++",
}
OTHERS = {
    "cells": "a single step (cells)",
    "ragged": "a ragged batch, packed",
    "text": "a text model's whole step",
}
LEGEND = """\
Time of each peer over fusegen's: geometric mean over the grid (smallest–largest); above 1 fusegen is faster.
Beside ONNX Runtime and oneDNN, which pack weights before inference, fusegen does so too
(`fusegen.frozen`)."""

PROVENANCE = """\
[{name}]({link}): {machine}, {isa}, {threads} threads, torch {torch}, ONNX Runtime {onnxruntime}, oneDNN wheel
{onednn}, commit {commit}."""


def newest(folder: Path) -> dict[str, Path]:
    """Suite -> the newest complete file that has it."""
    files = [path for path in folder.glob("*.csv") if "-partial" not in path.name]
    found = {}
    for path in sorted(files, key=lambda path: (record.shared(path)["date"], len(path.name), path.name)):
        found |= {entry.suite: path for entry in record.read(path)}
    return found


def compared(entry: Row) -> float:
    """A peer's time over fusegen's, over the frozen one's where the peer's weights are packed beforehand."""
    frozen = entry.mode == "inference" and entry.peer in ("onednn", "onnxruntime")
    return float(entry.ratio_frozen if frozen else entry.ratio_fused)


def spread(values: Iterable[float]) -> str:
    """Geometric mean and range, a losing end in bold."""
    values = list(values)
    if not values:
        return "–"
    low = f"{min(values):.2f}"
    if min(values) < 1:
        low = f"**{low}**"
    return f"{geometric_mean(values):.2f}× ({low}–{max(values):.2f})"


def table(head: list[str], lines: list[list[str]]) -> list[str]:
    """Markdown."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines)]


def layer_table(rows: list[Row]) -> list[str]:
    lines = []
    for cell in CELLS:
        for mode in MODES:
            part = select(rows, cell=cell, mode=mode)
            fp32 = [spread(map(compared, select(part, dtype="float32", peer=peer))) for peer in PEERS]
            bf16 = spread(map(compared, select(part, dtype="bfloat16", peer="torch")))
            lines.append([f"{cell.upper()} {mode}", *fp32, bf16])
    return table(["layer, fp32", *PEERS.values(), "torch.nn, bf16"], lines)


def other_table(rows: list[Row]) -> list[str]:
    """Cells, ragged batches and the demo's step, all against torch.nn."""
    lines = []
    for suite, label in OTHERS.items():
        for mode in MODES:
            part = select(rows, suite=suite, mode=mode, peer="torch")
            if part:
                lines.append(
                    [f"{label}, {mode}", *(spread(ratios(select(part, cell=cell))) for cell in CELLS)]
                )
    return table(["against torch.nn", *map(str.upper, CELLS)], lines)


def place(e: Row) -> str:
    """A layer's case in few words; T belongs to H and B in the grid."""
    return f"{e.cell.upper()} {e.mode} {'bf16 ' if e.dtype == 'bfloat16' else ''}H{e.H} B{e.B}"


def losses(rows: list[Row]) -> str:
    """Every layer case in which a peer was faster, the worst first."""
    lost = [entry for entry in select(rows, peer=tuple(PEERS)) if compared(entry) < 1]
    if not lost:
        return "In no case of the grid was a peer faster."
    items = [f"{place(e)} {PEERS[e.peer]} {compared(e):.2f}×" for e in sorted(lost, key=compared)]
    return f"A peer was faster in {len(lost)} readings of {len(rows)}: {'; '.join(items)}."


def provenance(files: Iterable[Path]) -> list[str]:
    """For each file: what was measured, where and with what."""
    return [
        PROVENANCE.format(name=path.name, link=path.relative_to(record.ROOT), **record.shared(path))
        for path in dict.fromkeys(files)
    ]


def markdown(rows: list[Row], files: dict[str, Path], drawn: Path | None) -> str:
    layers = select(rows, suite="rnn", peer=tuple(PEERS))
    parts = []
    if drawn:
        parts.append([f"![Time of each peer over fusegen's]({drawn.relative_to(record.ROOT)})"])
    if layers:
        parts += [[LEGEND], layer_table(layers), [losses(layers)]]
    if select(rows, suite=tuple(OTHERS)):
        parts.append(other_table(rows))
    parts.append(provenance(files.values()))
    return "\n\n".join("\n".join(lines) for lines in parts)


def inject(text: str, readme: Path) -> None:
    """Replace what stands between the markers. Raises ValueError unless both are there, once, in order."""
    whole = readme.read_text()
    if whole.count(START) != 1 or whole.count(END) != 1 or whole.index(START) > whole.index(END):
        raise ValueError(f"{readme.name}: expected {START} and then {END}, once each")
    before, rest = whole.split(START)
    readme.write_text(f"{before}{START}\n{text}\n{END}{rest.split(END)[1]}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machine", default=record.slug(record.processor()), help="a folder of results/")
    parser.add_argument("--no-picture", action="store_true", help="for want of matplotlib")
    asked = parser.parse_args(argv)
    folder = record.RESULTS / asked.machine
    files = newest(folder)
    if not files:
        print(f"no complete results in {folder.relative_to(record.ROOT)}: run.py makes them", file=sys.stderr)
        return 2
    rows = [entry for suite, path in files.items() for entry in select(record.read(path), suite=suite)]
    drawn = None
    if select(rows, suite="rnn") and not asked.no_picture:
        drawn = folder / "layers.png"
        picture.draw(rows, compared, PEERS, drawn)
    inject(markdown(rows, files, drawn), record.ROOT / "README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
