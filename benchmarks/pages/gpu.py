"""What docs/benchmarks.md says of a GPU: the newest run or its parts, beside cuDNN."""

from __future__ import annotations

from pathlib import Path

from gpu.rnn import CELLS, DTYPES
from harness import record
from harness.bars import ratios, select
from harness.record import Row
from harness.sweep import FAILED, TIME_IS_UP, WRONG
from pages.markdown import link, spread, table
from pages.measured import newest_parts
from pages.picture import MODES
from speed.gan import is_dense

NAMES = {"bfloat16": "bf16", "float16": "fp16", "tf32": "TF32", "float32": "fp32"}
LEGEND = """\
The time of torch.nn (cuDNN) divided by fusegen's, for a whole call of the module with T = 512 steps and
input size H: geometric mean over the shapes measured (smallest–largest); above 1 fusegen is faster."""
PROVENANCE = """\
{links}: {machine}, driver {driver}, CUDA {cuda}, cuDNN {cudnn}, torch {torch}, commit {commit}."""


def layer_table(rows: list[Row]) -> list[str]:
    """torch.nn's time over ours by precision, plain, and both against torch.nn under a CUDA graph."""
    lines = []
    for cell in CELLS:
        for mode in MODES:
            part = select(rows, suite="rnn", cell=cell, mode=mode)
            plain = [spread(ratios(select(part, peer="torch", dtype=dtype))) for dtype in DTYPES]
            graph = spread(ratios(select(part, peer="torch graph"), "graph"))
            lines.append([f"{cell.upper()} {mode}", *plain, graph])
    for suite, label in (("cells", "a single step (cells)"), ("ragged", "a ragged batch, packed")):
        for mode in MODES:
            part = select(rows, suite=suite, mode=mode)
            plain = [spread(ratios(select(part, peer="torch", dtype=dtype))) for dtype in DTYPES]
            if any(value != "–" for value in plain):
                lines.append(
                    [f"{label}, {mode}", *plain, spread(ratios(select(part, peer="torch graph"), "graph"))]
                )
    for form, label in (("none", "a dense discriminator's step, eager"), ("r1", "the same with R1")):
        part = select(rows, suite="gan", form=form, cell=is_dense)
        plain = [spread(ratios(select(part, peer="eager", dtype=dtype))) for dtype in DTYPES]
        if any(value != "–" for value in plain):
            graph = spread(ratios(select(part, peer="eager graph"), "graph"))
            lines.append([label, *plain, graph])
    return table(["", *(NAMES[dtype] for dtype in DTYPES), "both under a CUDA graph"], lines)


def losses(rows: list[Row]) -> str:
    """Every layer case in which cuDNN was faster, the worst first."""
    torch = [entry for entry in select(rows, suite="rnn", peer="torch") if entry.ratio_fused != ""]
    lost = sorted((e for e in torch if e.ratio_fused < 1), key=lambda e: e.ratio_fused)
    if not lost:
        return f"In none of {len(torch)} layer cases was torch.nn faster."
    items = (f"{e.cell.upper()} {e.mode} {NAMES[e.dtype]} H{e.H} B{e.B} {e.ratio_fused:.2f}×" for e in lost)
    return f"torch.nn was faster in {len(lost)} of {len(torch)} layer cases: {'; '.join(items)}."


def markdown(folder: Path, page: Path) -> str:
    """Everything measured on one GPU, for `page`; "" if nothing complete was."""
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
    links = ", ".join(f"[{path.name}]({link(path, page)})" for path in files)
    text = [[LEGEND], layer_table(rows), [losses(rows)]]
    if missing:
        text.append([f"Not whole yet: {'; '.join(missing)}."])
    text.append([PROVENANCE.format(links=links, **record.shared(files[-1]))])
    return "\n\n".join("\n".join(lines) for lines in text)
