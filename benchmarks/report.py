"""The measured tables and pictures from the newest results: `python benchmarks/report.py`.

Each kind of machine that was measured (results/MACHINE/ISA, and the number of threads) is shown, the one on
which fusegen does worst beside torch.nn first; for each suite its newest complete file is read. README.md has
a line for each kind, and the worst one's picture and table of the GAN step (between the markers bench:start
and bench:end, gan-bench:start and gan-bench:end); docs/benchmarks.md has all of each. Pictures go to
results/MACHINE/ISA/layers.png. GPUs' tables, from the newest run or its parts, go between gpu-bench:start and
gpu-bench:end.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

import picture
import record
from bars import ratios, select
from picture import MODES
from record import Row
from suites.gan import PENALTIES, best_of_all
from suites.rnn import CELLS, GPU_CELLS, GPU_DTYPES
from sweep import FAILED, TIME_IS_UP, WRONG

START, END = "<!-- bench:start -->", "<!-- bench:end -->"
GAN_START, GAN_END = "<!-- gan-bench:start -->", "<!-- gan-bench:end -->"
GPU_START, GPU_END = "<!-- gpu-bench:start -->", "<!-- gpu-bench:end -->"
PEERS = {
    "torch": "torch.nn",
    "compile": "torch.compile",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "onednn": "oneDNN from C++",
}
OTHERS = {
    "cells": "a single step (cells)",
    "ragged": "a ragged batch, packed",
    "text": "a text model's whole step",
}
FROZEN = ("onnxruntime", "openvino", "onednn")  # these pack weights before inference
LEGEND = """\
Time of each peer over fusegen's: geometric mean over the grid (smallest–largest); above 1 fusegen is faster.
Beside ONNX Runtime, OpenVINO and oneDNN, which pack weights before inference, fusegen does so too
(`fusegen.frozen`)."""
SUMMARY_LEGEND = """\
A line a machine and instruction set, the worst first. Time of torch.nn, or of the peer named, over fusegen's,
fp32: geometric mean (smallest); above 1 fusegen is faster. GAN step: a dense discriminator's, beside the best
of all ways to write it in torch. Every table and every lost case, versions and commits:
[docs/benchmarks.md](docs/benchmarks.md)."""
GAN_LEGEND = """\
Time of plain torch over fusegen's, one discriminator step: geometric mean over dense networks and batches
(smallest–largest)"""
GAN_FORMS = {"none": "no penalty", "r1": "R1", "gp": "WGAN-GP"}
VERSIONS = {"torch": "torch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "onednn": "oneDNN wheel"}

GPU_NAMES = {"bfloat16": "bf16", "float16": "fp16", "tf32": "TF32", "float32": "fp32"}
GPU_LEGEND = """\
Time of torch.nn (cuDNN) over fusegen's, whole module call, T=512, input size H: geometric mean over the
shapes measured (smallest–largest); above 1 fusegen is faster."""
GPU_PROVENANCE = """\
{links}: {machine}, driver {driver}, CUDA {cuda}, cuDNN {cudnn}, torch {torch}, commit {commit}."""

PART = re.compile(r"-(\d+)of(\d+)(-\d+)?$")


@dataclass
class Kind:
    """A machine at one instruction set and number of threads: its newest complete file of each suite, and the
    rows of those."""

    machine: str
    isa: str
    threads: str
    files: dict[str, Path]
    rows: list[Row]

    @property
    def name(self) -> str:
        return f"{self.machine}, {self.isa}" + ("" if self.threads != "1" else ", 1 thread")

    @property
    def folder(self) -> Path:
        return next(iter(self.files.values())).parent

    @property
    def standing(self) -> float:
        """Geometric mean of fp32 torch.nn / fused over the layers; without any, behind all others."""
        found = ratios(select(self.rows, suite="rnn", dtype="float32", peer="torch"))
        return geometric_mean(found) if found else float("inf")


def kinds(results: Path) -> list[Kind]:
    """Of the CPUs that were measured, the worst first."""
    found: dict[tuple[Path, str], dict[str, Path]] = {}
    files = [path for path in results.glob("*/*/*.csv") if path.parent.name != "learning"]
    for path in in_order(files):
        key = path.parent, record.shared(path)["threads"]
        found.setdefault(key, {}).update({entry.suite: path for entry in record.read(path)})
    made = []
    for (_, threads), by_suite in found.items():
        shared = record.shared(next(iter(by_suite.values())))
        rows = [
            entry
            for suite, path in by_suite.items()
            for entry in select(record.read(path), suite=suite, unit=lambda unit: unit not in (WRONG, FAILED))
        ]
        made.append(Kind(shared["machine"], shared["isa"], threads, by_suite, rows))
    return sorted(made, key=lambda kind: (kind.standing, kind.name))


def in_order(files: Iterable[Path]) -> list[Path]:
    """Complete files, the newest last."""
    whole = [path for path in files if "-partial" not in path.name]
    return sorted(whole, key=lambda path: (record.shared(path)["date"], len(path.name), path.name))


def newest_parts(folder: Path) -> dict[str, dict[str, Path]]:
    """Suite -> the newest run's files that have it: part -> the newest file of that part, of one commit and
    one number of parts. A run in one piece is part "1/1"."""
    runs: dict[str, dict[tuple, dict[str, Path]]] = {}
    for path in in_order(folder.glob("*.csv")):
        found = PART.search(path.stem)
        k, n = (found[1], found[2]) if found else ("1", "1")
        for suite in {entry.suite for entry in record.read(path)}:
            by_run = runs.setdefault(suite, {})
            run = (record.shared(path)["commit"], n)
            by_run[run] = by_run.pop(run, {}) | {f"{k}/{n}": path}  # last: the newest
    return {suite: list(by_run.values())[-1] for suite, by_run in runs.items()}


def compared(entry: Row) -> float:
    """A peer's time over fusegen's, over the frozen one's where the peer's weights are packed beforehand."""
    frozen = entry.mode == "inference" and entry.peer in FROZEN
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


def link(path: Path, page: Path) -> str:
    """From a page of this repository to a file of it."""
    return Path(os.path.relpath(path, page.parent)).as_posix()


def provenance(kind: Kind, page: Path) -> list[str]:
    """For each file: what was measured, where and with what."""
    lines = []
    for path in dict.fromkeys(kind.files.values()):
        shared = record.shared(path)
        suites = ", ".join(suite for suite, of in kind.files.items() if of == path)
        versions = [
            f"{name} {shared[column]}"
            for column, name in VERSIONS.items()
            if shared.get(column, "absent") != "absent"
        ]
        capped = f", both sides held to {shared['capped']}" if shared.get("capped") else ""
        plural = "" if shared["threads"] == "1" else "s"
        lines.append(
            f"- {suites}: [{path.name}]({link(path, page)}): {shared['threads']} thread{plural}{capped}, "
            f"{', '.join(versions)}, commit {shared['commit']}."
        )
    return lines


def gan_table(rows: list[Row]) -> list[str]:
    """The discriminator step beside each way to write it in torch; nothing if it was not measured."""
    steps = select(rows, suite="gan")
    dense = select(steps, cell=lambda name: name.startswith("mlp"))
    lines = []
    for form in PENALTIES:
        part = select(dense, form=form)
        compiled = select(part, peer=("compile", "func"))
        values = (ratios(select(part, peer="eager")), best_of_all(part), ratios(compiled))
        lines.append([GAN_FORMS[form], *map(spread, values), spread(best_of_all(part, "auto"))])
    for cell in ("dcgan", "lstm"):
        part = select(steps, cell=cell)
        values = (ratios(select(part, peer="eager")), best_of_all(part), [])
        lines.append([cell.upper(), *map(spread, values), spread(best_of_all(part, "auto"))])
    head = ["", "two calls of D", "the best of all ways", "torch.compile", "the best / `auto`"]
    return table(head, lines) if steps else []


def short(values: Iterable[float]) -> str:
    """Geometric mean and the smallest, in bold where it is a loss."""
    values = list(values)
    if not values:
        return "–"
    low = f"{min(values):.2f}"
    return f"{geometric_mean(values):.2f} ({low if min(values) >= 1 else f'**{low}**'})"


def columns() -> dict[str, Callable[[list[Row]], list[float]]]:
    """Of the summary: head -> the figures of a kind."""

    def layers(peer="torch", **wanted):
        return lambda rows: [
            compared(e) for e in select(rows, suite="rnn", dtype="float32", peer=peer, **wanted)
        ]

    def suite(name, **wanted):
        return lambda rows: ratios(select(rows, suite=name, peer="torch", **wanted))

    def step(rows):
        plain = select(rows, suite="gan", form="none", cell=lambda name: name.startswith("mlp"))
        return best_of_all(plain)

    return {
        "LSTM inference": layers(cell="lstm", mode="inference"),
        "LSTM training": layers(cell="lstm", mode="training"),
        "GRU": layers(cell="gru"),
        "RNN": layers(cell="rnn"),
        "cells": suite("cells"),
        "ragged": suite("ragged"),
        "text model's step": suite("text"),
        "people's models": suite("models"),
        "GAN step": step,
        "ONNX Runtime": layers("onnxruntime"),
        "OpenVINO": layers("openvino"),
        "oneDNN": layers("onednn"),
    }


def summary(found: list[Kind]) -> list[str]:
    """A line for each kind of machine."""
    of = columns()
    lines = [[kind.name, *(short(figures(kind.rows)) for figures in of.values())] for kind in found]
    return table(["machine", *of], lines)


def joined(parts: Iterable[list[str]]) -> str:
    """Blocks of lines with an empty line between; an empty block is left out."""
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def picture_line(drawn: Path | None, page: Path) -> list[str]:
    return [f"![Time of each peer over fusegen's]({link(drawn, page)})"] if drawn else []


def front(found: list[Kind], drawn: Path | None, page: Path) -> str:
    """For the README: a line for each kind, and the worst one's picture."""
    layers = select(found[0].rows, suite="rnn", peer=tuple(PEERS))
    lost = [entry for entry in layers if compared(entry) < 1]
    worst = f"The first of them in detail: a peer was faster in {len(lost)} readings of {len(layers)}."
    return joined([[SUMMARY_LEGEND], summary(found), [worst], picture_line(drawn, page)])


