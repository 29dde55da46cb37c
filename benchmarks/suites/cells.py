"""Single steps: LSTMCell, GRUCell, RNNCell, inference and training; on a GPU plain and under a CUDA graph."""

from __future__ import annotations

from bars import AUTO_WORST, FUSED_WORST, Bar, mean_and_worst, ratios, select
from options import Options
from peers import gpu
from peers.ours import Ours, OursWhereMeasured
from peers.torch_compile import TorchCompile
from peers.torch_eager import TorchEager
from problem import Case
from record import Row
from suites.rnn import CELLS
from sweep import sweep


def cases(quick: bool, device: str = "cpu") -> list[Case]:
    sizes = [(H, B) for H in (128, 512, 1024) for B in (1, 32, 256)]
    return [
        Case(cell, H, B, 1, train, dtype, form="cell", device=device)
        for dtype in (("float32", "bfloat16") if device == "cuda" else ("float32",))
        for cell in CELLS
        for H, B in (sizes[:5:2] if quick else sizes)
        for train in (False, True)
    ]


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick, options.device))
    if options.device == "cuda":
        peers = [
            Ours("fused"), gpu.InGraph("graph", Ours("fused graph")),
            OursWhereMeasured("auto", backend="auto"), TorchEager(),
            gpu.InGraph("torch graph", TorchEager()), TorchCompile(),
        ]  # fmt: skip
        budget = options.budget(len(chosen), 5, 2)
        return sweep("cells", chosen, options.contestants(peers), budget, note=gpu.remark)
    peers = [Ours("fused"), Ours("auto", backend="auto"), TorchEager()]
    if not options.quick:
        peers.append(TorchCompile())
    return sweep("cells", chosen, options.contestants(peers), options.budget(len(chosen), 4, 0.6))


def bars(rows: list[Row]) -> list[Bar]:
    torch = select(rows, peer="torch")
    return [
        *mean_and_worst("cells, torch.nn / fused", ratios(torch), 1.3, FUSED_WORST),
        *mean_and_worst("  inference", ratios(select(torch, mode="inference")), None),
        *mean_and_worst("  training", ratios(select(torch, mode="training")), None),
        *mean_and_worst("  torch.nn / auto", ratios(torch, "auto"), None, AUTO_WORST),
        *mean_and_worst("  torch.compile / fused", ratios(select(rows, peer="compile")), None),
    ]


def bars_cuda(rows: list[Row]) -> list[Bar]:
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
