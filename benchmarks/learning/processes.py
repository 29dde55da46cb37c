"""Two processes under torchrun against one, a thread each: the same `fusegen train text` (gloo, the same
global batch, dropout 0). Each seed is a round; which count comes first alternates.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fusegen.train.run import Run, read_log
from learning.figures import Asked, Figure

WARM = 10
RATIO_BAR = 1.6
LOSS_BAR = {"float32": 1e-5, "float64": 1e-11}
FLAGS = (
    *("--hidden", "256", "--embedding", "256", "--batch", "64", "--chunk", "64", "--steps", "50"),
    *("--log-every", "1", "--evaluations", "1", "--no-tensorboard", "--device", "cpu"),
)


def processes(asked: Asked) -> Iterator[Figure]:
    """1.6 times the throughput (bytes per second from step 10 on), and the same loss at every step."""
    flags = [*FLAGS, *asked.flags]
    speeds, losses = {}, {}
    for count in (1, 2) if asked.seed % 2 else (2, 1):
        run = trained(asked.folder / str(count), count, flags)
        speeds[count], losses[count] = throughput(run), losses_of(run)
    apart = max(abs(a - b) for a, b in zip(losses[1], losses[2], strict=True))
    limit = LOSS_BAR[run.sections["run"].precision]

    def figure(measure: str, value: float) -> Figure:
        command = " ".join(["fusegen train text", *flags])
        return Figure(asked.bar, asked.seed, measure, value, command=command)

    ratio = speeds[2] / speeds[1]
    yield figure("bytes per second, two processes", speeds[2]).beside("one process", speeds[1])
    yield figure("times the throughput of one", ratio).beside("bar", RATIO_BAR, ratio >= RATIO_BAR)
    yield figure(f"between the losses of {len(losses[1])} steps", apart).beside("bar", limit, apart <= limit)


def trained(folder: Path, count: int, flags: list[str]) -> Run:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if count == 2 else []
    command = [sys.executable, *launch, "-m", "fusegen.cli", "train", "text", *flags, "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return Run.open(folder)


def throughput(run: Run) -> float:
    """Bytes per second, the first WARM steps left out."""
    lines = [line for line in read_log(run.folder) if "loss" in line]
    first, last = lines[WARM - 1], lines[-1]
    model = run.sections["model"]
    return (last["step"] - first["step"]) * model.batch * model.chunk / (last["seconds"] - first["seconds"])


def losses_of(run: Run) -> list[float]:
    return [line["loss"] for line in read_log(run.folder) if "loss" in line]
