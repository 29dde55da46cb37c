"""Lengths uniform in 1..T, against torch.nn on the packed input and against our own padded run."""

from __future__ import annotations

from bars import Bar, ratios, select
from options import Options
from peers.ours import Ours, OursPacked, OursPadded
from peers.torch_eager import TorchEager
from problem import Case
from record import Row
from suites.rnn import CELLS
from sweep import sweep

LIMITS = {("inference", cell): 2.7 for cell in CELLS} | {
    ("training", "lstm"): 9.0,
    ("training", "gru"): 8.0,
    ("training", "rnn"): 4.0,
}
PER_TOKEN_LIMIT = 1.25


def run(options: Options) -> list[Row]:
    T = 100 if options.quick else 400
    chosen = options.cases(
        [Case(cell, 256, 32, T, train, form="ragged") for cell in CELLS for train in (False, True)]
    )
    peers = [
        Ours("fused"),
        Ours("auto", backend="auto"),
        OursPacked("fused packed"),
        OursPadded("fused padded"),
        TorchEager(),
    ]
    return sweep("ragged", chosen, options.contestants(peers), options.budget(len(chosen), 2.5, 0.5))


def bars(rows: list[Row]) -> list[Bar]:
    made = []
    for (mode, cell), limit in LIMITS.items():
        for entry in select(rows, peer="torch", mode=mode, cell=cell):
            made += [Bar(f"ragged {cell} {mode}, torch.nn packed / fused", r, limit) for r in ratios([entry])]
    for entry in select(rows, peer="fused padded"):
        # The padded run computes T*B tokens; ratio_fused is its time over the ragged one's.
        per_token = entry.T * entry.B / entry.tokens / entry.ratio_fused
        what = f"ragged {entry.cell} {entry.mode}, time per token / padded"
        made.append(Bar(what, per_token, PER_TOKEN_LIMIT, at_most=True))
    for entry in select(rows, peer="fused packed"):
        made.append(Bar(f"  {entry.cell} {entry.mode}, PackedSequence / lengths=", entry.ratio_fused))
    return made
