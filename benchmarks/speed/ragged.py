"""Lengths uniform in 1..T, against torch.nn on the packed input and against our own padded run."""

from __future__ import annotations

from harness.bars import AUTO_WORST, Bar, mean_and_worst, ratios, select
from harness.options import Options
from harness.problem import CELLS, Case
from harness.record import Row
from harness.sweep import sweep
from peers.ours import Ours, OursPacked, OursPadded
from peers.torch_eager import TorchEager

LIMITS = {
    ("inference", "lstm"): 2.1, ("inference", "gru"): 2.0, ("inference", "rnn"): 2.3,
    ("training", "lstm"): 12.0, ("training", "gru"): 9.0, ("training", "rnn"): 4.5,
}  # fmt: skip
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


def per_token(padded: Row) -> float:
    """Time a token of the ragged run over the padded one's, which computes T*B tokens; ratio_fused is its
    time over the ragged one's."""
    return padded.T * padded.B / padded.tokens / padded.ratio_fused


def bars(rows: list[Row]) -> list[Bar]:
    made = []
    for (mode, cell), limit in LIMITS.items():
        for entry in select(rows, peer="torch", mode=mode, cell=cell):
            made += [Bar(f"ragged {cell} {mode}, torch.nn packed / fused", r, limit) for r in ratios([entry])]
    under_auto = ratios(select(rows, peer="torch"), "auto")
    made += mean_and_worst("ragged, torch.nn packed / auto", under_auto, None, AUTO_WORST)
    for entry in select(rows, peer="fused padded"):
        what = f"ragged {entry.cell} {entry.mode}, time per token / padded"
        made.append(Bar(what, per_token(entry), PER_TOKEN_LIMIT, at_most=True))
    for entry in select(rows, peer="fused packed"):
        made.append(Bar(f"  {entry.cell} {entry.mode}, PackedSequence / lengths=", entry.ratio_fused))
    return made
