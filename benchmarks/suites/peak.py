"""The part of the layer grid that is held against the machine's practical peak, and nothing else."""

from __future__ import annotations

from bars import Bar
from options import Options
from peers.ours import Ours
from peers.peak import Matmul, Peak
from record import Row
from suites import rnn
from sweep import sweep


def run(options: Options) -> list[Row]:
    cases = [
        c for c in rnn.cases(options.quick) if rnn.large(c.H, c.B) and c.dtype == "float32" and not c.train
    ]
    chosen = options.cases(cases)
    peers = [Ours("fused"), Ours("frozen", frozen=True), Peak(), Matmul()]
    return sweep("peak", chosen, options.contestants(peers), options.budget(len(chosen), 2, 0.5))


def bars(rows: list[Row]) -> list[Bar]:
    return rnn.against_peak(rows)
