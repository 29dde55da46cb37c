"""What README.md and docs/benchmarks.md say of CPUs: tables of layers, steps and models, losses included."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

from harness import record
from harness.bars import ratios, select
from harness.problem import CELLS
from harness.record import Row
from networks.gan_problem import PENALTIES
from pages.markdown import joined, link, short, spread, table
from pages.measured import PEERS, Platform, compared
from pages.picture import MODES
from speed.gan import best_of_all

OTHERS = {
    "cells": "a single step (cells)",
    "ragged": "a ragged batch, packed",
    "text": "a text model's whole step",
}
LEGEND = """\
Each figure of the tables below is a ratio, without a unit: the time that another library takes, divided by
fusegen's time for the same case. Above 1, fusegen is faster; – was not read. A cell gives the geometric mean
over all cases, and in brackets the smallest and the largest; a smallest one below 1, a case that fusegen
lost, is bold. H: hidden and input size; B: sequences in a batch; T: steps. Before inference, ONNX Runtime,
OpenVINO and oneDNN pack their weights; beside them fusegen packs its own too (`fusegen.frozen`)."""
SUMMARY = """\
One line for each machine and instruction set, the one on which fusegen does worst first. Each figure is the
time of torch.nn, or of the library that the column names, divided by fusegen's: the geometric mean over all
cases in float32, and in brackets the smallest. Above 1 fusegen is faster. "GAN step" is a dense
discriminator's without a penalty, beside the fastest of all ways to write it in PyTorch."""
FRONT = (
    "The picture compares layers in float32 on the {place} measured: {machine}. Each mark is the time that "
    "another library takes, divided by fusegen's: right of 1 fusegen is faster, in the tinted part the other "
    "library is. That happened in {lost}."
)
STEP = """\
One step of a discriminator: the time of plain PyTorch divided by fusegen's, as the geometric mean over
dense networks and batch sizes (smallest–largest)"""
GAN_FORMS = {"none": "no penalty", "r1": "R1", "gp": "WGAN-GP"}
INT8 = """\
Layers with weights of 8 bits (`fusegen.quantize`), inference: the time of each alternative divided by
theirs, as the geometric mean over sizes and lengths (smallest–largest)"""
INT8_PEERS = {
    "frozen": "fusegen's float32",
    "torch.ao": "torch.ao",
    "onnxruntime": "ONNX Runtime",
    "torch": "torch.nn",
}
VERSIONS = {
    "torch": "torch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "onednn": "oneDNN wheel",
    "tract": "tract",
}


def layer_table(rows: list[Row]) -> list[str]:
    """A line for each cell and mode, a column for each peer and dtype that was read: all that `losses`
    counts."""
    of = {
        name + ending: select(rows, dtype=dtype, peer=peer)
        for dtype, ending in (("float32", ""), ("bfloat16", ", bf16"))
        for peer, name in PEERS.items()
    }
    of = {name: found for name, found in of.items() if found}
    lines = [
        [
            f"{cell.upper()} {mode}",
            *(spread(map(compared, select(e, cell=cell, mode=mode))) for e in of.values()),
        ]
        for cell in CELLS
        for mode in MODES
        if select(rows, cell=cell, mode=mode, peer=tuple(PEERS))
    ]
    return table(["layer, fp32", *of], lines)


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
        return f"In none of {len(rows)} comparisons was another library faster than fusegen."
    items = [f"{place(e)} {PEERS[e.peer]} {compared(e):.2f}×" for e in sorted(lost, key=compared)]
    return (
        f"In {len(lost)} of {len(rows)} comparisons another library was faster than fusegen. With its time "
        f"divided by fusegen's, the worst first: {'; '.join(items)}."
    )


def lost_on(platform: Platform) -> str:
    """In how many comparisons of layers another library was faster."""
    layers = select(platform.rows, suite="rnn", peer=tuple(PEERS))
    lost = sum(compared(entry) < 1 for entry in layers)
    return f"{lost} of {len(layers)} comparisons"


def provenance(platform: Platform, page: Path) -> list[str]:
    """For each file: what was measured, where and with what."""
    lines = []
    for path in dict.fromkeys(platform.files.values()):
        shared = record.shared(path)
        suites = ", ".join(suite for suite, of in platform.files.items() if of == path)
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


def int8_table(rows: list[Row]) -> list[str]:
    """Quantized layers beside each other way, by cell and batch; nothing if they were not measured. ONNX
    Runtime's int8 is of the LSTM alone."""
    part = select(rows, suite="int8")
    lines = [
        [
            f"{cell.upper()}, B {B}",
            *(
                spread(ratios(select(part, cell=cell, B=B, peer=peer)))
                if (peer, cell) not in (("onnxruntime", "gru"), ("onnxruntime", "rnn"))
                else "–"
                for peer in INT8_PEERS
            ),
        ]
        for cell in CELLS
        for B in sorted({entry.B for entry in part})
    ]
    return table(["int8", *INT8_PEERS.values()], lines) if part else []


def columns() -> dict[str, Callable[[list[Row]], list[float]]]:
    """Of the summary: head -> the figures of a platform."""

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


def summary(found: list[Platform]) -> list[str]:
    """A line for each platform."""
    of = columns()
    lines = [
        [platform.name, *(short(figures(platform.rows)) for figures in of.values())] for platform in found
    ]
    return table(["machine", *of], lines)


def picture_line(drawn: Path | None, page: Path) -> list[str]:
    return [f"![Time of each peer over fusegen's]({link(drawn, page)})"] if drawn else []


def front(found: list[Platform], drawn: Path | None, page: Path) -> str:
    """For the README: the worst platform's picture, and how often fusegen lost on each."""
    measured = [platform for platform in found if select(platform.rows, suite="rnn", peer=tuple(PEERS))]
    if not measured:
        return "No layers were measured."
    worst, *others = measured
    lost = [f"{lost_on(worst)} on this machine", *(f"{lost_on(other)} on {other.name}" for other in others)]
    place = "least favourable of the machines" if others else "machine"
    text = FRONT.format(place=place, machine=worst.name, lost=", in ".join(lost))
    return joined([textwrap.wrap(text, 118), picture_line(drawn, page)])


def overview(found: list[Platform]) -> list[list[str]]:
    """For the top of docs/benchmarks.md: a line for each platform, and how the tables below are read."""
    return [["## All machines"], [SUMMARY], summary(found), [LEGEND]]


def details(platform: Platform, drawn: Path | None, page: Path) -> str:
    """Everything measured on a platform, losses included."""
    layers = select(platform.rows, suite="rnn", peer=tuple(PEERS))
    steps, int8 = gan_table(platform.rows), int8_table(platform.rows)
    return joined(
        [
            [f"## {platform.name}"],
            picture_line(drawn, page),
            *([layer_table(layers), [losses(layers)]] if layers else []),
            other_table(platform.rows) if select(platform.rows, suite=tuple(OTHERS)) else [],
            *([[f"{STEP}:"], steps] if steps else []),
            *([[f"{INT8}:"], int8] if int8 else []),
            provenance(platform, page),
        ]
    )
