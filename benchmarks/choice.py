"""The tables that "auto" obeys, from result files: `python benchmarks/choice.py FILE...`.

FILE: complete results, every part of a run. Of a GPU, or several (`run.py rnn cells --device cuda`): writes
python/fusegen/_gpu_rules.py, for each GPU the ranges of shapes in which torch.nn (cuDNN) was faster than the
fused kernels, called plainly. What was not measured on a GPU at all is left to torch there.

Of a CPU, or several (`run.py rnn cells small gan`, with `--isa` too): writes python/fusegen/_cpu_rules.py,
for each instruction set and vendor the ranges of calls in which torch was faster by more than 1 % and by more
than the readings' noise. What was not measured stays with the fused kernels.

In both, a measured size stands for those around it, up to the geometric middle of the next one measured, and
beyond the grid for all; so do numbers of threads. A table holds what these files say and nothing else: give
those of every machine that it is to know.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterable
from itertools import pairwise, product
from math import hypot, isqrt, log
from pathlib import Path
from typing import NamedTuple

import record
from bars import select
from fusegen._choice import ANY, step_name
from record import Row

LARGEST = ANY[1]
CELLS = ("lstm", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell")
DTYPES = ("bfloat16", "float16", "tf32", "float32")
ALL = ANY
PACKAGE = record.ROOT / "python/fusegen"
GPU_HEAD = '''\
"""Written by `python benchmarks/choice.py FILE...` from result files; not by hand.

A GPU's name as in benchmarks/results -> ranges of shapes in which torch.nn (cuDNN) measured faster: (cell,
dtype, train, (H from, to), (B from, to), (T from, to), source). A GPU that is not here was not measured.
"""
'''


def ranges(sizes: set[int]) -> dict[int, tuple[int, int]]:
    """What each measured size stands for: closed intervals that cover 1..LARGEST without a gap."""
    ordered = sorted(sizes)
    ends = [isqrt(a * b) for a, b in pairwise(ordered)]
    return {
        size: (low, high)
        for size, low, high in zip(ordered, [1, *(end + 1 for end in ends)], [*ends, LARGEST], strict=True)
    }


def rules(rows: list[tuple[Row, str]]) -> list[tuple]:
    """The table of one GPU, in `_gpu_rules.py`'s form; each row comes with its source."""
    made = []
    for cell, dtype, train in product(CELLS, DTYPES, (False, True)):
        suite, steps = ("cells", (1, 1)) if cell.endswith("_cell") else ("rnn", ALL)
        seen = {  # of a shape measured twice, the later reading
            (e.H, e.B): (e.ratio_fused, source)
            for e, source in rows
            if e.suite == suite
            and e.peer == "torch"
            and (e.cell, e.dtype) == (cell.removesuffix("_cell"), dtype)
            and (e.mode == "training") == train
            and e.ratio_fused != ""
        }
        if not seen:
            made.append((cell, dtype, train, ALL, ALL, steps, "not measured"))
            continue
        of_H, of_B = ranges({H for H, _ in seen}), ranges({B for _, B in seen})
        for H, B in product(of_H, of_B):
            ratio, source = seen.get((H, B), (0.0, "not measured"))  # a hole in the grid
            if ratio < 1:
                made.append((cell, dtype, train, of_H[H], of_B[B], steps, source))
    return joined(made)


def joined(made: list[tuple]) -> list[tuple]:
    """Neighbours along B as one."""
    out: list[tuple] = []
    for cell, dtype, train, H, B, T, source in made:
        if out:
            *head, before, T0, source0 = out[-1]
            if (*head, T0, source0) == (cell, dtype, train, H, T, source) and before[1] + 1 == B[0]:
                out[-1] = (cell, dtype, train, H, (before[0], B[1]), T, source)
                continue
        out.append((cell, dtype, train, H, B, T, source))
    return out


# -- CPUs --------------------------------------------------------------------------------------------------

