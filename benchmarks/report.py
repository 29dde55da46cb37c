"""README's measured tables and picture from the newest results: `python benchmarks/report.py`.

For each suite the newest complete file of results/MACHINE is read, or the newest run's parts. A CPU's text
goes between the markers bench:start and bench:end of README.md, its picture to results/MACHINE/layers.png;
the GPUs' goes between gpu-bench:start and gpu-bench:end.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import geometric_mean

import picture
import record
from bars import ratios, select
from picture import MODES
from record import Row
from suites.rnn import CELLS, GPU_CELLS, GPU_DTYPES
from sweep import FAILED, TIME_IS_UP, WRONG

START, END = "<!-- bench:start -->", "<!-- bench:end -->"
GPU_START, GPU_END = "<!-- gpu-bench:start -->", "<!-- gpu-bench:end -->"
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

GPU_NAMES = {"bfloat16": "bf16", "float16": "fp16", "tf32": "TF32", "float32": "fp32"}
GPU_LEGEND = """\
Time of torch.nn (cuDNN) over fusegen's, whole module call, T=512, input size H: geometric mean over the
shapes measured (smallest–largest); above 1 fusegen is faster."""
GPU_PROVENANCE = """\
{links}: {machine}, driver {driver}, CUDA {cuda}, cuDNN {cudnn}, torch {torch}, commit {commit}."""

PART = re.compile(r"-(\d+)of(\d+)(-\d+)?$")


def newest(folder: Path) -> dict[str, Path]:
    """Suite -> the newest complete file that has it."""
    files = [path for path in folder.glob("*.csv") if "-partial" not in path.name]
    found = {}
    for path in sorted(files, key=lambda path: (record.shared(path)["date"], len(path.name), path.name)):
        found |= {entry.suite: path for entry in record.read(path)}
    return found


def newest_parts(folder: Path) -> dict[str, dict[str, Path]]:
    """Suite -> the newest run's files that have it: part -> the newest file of that part, of one commit and
    one number of parts. A run in one piece is part "1/1"."""
    files = [path for path in folder.glob("*.csv") if "-partial" not in path.name]
    runs: dict[str, dict[tuple, dict[str, Path]]] = {}
    for path in sorted(files, key=lambda path: (record.shared(path)["date"], len(path.name), path.name)):
        found = PART.search(path.stem)
        k, n = (found[1], found[2]) if found else ("1", "1")
        for suite in {entry.suite for entry in record.read(path)}:
            by_run = runs.setdefault(suite, {})
            run = (record.shared(path)["commit"], n)
            by_run[run] = by_run.pop(run, {}) | {f"{k}/{n}": path}  # last: the newest
    return {suite: list(by_run.values())[-1] for suite, by_run in runs.items()}


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


def gpu_table(rows: list[Row]) -> list[str]:
    """torch.nn's time over ours by precision, plain, and both against torch.nn under a CUDA graph."""
    lines = []
    for cell in GPU_CELLS:
        for mode in MODES:
            part = select(rows, suite="rnn", cell=cell, mode=mode)
            plain = [spread(ratios(select(part, peer="torch", dtype=dtype))) for dtype in GPU_DTYPES]
            graph = spread(ratios(select(part, peer="torch graph"), "graph"))
            lines.append([f"{cell.upper()} {mode}", *plain, graph])
    for suite, label in (("cells", "a single step (cells)"), ("ragged", "a ragged batch, packed")):
        for mode in MODES:
            part = select(rows, suite=suite, mode=mode)
            plain = [spread(ratios(select(part, peer="torch", dtype=dtype))) for dtype in GPU_DTYPES]
            if any(value != "–" for value in plain):
                lines.append(
                    [f"{label}, {mode}", *plain, spread(ratios(select(part, peer="torch graph"), "graph"))]
                )
    for form, label in (("none", "a dense discriminator's step, eager"), ("r1", "the same with R1")):
        part = select(rows, suite="gan", form=form, cell=lambda name: name.startswith("mlp"))
        plain = [spread(ratios(select(part, peer="eager", dtype=dtype))) for dtype in GPU_DTYPES]
        if any(value != "–" for value in plain):
            graph = spread(ratios(select(part, peer="eager graph"), "graph"))
            lines.append([label, *plain, graph])
    return table(["", *(GPU_NAMES[dtype] for dtype in GPU_DTYPES), "both under a CUDA graph"], lines)


