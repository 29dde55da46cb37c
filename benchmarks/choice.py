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
import sys
from pathlib import Path

from fusegen._choice import slug
from gpu import rules as of_gpu
from harness import machine, record
from harness.bars import select
from harness.record import Row
from speed import rules as of_cpu

PACKAGE = machine.ROOT / "python/fusegen"
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
    by_cpu: dict[tuple[str, str], list[of_cpu.Reading]] = {}
    known = {path: described(path) for path in files}
    for path, shared in sorted(known.items(), key=lambda one: (one[1]["date"], one[0].name)):
        if "-partial" in path.name:
            raise ValueError(f"{path.name}: expected a complete run or a part of one, got a partial one")
        if "capability" in shared:
            rows = select(record.read(path), suite=("rnn", "cells"), unit="ms")
            by_gpu.setdefault(slug(shared["machine"]), []).extend((entry, path.name) for entry in rows)
            continue
        platform, found = of_cpu.readings(path)
        if not found:
            raise ValueError(f"{path.name}: expected rows of torch in the suites rnn, cells, small or gan")
        by_cpu.setdefault(platform, []).extend(found)
    return (
        {gpu: of_gpu.rules(rows) for gpu, rows in by_gpu.items()},
        {platform: of_cpu.rules(found) for platform, found in sorted(by_cpu.items())},
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--out", type=Path, default=PACKAGE, metavar="FOLDER", help="default: the package's own"
    )
    asked = parser.parse_args(argv)
    try:
        gpus, cpus = tables(asked.files)
        if not asked.out.is_dir():
            raise ValueError(f"--out: expected a folder, got {str(asked.out)!r}")
    except (OSError, ValueError) as error:
        print(f"choice.py: {error}", file=sys.stderr)
        return 2
    for made, name, text in ((gpus, "_gpu_rules.py", of_gpu.text), (cpus, "_cpu_rules.py", of_cpu.text)):
        if made:
            (asked.out / name).write_text(text(made))
        for platform, those in made.items():
            what = platform if isinstance(platform, str) else " on ".join(platform)
            print(f"{what}: {len(those)} ranges left to torch")
    return 0


if __name__ == "__main__":
    sys.exit(main())
