"""What to tune next on a GPU: `make gpu STAGE=worst`.

From the newest results of the GPU in use, or of --machine: the three layer cases in which fusegen does worst
beside torch.nn, and the three recurrences farthest from the plan. With --ncu, Nsight Compute profiles
fusegen's kernels in each, a report a case in FOLDER.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from gpu import planned
from harness import machine, record
from harness.bars import select
from harness.record import Row
from pages.measured import newest_parts

COUNT = 3
RUN = machine.ROOT / "benchmarks/run.py"


def slowest(rows: list[Row]) -> list[Row]:
    """The layer cases with the smallest ratio of torch.nn's time to ours."""
    compared = [entry for entry in select(rows, suite="rnn", peer="torch") if entry.ratio_fused != ""]
    return sorted(compared, key=lambda entry: entry.ratio_fused)[:COUNT]


def farthest(rows: list[Row]) -> list[Row]:
    """The LSTM recurrences in bfloat16, forward, whose step takes the largest multiple of its plan."""
    alone = select(rows, suite="rnn", peer="recurrence", cell="lstm", mode="inference", dtype="bfloat16")
    planned_ones = [entry for entry in alone if planned.step(entry.H, entry.B)]
    return sorted(planned_ones, key=lambda e: e.value / planned.step(e.H, e.B), reverse=True)[:COUNT]


def words(entry: Row) -> list[str]:
    """What `run.py rnn --only` takes for exactly this case."""
    return [entry.cell, entry.mode, entry.dtype, f"H{entry.H}", f"B{entry.B}", f"T{entry.T}"]


def profile(entry: Row, folder: Path) -> bool:
    """Profiles fusegen's kernels in a case; whether Nsight Compute wrote a report."""
    report = folder / "-".join(words(entry))
    run = [sys.executable, str(RUN), "rnn", "--device", "cuda"]
    command = [
        "ncu", "--target-processes", "all", "--kernel-name", "regex:(forward|backward)_kernel",
        "--launch-skip", "4", "--launch-count", "2", "--set", "full", "--force-overwrite",
        "--export", str(report), *run, "--minutes", "0.05", "--peers", "fused", "--only", *words(entry),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not report.with_suffix(".ncu-rep").exists():
        print(f"ncu gave no report for {' '.join(words(entry))}: {(done.stdout + done.stderr)[-500:]}")
        return False
    print(report.with_suffix(".ncu-rep"))
    return True


def read(machine: str | None) -> list[Row]:
    """The newest whole results of a GPU. Raises FileNotFoundError where there are none."""
    folders = [record.RESULTS / machine] if machine else [p for p in record.RESULTS.iterdir() if p.is_dir()]
    rows = [
        entry
        for folder in folders
        for by_part in newest_parts(folder).values()
        for path in by_part.values()
        if "capability" in record.shared(path)
        for entry in select(record.read(path), suite="rnn")
    ]
    if not rows:
        raise FileNotFoundError("there are no results of layers on a GPU: make gpu STAGE=bench")
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machine", help="a folder of benchmarks/results (default: all GPUs there)")
    parser.add_argument("--ncu", type=Path, metavar="FOLDER", help="profile each with Nsight Compute")
    asked = parser.parse_args(argv)
    if asked.ncu and shutil.which("ncu") is None:
        print("worst.py: --ncu: Nsight Compute (ncu) is not on PATH", file=sys.stderr)
        return 2
    try:
        rows = read(asked.machine)
    except FileNotFoundError as error:
        print(f"worst.py: {error}", file=sys.stderr)
        return 2
    print("smallest ratios, torch.nn / fused:")
    for entry in slowest(rows):
        print(f"  {entry.ratio_fused:6.2f}  {' '.join(words(entry))}")
    print("recurrences farthest from the plan:")
    for entry in farthest(rows):
        plan = planned.step(entry.H, entry.B)
        found = f"{entry.value:.2f} us a step, planned {plan:.2f}"
        print(f"  {entry.value / plan:6.2f}  {' '.join(words(entry))}: {found}")
    if not asked.ncu:
        return 0
    asked.ncu.mkdir(parents=True, exist_ok=True)
    reports = [profile(entry, asked.ncu) for entry in (*slowest(rows), *farthest(rows))]
    return int(not all(reports))


if __name__ == "__main__":
    sys.exit(main())
