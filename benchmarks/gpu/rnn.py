"""Layers on a GPU against torch.nn (cuDNN), plain and under a CUDA graph, and torch.compile; beside them the
recurrence alone, against what was planned.
"""

from __future__ import annotations

from dataclasses import replace

from gpu import notes, planned
from gpu.ceilings import peak
from harness.bars import Bar, mean_and_worst, ratios, select
from harness.options import Options
from harness.problem import Case
from harness.record import Row
from harness.sweep import sweep
from peers.graph import InGraph
from peers.ours import Ours, OursWhereMeasured
from peers.recurrence import Recurrence
from peers.torch_compile import TorchCompile
from peers.torch_eager import TorchEager

# T = 512, TF32 off ("float32") and on.
CELLS, STEPS = ("lstm", "gru"), 512
DTYPES = ("bfloat16", "float16", "tf32", "float32")
HIDDEN, BATCH = (128, 256, 512, 1024, 2048), (1, 16, 64, 256)
QUICK = [
    (128, 16, "bfloat16"), (512, 16, "bfloat16"), (1024, 64, "bfloat16"), (512, 64, "float16"),
    (512, 16, "tf32"), (512, 16, "float32"),
]  # fmt: skip


def cases(quick: bool) -> list[Case]:
    """Every shape of the bars, or 24 cases of them."""
    shapes = QUICK if quick else [(H, B, dtype) for dtype in DTYPES for H in HIDDEN for B in BATCH]
    return [
        Case(cell, H, B, STEPS, train, dtype, device="cuda")
        for H, B, dtype in shapes
        for cell in CELLS
        for train in (False, True)
    ]


def peers() -> list:
    return [
        Ours("fused"),
        InGraph("graph", Ours("fused graph")),
        OursWhereMeasured("auto", backend="auto"),
        TorchEager(),
        InGraph("torch graph", TorchEager()),
        TorchCompile(),
        Recurrence(),
    ]


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick))
    budget = options.budget(len(chosen), 7, 5)
    rows = sweep("rnn", chosen, options.contestants(peers()), budget, note=notes.remark)
    return [per_step(entry) if entry.peer == "recurrence" and entry.unit == "ms" else entry for entry in rows]


def per_step(entry: Row) -> Row:
    """The recurrence's row in microseconds a step, its plan beside it."""
    value, p20, p80 = (ms * 1e3 / entry.T for ms in (entry.value, entry.p20, entry.p80))
    figures = {"value": value, "p20": p20, "p80": p80, "unit": "us/step", "gflops": "", "gbs": ""}
    if plan := planned.step(entry.H, entry.B):
        figures["note"] = f"planned {plan:.3g} us/step (bfloat16, forward); {entry.note}"
    return replace(entry, **figures)


# Geometric means of torch.nn / fused: at H <= 1024 and B <= 64, and over the whole grid.
LIMITS = {"bfloat16": (3, 1.8), "float16": (2, 1.5), "tf32": (2, 1.4), "float32": (1.5, 1.1)}


def persistent(entry: Row) -> bool:
    """Whether cuDNN has its persistent kernel for this LSTM: torch's rule in aten/native/cudnn/RNN.cpp."""
    return (
        entry.cell == "lstm" and entry.dtype == "float16" and entry.H <= 1024 and entry.H % 128 == 0
        and entry.B % 8 == 0 and entry.B <= 128
    )  # fmt: skip


def bars(rows: list[Row]) -> list[Bar]:
    layers = select(rows, suite="rnn")
    torch = select(layers, peer="torch")
    made = []
    for dtype, (small, whole) in LIMITS.items():
        part = select(torch, dtype=dtype)
        inner = select(part, H=lambda H: H <= 1024, B=lambda B: B <= 64)
        made += mean_and_worst(f"{dtype}, torch.nn / fused, H <= 1024 and B <= 64", ratios(inner), small)
        made += mean_and_worst("  all shapes", ratios(part), whole)
        for cell in CELLS:
            for mode in ("inference", "training"):
                those = ratios(select(part, cell=cell, mode=mode))
                made += mean_and_worst(f"  {cell.upper()} {mode}", those, None)
    made += mean_and_worst(
        "fp16 LSTM at cuDNN's persistent shapes", ratios([e for e in torch if persistent(e)]), 1.1
    )
    graph = select(layers, peer="torch graph")
    made += mean_and_worst("torch.nn under a CUDA graph / fused", ratios(graph), 1.5)
    made += mean_and_worst("  fused under a graph too", ratios(graph, "graph"), None)
    made += mean_and_worst("torch.nn / auto", ratios(torch, "auto"), None, 0.98)
    made += mean_and_worst("torch.compile / fused", ratios(select(layers, peer="compile")), None)
    return made + beside_the_plan(layers) + beside_the_ceilings(rows)


def beside_the_plan(rows: list[Row]) -> list[Bar]:
    """The LSTM's forward recurrence in bfloat16 against the plan, H <= 1024."""
    alone = select(
        rows, peer="recurrence", cell="lstm", mode="inference", dtype="bfloat16", H=lambda H: H <= 1024
    )
    over = [e.value / plan for e in alone if (plan := planned.step(e.H, e.B))]
    if not over:
        return []
    within = sum(r <= 1.4 for r in over) / len(over)
    return [
        Bar(f"LSTM recurrence, us a step / planned, worst of {len(over)}", max(over), 2, at_most=True),
        Bar("  share of them within 1.4 of the plan", within, 0.5),
    ]


def beside_the_ceilings(rows: list[Row]) -> list[Bar]:
    """Shares of the product's and the copy's rates that whole calls reach: the best case of each."""
    made = []
    for dtype in DTYPES:
        part = select(rows, suite="rnn", peer="fused", dtype=dtype)
        for figure, unit, ceiling, name in (
            ("gflops", 1e3, peak(rows, f"product {dtype}"), "tensor-core peak"),
            ("gbs", 1, peak(rows, "copy"), "bandwidth"),
        ):
            if part and ceiling:
                best = max(part, key=lambda entry, figure=figure: getattr(entry, figure))
                share = getattr(best, figure) / unit / ceiling
                made.append(
                    Bar(
                        f"{dtype}: share of {name}, best case ({best.cell} {best.mode} H{best.H} B{best.B})",
                        share,
                    )
                )
    return made
