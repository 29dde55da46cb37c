"""Single steps on a GPU, plain and under a CUDA graph."""

from __future__ import annotations

from gpu import notes
from harness.bars import Bar, mean_and_worst, ratios, select
from harness.options import Options
from harness.problem import CELLS, Case
from harness.record import Row
from harness.sweep import sweep
from peers.graph import InGraph
from peers.ours import Ours, OursWhereMeasured
from peers.torch_compile import TorchCompile
from peers.torch_eager import TorchEager
from speed.cells import sizes


def cases(quick: bool) -> list[Case]:
    return [
        Case(cell, H, B, 1, train, dtype, form="cell", device="cuda")
        for dtype in ("float32", "bfloat16")
        for cell in CELLS
        for H, B in sizes(quick)
        for train in (False, True)
    ]


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick))
    peers = [
        Ours("fused"),
        InGraph("graph", Ours("fused graph")),
        OursWhereMeasured("auto", backend="auto"),
        TorchEager(),
        InGraph("torch graph", TorchEager()),
        TorchCompile(),
    ]
    budget = options.budget(len(chosen), 5, 2)
    return sweep("cells", chosen, options.contestants(peers), budget, note=notes.remark)


def bars(rows: list[Row]) -> list[Bar]:
    cells = select(rows, suite="cells")
    torch = select(cells, peer="torch")
    made = []
    for dtype in ("float32", "bfloat16"):
        part = select(torch, dtype=dtype)
        made += mean_and_worst(f"cells, {dtype}, torch.nn / fused", ratios(part), 1.2, 1.0)
        for mode in ("inference", "training"):
            made += mean_and_worst(f"  {mode}", ratios(select(part, mode=mode)), None)
    graphs = ratios(select(cells, peer="torch graph"), "graph")
    return [
        *made,
        *mean_and_worst("  both under a CUDA graph", graphs, None),
        *mean_and_worst("  torch.nn / auto", ratios(torch, "auto"), None, 0.98),
    ]
