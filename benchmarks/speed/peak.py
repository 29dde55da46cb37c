"""The part of the layer grid that is held against the machine's practical peak, and nothing else."""

from __future__ import annotations

from harness.bars import Bar
from harness.options import Options
from harness.record import Row
from harness.sweep import sweep
from peers.ours import Ours
from peers.peak import Matmul, Peak
from speed import rnn


def run(options: Options) -> list[Row]:
    cases = [
        c for c in rnn.cases(options.quick) if rnn.large(c.H, c.B) and c.dtype == "float32" and not c.train
    ]
    chosen = options.cases(cases)
    peers = [Ours("fused"), Ours("frozen", frozen=True), Peak(), Matmul()]
    return sweep("peak", chosen, options.contestants(peers), options.budget(len(chosen), 2, 0.5))


def bars(rows: list[Row]) -> list[Bar]:
    return rnn.against_peak(rows)