LOST = 0.99  # torch's time over ours, below which we lost
CPU_HEAD = '''\
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
    said = re.search(r"\bthreads(\d+)\b", row.form)  # of cases that bring their own number of threads
    threads = int(said[1]) if said else threads
    train = row.mode == "training"
    if row.suite == "gan":
        widths = [int(width) for width in row.cell.split("-")[1:]]
        weights = sum(n * m for n, m in pairwise(widths))
        return Reading(
            step_name(row.form), row.dtype, train, len(widths) - 1, weights, row.B, 1, threads, lost, source
        )
    cell = row.cell + ("_cell" if "cell" in row.form.split() else "")
    return Reading(cell, row.dtype, train, row.I, row.H, row.B, row.T, threads, lost, source)


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


def cpu_rules(seen: Iterable[Reading]) -> list[tuple]:
    """The table of one instruction set and vendor, in `_cpu_rules.py`'s form."""
    made: list[tuple] = []
    kinds: dict[tuple, dict[tuple, Reading]] = {}
    for r in seen:  # of a call measured twice, the later reading; a single step is a way of its own
        kinds.setdefault((r.cell, r.dtype, r.train, r.T == 1), {})[r.I, r.H, r.B, r.T, r.threads] = r
    for (cell, dtype, train, single), those in sorted(kinds.items()):
        of_threads = ranges({r.threads for r in those.values()})
        for threads, span in of_threads.items():
            part = [r for r in those.values() if r.threads == threads]
            for I, H, B, T, source in _lost_ranges(part, (1, 1) if single else (2, LARGEST)):
                made.append((cell, dtype, train, I, H, B, T, span, source))
    for at in (5, 4):  # neighbours along B as one, then along H
        made = _merged(made, at)
    return made


def _lost_ranges(part: list[Reading], steps: tuple[int, int]) -> list[tuple]:
    """(I, H, B, T, source) of what was lost among readings of one kind and number of threads."""
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


# -- Files -------------------------------------------------------------------------------------------------


NEEDED = ("suite", "peer", "unit", "date", "machine", "isa", "threads")  # columns


def described(path: Path) -> dict[str, str]:
    """What `record.shared` says of a file. Raises ValueError for one that `run.py` has not written."""
    shared = record.shared(path)
    with path.open(newline="") as file:
        columns = next(csv.reader(file))
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise ValueError(f"{path.name}: expected a result of run.py, which has {', '.join(missing)}")
    return shared


def tables(files: list[Path]) -> tuple[dict[str, list[tuple]], dict[tuple[str, str], list[tuple]]]:
    """GPU -> its rules, and (instruction set, vendor) -> its rules. Raises ValueError for a partial file."""
    by_gpu: dict[str, list[tuple[Row, str]]] = {}
    by_cpu: dict[tuple[str, str], list[Reading]] = {}
    known = {path: described(path) for path in files}
    for path, shared in sorted(known.items(), key=lambda one: (one[1]["date"], one[0].name)):
        if "-partial" in path.name:
            raise ValueError(f"{path.name}: expected a complete run or a part of one, got a partial one")
        if "capability" in shared:
            rows = select(record.read(path), suite=("rnn", "cells"), unit="ms")
            by_gpu.setdefault(record.slug(shared["machine"]), []).extend((entry, path.name) for entry in rows)
            continue
        kind, found = readings(path)
        if not found:
            raise ValueError(f"{path.name}: expected rows of torch in the suites rnn, cells, small or gan")
        by_cpu.setdefault(kind, []).extend(found)
    return (
        {gpu: rules(rows) for gpu, rows in by_gpu.items()},
        {kind: cpu_rules(found) for kind, found in sorted(by_cpu.items())},
    )


def gpu_text(tables: dict[str, list[tuple]]) -> str:
    lines = [GPU_HEAD, "MEASURED: dict[str, tuple] = {"]
    for gpu, made in tables.items():
        lines += [f'    "{gpu}": (']
        for cell, dtype, train, *sizes, source in made:
            listed = ", ".join(map(str, sizes))
            lines.append(f'        ("{cell}", "{dtype}", {train}, {listed},\n         "{source}"),')
        lines.append("    ),")
    return "\n".join([*lines, "}  # fmt: skip", ""])


def cpu_text(tables: dict[tuple[str, str], list[tuple]]) -> str:
    lines = [CPU_HEAD, "MEASURED = {"]
    for (isa, vendor), made in tables.items():
        lines += [f'    ("{isa}", "{vendor}"): (']
        for cell, dtype, train, *sizes, source in made:
            listed = ", ".join(map(str, sizes))
            lines.append(f'        ("{cell}", "{dtype}", {train},\n         {listed},\n         "{source}"),')
        lines.append("    ),")
    return "\n".join([*lines, "}  # fmt: skip", ""])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--output", type=Path, default=PACKAGE, metavar="FOLDER", help="default: the package's own"
    )
    asked = parser.parse_args(argv)
    try:
        of_gpus, of_cpus = tables(asked.files)
        if not asked.output.is_dir():
            raise ValueError(f"--output: expected a folder, got {str(asked.output)!r}")
    except (OSError, ValueError) as error:
        print(f"choice.py: {error}", file=sys.stderr)
        return 2
    for made, name, text in ((of_gpus, "_gpu_rules.py", gpu_text), (of_cpus, "_cpu_rules.py", cpu_text)):
        if made:
            (asked.output / name).write_text(text(made))
        for machine, those in made.items():
            what = machine if isinstance(machine, str) else " on ".join(machine)
            print(f"{what}: {len(those)} ranges left to torch")
    return 0


if __name__ == "__main__":
    sys.exit(main())
