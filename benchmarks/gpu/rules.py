"""The table of a GPU that "auto" obeys: the ranges of shapes in which torch.nn (cuDNN), called plainly, was
faster.
"""

from __future__ import annotations

from itertools import product

from fusegen._choice import ANY
from gpu.rnn import DTYPES
from harness.ranges import ranges
from harness.record import Row

CELLS = ("lstm", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell")
HEAD = '''\
"""Written by `python benchmarks/choice.py FILE...` from result files; not by hand.

A GPU's name as in benchmarks/results -> ranges of shapes in which torch.nn (cuDNN) measured faster: (cell,
dtype, train, (H from, to), (B from, to), (T from, to), source). A GPU that is not here was not measured.
"""
'''


def rules(rows: list[tuple[Row, str]]) -> list[tuple]:
    """The table of one GPU, in `_gpu_rules.py`'s form; each row comes with its source."""
    made = []
    for cell, dtype, train in product(CELLS, DTYPES, (False, True)):
        suite, steps = ("cells", (1, 1)) if cell.endswith("_cell") else ("rnn", ANY)
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
            made.append((cell, dtype, train, ANY, ANY, steps, "not measured"))
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


def text(tables: dict[str, list[tuple]]) -> str:
    lines = [HEAD, "MEASURED: dict[str, tuple] = {"]
    for gpu, made in tables.items():
        lines += [f'    "{gpu}": (']
        for cell, dtype, train, *sizes, source in made:
            listed = ", ".join(map(str, sizes))
            lines.append(f'        ("{cell}", "{dtype}", {train}, {listed},\n         "{source}"),')
        lines.append("    ),")
    return "\n".join([*lines, "}  # fmt: skip", ""])
