"""What `import fusegen` adds to `import torch`: fresh interpreters, byte code compiled before as pip does."""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median

from harness.bars import Bar
from harness.options import Options
from harness.record import Row

PROGRAM = "import torch, time; t = time.perf_counter(); import fusegen; print(time.perf_counter() - t)"
LIMIT_MS = 50


def run(options: Options) -> list[Row]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def once() -> float:
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return float(done.stdout)

    once()
    seconds = [once() for _ in range(3 if options.quick else 9)]
    value = median(seconds) * 1e3
    print(f"import fusegen after import torch: {value:.1f} ms")
    return [Row("imports", peer="fused", value=value, rounds=len(seconds))]


def bars(rows: list[Row]) -> list[Bar]:
    return [
        Bar("import fusegen beyond import torch, ms", entry.value, LIMIT_MS, at_most=True) for entry in rows
    ]
