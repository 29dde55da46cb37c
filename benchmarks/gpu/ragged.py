"""Ragged batches on a GPU, lengths on it too: uniform in 1..T, against torch.nn on the packed input and
against our own padded run.
"""

from __future__ import annotations

from gpu import notes
from gpu.rnn import CELLS, STEPS
from harness.bars import Bar, mean_and_worst, ratios, select
from harness.options import Options
from harness.problem import Case
from harness.record import Row
from harness.sweep import sweep
from peers.ours import Ours, OursPacked, OursPadded
from peers.torch_eager import TorchEager
from speed.ragged import PER_TOKEN_LIMIT, per_token

LIMIT = 20
SHAPES = [(256, 32), (512, 64), (1024, 64)]


def run(options: Options) -> list[Row]:
    chosen = options.cases(
        [
            Case(cell, H, B, STEPS, train, dtype, form="ragged", device="cuda")
            for dtype in ("bfloat16", "float32")
            for H, B in (SHAPES[:1] if options.quick else SHAPES)
            for cell in CELLS
            for train in (False, True)
        ]
    )
    peers = [Ours("fused"), OursPacked("fused packed"), OursPadded("fused padded"), TorchEager()]
    budget = options.budget(len(chosen), 5, 2)
    return sweep("ragged", chosen, options.contestants(peers), budget, note=notes.remark)


def bars(rows: list[Row]) -> list[Bar]:
    ragged = select(rows, suite="ragged")
    made = mean_and_worst(
        "ragged, torch.nn packed / fused", ratios(select(ragged, peer="torch")), None, LIMIT
    )
    over = [per_token(entry) for entry in select(ragged, peer="fused padded") if entry.ratio_fused != ""]
    if over:
        made.append(Bar("ragged, time per token / padded, largest", max(over), PER_TOKEN_LIMIT, at_most=True))
    return made