def gan_front(kind: Kind) -> str:
    """For the README: the step on one kind of machine."""
    made = gan_table(kind.rows)
    return joined([[f"{GAN_LEGEND}, {kind.name}:"], made] if made else [["Not measured."]])


def details(kind: Kind, drawn: Path | None, page: Path) -> str:
    """Everything measured on a kind of machine, losses included."""
    layers = select(kind.rows, suite="rnn", peer=tuple(PEERS))
    steps = gan_table(kind.rows)
    return joined(
        [
            [f"## {kind.name}"],
            picture_line(drawn, page),
            *([layer_table(layers), [losses(layers)]] if layers else []),
            other_table(kind.rows) if select(kind.rows, suite=tuple(OTHERS)) else [],
            *([[f"{GAN_LEGEND}:"], steps] if steps else []),
            provenance(kind, page),
        ]
    )


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


def drawn_of(kind: Kind, wanted: bool) -> Path | None:
    """The picture of a kind's layers: drawn now, or the one that is there; None without either."""
    path = kind.folder / ("layers.png" if kind.threads != "1" else "layers-1-thread.png")
    if wanted and select(kind.rows, suite="rnn"):
        picture.draw(kind.rows, compared, PEERS, path)
    return path if path.exists() else None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-picture", action="store_true", help="for want of matplotlib: draw none anew")
    parser.add_argument("--show", action="store_true", help="print the GPUs' tables and write nothing")
    asked = parser.parse_args(argv)
    readme, page = record.ROOT / "README.md", record.ROOT / "docs/benchmarks.md"
    gpus = [text for text in map(gpu_markdown, gpu_folders(record.RESULTS)) if text]
    if asked.show:
        print("\n\n".join(gpus) or "nothing complete was measured on a GPU")
        return 0 if gpus else 2
    if gpus:
        inject("\n\n".join(gpus), readme, GPU_START, GPU_END)
    found = kinds(record.RESULTS)
    if not found and gpus:
        return 0
    if not found:
        folder = record.RESULTS.relative_to(record.ROOT)
        print(f"no complete results of a CPU in {folder}: run.py makes them", file=sys.stderr)
        return 2
    drawn = [drawn_of(kind, not asked.no_picture) for kind in found]
    inject(front(found, drawn[0], readme), readme)
    inject(gan_front(found[0]), readme, GAN_START, GAN_END)
    all_of_them = [details(kind, path, page) for kind, path in zip(found, drawn, strict=True)]
    inject(joined([[LEGEND], *([text] for text in all_of_them)]), page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
