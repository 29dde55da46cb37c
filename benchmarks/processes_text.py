"""Two processes under torchrun against one, a thread each: `python benchmarks/processes_text.py`.

The same `fusegen train text` (gloo, the same global batch, dropout 0), in turn for some rounds. Throughput:
bytes trained on per second from step WARM to the end, by the times in log.jsonl. The losses of all steps are
compared too. Rows go to benchmarks/results/MACHINE/learning/. Further flags are passed on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import record
from fusegen.train.run import Run, read_log

COLUMNS = (
    "suite", "round", "command", "bytes_per_second_1", "bytes_per_second_2", "ratio", "loss_difference",
    "steps",
)  # fmt: skip
WARM = 10
RATIO_BAR = 1.6
LOSS_BAR = {"float32": 1e-5, "float64": 1e-11}
FLAGS = [
    *("--hidden", "256", "--embedding", "256", "--batch", "64", "--chunk", "64", "--steps", "50"),
    *("--log-every", "1", "--evaluations", "1", "--no-tensorboard", "--device", "cpu"),
]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=list(LOSS_BAR), default="float32")
    parser.add_argument("--no-save", action="store_true", help="write no CSV")
    asked, flags = parser.parse_known_args()
    flags = [*FLAGS, "--precision", asked.precision, *flags]
    rows = []
    with (
        tempfile.TemporaryDirectory() as temporary,
        record.learning("processes", COLUMNS, dry=asked.no_save) as (path, add),
    ):
        for number in range(asked.rounds):
            speeds, losses = {}, {}
            for count in (1, 2) if number % 2 else (2, 1):
                folder = Path(temporary) / f"{number}-{count}"
                speeds[count], losses[count] = trained(folder, count, flags)
            apart = max(abs(a - b) for a, b in zip(losses[1], losses[2], strict=True))
            row = {
                "suite": "processes-text",
                "round": number,
                "command": " ".join(["fusegen train text", *flags]),
                "bytes_per_second_1": f"{speeds[1]:.0f}",
                "bytes_per_second_2": f"{speeds[2]:.0f}",
                "ratio": f"{speeds[2] / speeds[1]:.3f}",
                "loss_difference": f"{apart:.2e}",
                "steps": len(losses[1]),
            }
            rows.append(row)
            add([row])
            print(
                "  ".join(f"{name} {value}" for name, value in row.items() if name != "command"), flush=True
            )
    ratio = statistics.median(float(row["ratio"]) for row in rows)
    apart = max(float(row["loss_difference"]) for row in rows)
    limit = LOSS_BAR[asked.precision]
    print(f"{'pass' if ratio >= RATIO_BAR else 'FAIL'}  {ratio:.3f} >= {RATIO_BAR} times the throughput")
    print(f"{'pass' if apart <= limit else 'FAIL'}  {apart:.1e} <= {limit:g} between the losses")
    if path is not None:
        print(f"written: {path.relative_to(record.ROOT)}")
    return 0 if ratio >= RATIO_BAR and apart <= limit else 1


def trained(folder: Path, count: int, flags: list[str]) -> tuple[float, list[float]]:
    """Bytes per second, and the loss of each step."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if count == 2 else []
    command = [sys.executable, *launch, "-m", "fusegen.cli", "train", "text", *flags, "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    lines = [line for line in read_log(folder) if "loss" in line]
    model = Run.open(folder).sections["model"]
    first, last = lines[WARM - 1], lines[-1]
    tokens = (last["step"] - first["step"]) * model.batch * model.chunk
    return tokens / (last["seconds"] - first["seconds"]), [line["loss"] for line in lines]


if __name__ == "__main__":
    sys.exit(main())
