"""What a run of `fusegen train` came to: its measures, each beside a baseline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fusegen.cli import main as fusegen
from fusegen.train.run import Run, read_log


@dataclass(frozen=True)
class Asked:
    """One run of a bar. flags: of `fusegen train`, in place of its defaults; by: who trains a GAN; judges: of
    the series that it draws, so many of each kind; judge_steps: how long each is taught, 0 for as long as
    `fusegen evaluate` does it; beside: whether what a GAN is held against is measured;
    ways: those that a sweep tries, () for all."""

    bar: str
    seed: int
    folder: Path
    flags: tuple[str, ...] = ()
    by: str = "both"
    judges: int = 0
    judge_steps: int = 0
    beside: bool = True
    ways: tuple[str, ...] = ()


@dataclass
class Figure:
    """One measure of one run beside its baseline. step: of an evaluation on the way, "" of the last one;
    passed: "" where no bar is set.
    """

    bar: str
    seed: int
    measure: str
    value: float
    step: int | str = ""
    baseline: str = ""
    baseline_value: float | str = ""
    passed: bool | str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    command: str = ""

    def beside(self, baseline: str, value: float, passed: bool | str = "") -> Figure:
        return replace(self, baseline=baseline, baseline_value=value, passed=passed)


@dataclass
class Trained:
    asked: Asked
    run: Run
    last: dict[str, float]
    seconds: float
    cpu_seconds: float
    command: str

    def figure(self, measure: str, bar: str = "") -> Figure:
        return Figure(
            bar or self.asked.bar, self.asked.seed, measure, self.last[measure],
            seconds=self.seconds, cpu_seconds=self.cpu_seconds, command=self.command,
        )  # fmt: skip

    def importance(self) -> Iterator[Figure]:
        """The bounds by importance sampling, where there are any."""
        return (self.figure(name) for name in self.last if name.startswith("nats, "))


def train(asked: Asked, task: str, *flags: str, folder: Path | None = None) -> Trained:
    """A run from its beginning to its end, and what it measured last; `flags` come before those asked for."""
    folder = folder or asked.folder
    flags = ("--seed", str(asked.seed), *flags, *asked.flags)
    begin, worked = time.perf_counter(), time.process_time()
    status = fusegen(["train", task, *flags, "--folder", str(folder), "--no-tensorboard", "--device", "cpu"])
    if status:
        raise SystemExit(status)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - worked
    measured = [line for line in read_log(folder) if any(name.startswith("held-out") for name in line)]
    command = " ".join(("fusegen train", task, *map(shown, flags)))
    return Trained(asked, Run.open(folder), measured[-1] if measured else {}, seconds, cpu_seconds, command)


def shown(flag: str) -> str:
    """A flag as it is committed: without the place of a folder of this machine."""
    scheme, _, rest = flag.partition(":")
    return f"mo:FOLDER:{rest.rpartition(':')[2]}" if scheme == "mo" else flag
