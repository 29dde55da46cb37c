"""The table of a CPU that "auto" obeys: the ranges of calls in which torch was faster by more than 1 % and by
more than the readings' noise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise, product
from math import hypot, log
from pathlib import Path
from typing import NamedTuple

from fusegen._choice import step_name
from harness import record
from harness.bars import select
from harness.ranges import LARGEST, ranges
from harness.record import Row
from harness.threads import count_of

LOST = 0.99  # torch's time over ours, below which we lost
HEAD = '''\
"""Written by `python benchmarks/choice.py FILE...` from result files; not by hand.

(instruction set, vendor) -> ranges of calls in which torch measured faster than the fused kernels: (cell,
dtype, train, (I from, to), (H from, to), (B from, to), (T from, to), (threads from, to), source). What is not
here runs on the fused kernels.
"""
'''

STEPS = tuple(map(step_name, ("none", "r1", "gp")))


class Reading(NamedTuple):
    """What one call showed; sizes as `fusegen._choice.Rule` has them."""

    cell: str
    dtype: str
    train: bool
    I: int
    H: int
    B: int
    T: int
    threads: int
    lost: bool
    source: str


def vendor(machine: str) -> str:
    """Of a processor, from the name of the machine."""
    words = re.findall(r"[a-z]+", machine.lower())
    return "amd" if "amd" in words else "intel" if "intel" in words else "other"


def noise(theirs: Row, ours: Row) -> float:
    """The standard error of the ratio of two medians, relative; 0 where the file does not tell the spread.
    From the 20th to the 80th of a normal distribution are 1.68 deviations, and a median of n errs by 1.25
    deviations over the root of n."""
    parts = [
        1.25 * (row.p80 - row.p20) / 1.68 / row.value / row.rounds**0.5
        for row in (theirs, ours)
        if "" not in (row.p20, row.p80)
    ]
    return hypot(*parts)


def reading(row: Row, ours: Row, threads: int, source: str) -> Reading:
    """Of torch's row beside ours."""
    lost = row.ratio_fused < LOST and 1 - row.ratio_fused > noise(row, ours)
    if row.suite == "gan":
        widths = [int(width) for width in row.cell.split("-")[1:]]
        weights = sum(n * m for n, m in pairwise(widths))
        call = {"cell": step_name(row.form), "I": len(widths) - 1, "H": weights, "T": 1}
    else:
        cell = row.cell + ("_cell" if "cell" in row.form.split() else "")
        call = {"cell": cell, "I": row.I, "H": row.H, "T": row.T}
    threads = count_of(row) or threads
    call |= {"dtype": row.dtype, "train": row.mode == "training", "B": row.B, "threads": threads}
    return Reading(**call, lost=lost, source=source)


def readings(path: Path) -> tuple[tuple[str, str], list[Reading]]:
    """((instruction set, vendor), what torch's rows say) of a file."""
    shared, found = record.shared(path), []
    rows = select(record.read(path), unit="ms")
    plain = select(rows, suite=("rnn", "cells", "small"), peer="torch", form=_is_plain)
    # Of the step, the way that "auto" would take.
    steps = select(rows, suite="gan", peer="concatenated", cell=lambda cell: cell.startswith("mlp-"))
    for row in select([*plain, *steps], ratio_fused=lambda ratio: ratio != ""):
        same = {
            name: getattr(row, name)
            for name in ("suite", "cell", "form", "mode", "dtype", "I", "H", "B", "T")
        }
        ours = select(rows, peer="fused", **same)
        if ours:
            found.append(reading(row, ours[-1], int(shared["threads"]), path.name))
    return (shared["isa"], vendor(shared["machine"])), found


def _is_plain(form: str) -> bool:
    return form.split()[0] in ("layer", "cell")


def rules(seen: Iterable[Reading]) -> list[tuple]:
    """The table of one instruction set and vendor, in `_cpu_rules.py`'s form."""
    made: list[tuple] = []
    calls: dict[tuple, dict[tuple, Reading]] = {}
    for r in seen:  # of a call measured twice, the later reading; a single step is a way of its own
        calls.setdefault((r.cell, r.dtype, r.train, r.T == 1), {})[r.I, r.H, r.B, r.T, r.threads] = r
    for (cell, dtype, train, single), those in sorted(calls.items()):
        of_threads = ranges({r.threads for r in those.values()})
        for threads, span in of_threads.items():
            part = [r for r in those.values() if r.threads == threads]
            for I, H, B, T, source in _lost_ranges(part, (1, 1) if single else (2, LARGEST)):
                made.append((cell, dtype, train, I, H, B, T, span, source))
    for at in (5, 4):  # neighbours along B as one, then along H
        made = _merged(made, at)
    return made


def _lost_ranges(part: list[Reading], steps: tuple[int, int]) -> list[tuple]:
    """(I, H, B, T, source) of what was lost among readings of one cell, dtype, mode and number of threads."""
    of_H, of_B = ranges({r.H for r in part}), ranges({r.B for r in part})
    places = sorted({(r.H, r.B) for r in part})
    made = []
    for H, B in product(of_H, of_B):
        # A hole in the grid is taken for its nearest neighbour.
        near = min(places, key=lambda at: hypot(log(at[0] / H), log(at[1] / B)))
        here = [r for r in part if near == (r.H, r.B)]
        spans = ranges({r.I for r in here})
        if here[0].cell in STEPS:  # each further layer costs torch more operators than it costs us
            deepest = max(spans)
            spans[deepest] = spans[deepest][0], deepest
        for I, span_I in spans.items():
            along = {r.T: r for r in here if r.I == I}
            for T, (low, high) in ranges(set(along)).items():
                if along[T].lost:
                    span_T = max(low, steps[0]), min(high, steps[1])
                    made.append((span_I, of_H[H], of_B[B], span_T, along[T].source))
    return made


def _merged(made: list[tuple], at: int) -> list[tuple]:
    """Rules that differ in the range of one size alone, and touch there, as one."""
    out: list[tuple] = []
    for rule in sorted(made, key=lambda rule: (*rule[:at], *rule[at + 1 :], rule[at])):
        before = out[-1] if out else None
        if (
            before
            and before[:at] + before[at + 1 :] == rule[:at] + rule[at + 1 :]
            and before[at][1] + 1 == rule[at][0]
        ):
            out[-1] = (*before[:at], (before[at][0], rule[at][1]), *before[at + 1 :])
        else:
            out.append(rule)
    return sorted(out)


def text(tables: dict[tuple[str, str], list[tuple]]) -> str:
    lines = [HEAD, "MEASURED = {"]
    for (isa, vendor), made in tables.items():
        lines += [f'    ("{isa}", "{vendor}"): (']
        for cell, dtype, train, *sizes, source in made:
            listed = ", ".join(map(str, sizes))
            lines.append(f'        ("{cell}", "{dtype}", {train},\n         {listed},\n         "{source}"),')
        lines.append("    ),")
    return "\n".join([*lines, "}  # fmt: skip", ""])
