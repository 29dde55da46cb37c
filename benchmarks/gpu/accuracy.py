"""Error against float64 on a GPU, ours over cuDNN's own: fp32, TF32 and the 16-bit types."""

from __future__ import annotations

from gpu.rnn import DTYPES
from harness.bars import Bar, select
from harness.options import Options
from harness.problem import CELLS
from harness.record import Row
from speed.accuracy import cases, largest, measured

# cuDNN's own error is the bar; true float32 has a factor, since sums of split products round more.
LIMITS = {"float32": 2.0, "tf32": 1.0, "bfloat16": 1.0, "float16": 1.0}


def run(options: Options) -> list[Row]:
    return measured(options.cases([one for dtype in DTYPES for one in cases(options.quick, dtype, "cuda")]))


def bars(rows: list[Row]) -> list[Bar]:
    rows = select(rows, suite="accuracy")
    return [
        bar
        for dtype, limit in LIMITS.items()
        for cell in CELLS
        for bar in largest(f"{cell} {dtype}", select(rows, cell=cell, dtype=dtype), limit)
    ]
