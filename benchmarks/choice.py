"""The table that "auto" obeys on GPUs, from result files: `python benchmarks/choice.py FILE...`.

FILE: complete results of `run.py rnn cells --device cuda`, every part of a run, of one GPU or several. Writes
python/fusegen/_gpu_rules.py: for each GPU the ranges of shapes in which torch.nn (cuDNN) was faster than the
fused kernels, called plainly. A measured shape stands for those around it, up to the geometric middle of the
next one measured, and beyond the grid for all. What was not measured on a GPU at all is left to torch there.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise, product
from math import isqrt
from pathlib import Path

import record
from bars import select
from record import Row

LARGEST = 2**31 - 1
CELLS = ("lstm", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell")
DTYPES = ("bfloat16", "float16", "tf32", "float32")
ALL = (1, LARGEST)
TARGET = record.ROOT / "python/fusegen/_gpu_rules.py"
HEAD = '''\
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


def table(files: list[Path]) -> dict[str, list[tuple]]:
    """GPU -> its rules. Raises ValueError for a file that is partial, or not of a GPU."""
    by_gpu: dict[str, list[tuple[Row, str]]] = {}
    for path in sorted(files, key=lambda path: (record.shared(path)["date"], path.name)):
        shared = record.shared(path)
        if "-partial" in path.name:
            raise ValueError(f"{path.name}: expected a complete run or a part of one, got a partial one")
        if "capability" not in shared:
            raise ValueError(f"{path.name}: expected results of a GPU, got those of {shared['machine']}")
        rows = select(record.read(path), suite=("rnn", "cells"), unit="ms")
        by_gpu.setdefault(record.slug(shared["machine"]), []).extend((entry, path.name) for entry in rows)
    return {gpu: rules(rows) for gpu, rows in by_gpu.items()}


def text(tables: dict[str, list[tuple]]) -> str:
    lines = [HEAD, "MEASURED = {"]
    for gpu, made in tables.items():
        lines += [f'    "{gpu}": (']
        for cell, dtype, train, *sizes, source in made:
            listed = ", ".join(map(str, sizes))
            lines.append(f'        ("{cell}", "{dtype}", {train}, {listed},\n         "{source}"),')
        lines.append("    ),")
    return "\n".join([*lines, "}  # fmt: skip", ""])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--output", type=Path, default=TARGET, help="default: the package's own")
    asked = parser.parse_args(argv)
    try:
        made = table(asked.files)
    except (OSError, ValueError) as error:
        print(f"choice.py: {error}", file=sys.stderr)
        return 2
    asked.output.write_text(text(made))
    for gpu, those in made.items():
        print(f"{gpu}: {len(those)} ranges left to torch.nn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
