"""Single steps: LSTMCell, GRUCell, RNNCell, inference and training."""

from __future__ import annotations

from harness.bars import AUTO_WORST, FUSED_WORST, Bar, mean_and_worst, ratios, select
from harness.options import Options
from harness.problem import CELLS, Case
from harness.record import Row
from harness.sweep import sweep
from peers.ours import Ours
from peers.torch_compile import TorchCompile
from peers.torch_eager import TorchEager


def sizes(quick: bool) -> list[tuple[int, int]]:
    """(H, B)."""
    grid = [(H, B) for H in (128, 512, 1024) for B in (1, 32, 256)]
    return grid[:5:2] if quick else grid


def cases(quick: bool) -> list[Case]:
    return [
        Case(cell, H, B, 1, train, form="cell")
        for cell in CELLS
        for H, B in sizes(quick)
        for train in (False, True)
    ]


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick))
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
