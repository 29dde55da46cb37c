"""Single steps: LSTMCell, GRUCell, RNNCell, inference and training."""

from __future__ import annotations

from bars import Bar, mean_and_worst, ratios, select
from options import Options
from peers.ours import Ours
from peers.torch_compile import TorchCompile
from peers.torch_eager import TorchEager
from problem import Case
from record import Row
from suites.rnn import CELLS
from sweep import sweep


def cases(quick: bool) -> list[Case]:
    sizes = [(H, B) for H in (128, 512, 1024) for B in (1, 32, 256)]
    return [
        Case(cell, H, B, 1, train, form="cell")
        for cell in CELLS
        for H, B in (sizes[:5:2] if quick else sizes)
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
        *mean_and_worst("cells, torch.nn / fused", ratios(torch), 1.5, 0.97),
        *mean_and_worst("  inference", ratios(select(torch, mode="inference")), None),
        *mean_and_worst("  training", ratios(select(torch, mode="training")), None),
        *mean_and_worst("  torch.nn / auto", ratios(torch, "auto"), None),
        *mean_and_worst("  torch.compile / fused", ratios(select(rows, peer="compile")), None),
    ]
