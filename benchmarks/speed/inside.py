"""Options inside the recurrence: what resets, recurrent dropout, zoneout and weight drop cost beside the
plain layer, and the loop over steps that resets spare."""

from __future__ import annotations

from fusegen import _C
from harness.bars import Bar, select
from harness.options import Options
from harness.problem import CELLS, Case
from harness.record import Row
from harness.sweep import sweep
from peers.inside import Episodes, Loop, OursInside, Whole

# Of the plain layer's time, at most.
COSTS = {
    "fused resets, none set": 1.03,
    "fused resets, 5 % set": 1.08,
    "fused recurrent dropout": 1.12,
    "fused candidate dropout": 1.12,
    "fused zoneout": 1.12,
    "fused weight drop": None,
}
# Training of an LSTM: a loop of torch.nn's calls over ours with resets, by whether vectors have 512 bits; and
# torch.nn's own whole call without any.
LOOP = {True: 8.0, False: 5.0}
WHOLE = 1.0


def run(options: Options) -> list[Row]:
    modes = (True,) if options.quick else (False, True)
    cells = CELLS[:1] if options.quick else CELLS
    chosen = options.cases([Case(cell, 256, 16, 128, train) for cell in cells for train in modes])
    peers = [
        OursInside("fused"),
        OursInside("fused resets, none set", starts="none"),
        OursInside("fused resets, 5 % set", starts="episodes"),
        OursInside("fused recurrent dropout", recurrent_dropout=0.2),
        OursInside("fused candidate dropout", recurrent_dropout=0.2, recurrent_dropout_on="candidate"),
        OursInside("fused zoneout", zoneout=0.1),
        OursInside("fused weight drop", weight_drop=0.2),
        Loop(),
        Whole(),
    ]
    budget = options.budget(len(chosen), 4, 0.5)
    return sweep("inside", chosen, options.contestants(peers), budget, make=Episodes)


def bars(rows: list[Row]) -> list[Bar]:
    made = []
    for entry in select(rows, peer=tuple(COSTS)):
        what = f"{entry.cell} {entry.mode}, {entry.peer.removeprefix('fused ')} / plain"
        made.append(Bar(what, entry.ratio_fused, COSTS[entry.peer], at_most=True))
    wide = "avx512" in _C.isa()
    for ours in select(rows, peer="fused resets, 5 % set"):
        same = {"cell": ours.cell, "mode": ours.mode}
        judged = ours.cell == "lstm" and ours.mode == "training"
        for name, limit in (("torch loop", LOOP[wide]), ("torch", WHOLE)):
            for entry in select(rows, peer=name, **same):
                what = f"{ours.cell} {ours.mode}, {name} / with resets, 5 % set"
                made.append(Bar(what, entry.ratio_fused / ours.ratio_fused, limit if judged else None))
    return made