def gpu_losses(rows: list[Row]) -> str:
    """Every layer case in which cuDNN was faster, the worst first."""
    torch = [entry for entry in select(rows, suite="rnn", peer="torch") if entry.ratio_fused != ""]
    lost = sorted((e for e in torch if e.ratio_fused < 1), key=lambda e: e.ratio_fused)
    if not lost:
        return f"In none of {len(torch)} layer cases was torch.nn faster."
    items = (
        f"{e.cell.upper()} {e.mode} {GPU_NAMES[e.dtype]} H{e.H} B{e.B} {e.ratio_fused:.2f}×" for e in lost
    )
    return f"torch.nn was faster in {len(lost)} of {len(torch)} layer cases: {'; '.join(items)}."


def gpu_markdown(folder: Path) -> str:
    """Everything measured on one GPU; "" if nothing complete was."""
    parts = newest_parts(folder)
    found = [
        (path, entry)
        for suite, files in parts.items()
        for path in files.values()
        for entry in select(record.read(path), suite=suite)
    ]
    rows = [entry for _, entry in found if entry.unit not in (WRONG, FAILED)]
    if not rows:
        return ""
    missing = [
        f"{suite}: {len(files)} of {n} parts"
        for suite, files in parts.items()
        if suite != "ceilings" and len(files) < (n := int(next(iter(files)).split("/")[1]))
    ]
    missing += [
        f"{entry.suite}: {entry.value:.0f} cases were not begun in time ({path.name})"
        for path, entry in found
        if entry.unit == FAILED and entry.note == TIME_IS_UP
    ]
    files = sorted({path for by_part in parts.values() for path in by_part.values()})
    links = ", ".join(f"[{path.name}]({path.relative_to(record.ROOT)})" for path in files)
    text = [[GPU_LEGEND], gpu_table(rows), [gpu_losses(rows)]]
    if missing:
        text.append([f"Not whole yet: {'; '.join(missing)}."])
    text.append([GPU_PROVENANCE.format(links=links, **record.shared(files[-1]))])
    return "\n\n".join("\n".join(lines) for lines in text)


def gpu_folders(results: Path) -> list[Path]:
    """Of machines that are GPUs."""
    return [
        folder
        for folder in sorted(results.iterdir())
        if any("capability" in record.shared(path) for path in folder.glob("*.csv"))
    ]


def inject(text: str, readme: Path, start: str = START, end: str = END) -> None:
    """Replace what stands between the markers. Raises ValueError unless both are there, once, in order."""
    whole = readme.read_text()
    if whole.count(start) != 1 or whole.count(end) != 1 or whole.index(start) > whole.index(end):
        raise ValueError(f"{readme.name}: expected {start} and then {end}, once each")
    before, rest = whole.split(start)
    readme.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machine", default=record.slug(record.processor()), help="a folder of results/")
    parser.add_argument("--no-picture", action="store_true", help="for want of matplotlib")
    parser.add_argument("--show", action="store_true", help="print the GPUs' tables and write nothing")
    asked = parser.parse_args(argv)
    readme = record.ROOT / "README.md"
    gpus = [text for text in map(gpu_markdown, gpu_folders(record.RESULTS)) if text]
    if asked.show:
        print("\n\n".join(gpus) or "nothing complete was measured on a GPU")
        return 0 if gpus else 2
    if gpus:
        inject("\n\n".join(gpus), readme, GPU_START, GPU_END)
    folder = record.RESULTS / asked.machine
    files = newest(folder)
    if not files and gpus:
        return 0
    if not files:
        print(f"no complete results in {folder.relative_to(record.ROOT)}: run.py makes them", file=sys.stderr)
        return 2
    rows = [entry for suite, path in files.items() for entry in select(record.read(path), suite=suite)]
    drawn = None
    if select(rows, suite="rnn") and not asked.no_picture:
        drawn = folder / "layers.png"
        picture.draw(rows, compared, PEERS, drawn)
    inject(markdown(rows, files, drawn), readme)
    return 0


if __name__ == "__main__":
    sys.exit(main())
