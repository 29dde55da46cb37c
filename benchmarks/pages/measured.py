"""What was measured, where: the newest complete files of each machine, and their rows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

from harness import record
from harness.bars import ratios, select
from harness.record import Row
from harness.sweep import FAILED, WRONG, counterpart
from harness.threads import count_of

PEERS = {
    "torch": "torch.nn",
    "compile": "torch.compile",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "onednn": "oneDNN from C++",
}
SHOWN = {"rnn", "cells", "ragged", "text", "models", "gan", "int8"}  # suites that the pages' tables have
PART = re.compile(r"-(\d+)of(\d+)(-\d+)?$")


@dataclass
class Platform:
    """A machine at one instruction set and number of threads: its newest complete file of each suite, and the
    rows of those that were read on so many threads."""

    machine: str
    isa: str
    threads: str
    files: dict[str, Path]
    rows: list[Row]

    @property
    def name(self) -> str:
        return f"{self.machine}, {self.isa}" + ("" if self.threads != "1" else ", 1 thread")

    @property
    def folder(self) -> Path:
        return next(iter(self.files.values())).parent

    @property
    def standing(self) -> float:
        """Geometric mean of fp32 torch.nn / fused over the layers; without any, behind all others."""
        found = ratios(select(self.rows, suite="rnn", dtype="float32", peer="torch"))
        return geometric_mean(found) if found else float("inf")


def platforms(results: Path) -> list[Platform]:
    """The CPUs that were measured, the worst first."""
    files = [path for path in results.glob("*/*/*.csv") if path.parent.name != "learning"]
    return platforms_of(in_order(files))


def platforms_of(files: Iterable[Path]) -> list[Platform]:
    """The CPUs of these files, a later one in place of an earlier one of the same suite, the worst first."""
    found: dict[tuple[Path, str], dict[str, tuple[Path, list[Row]]]] = {}
    for path in files:
        usual, by_suite = record.shared(path)["threads"], {}
        for entry in record.read(path):
            threads = str(count_of(entry) or usual)
            by_suite.setdefault((threads, entry.suite), []).append(entry)
        for (threads, suite), rows in by_suite.items():
            found.setdefault((path.parent, threads), {})[suite] = path, rows
    made = []
    for (_, threads), by_suite in found.items():
        if not by_suite.keys() & SHOWN:
            continue
        files = {suite: path for suite, (path, _) in by_suite.items()}
        shared = record.shared(next(iter(files.values())))
        rows = [entry for _, rows in by_suite.values() for entry in rows if entry.unit not in (WRONG, FAILED)]
        rows = [
            entry for entry in rows if entry.suite != "rnn" or entry.peer not in PEERS or is_compared(entry)
        ]
        made.append(Platform(shared["machine"], shared["isa"], threads, files, rows))
    return sorted(made, key=lambda platform: (platform.standing, platform.name))


def in_order(files: Iterable[Path]) -> list[Path]:
    """Complete files, the newest last."""
    whole = [path for path in files if "-partial" not in path.name]
    return sorted(whole, key=lambda path: (record.shared(path)["date"], len(path.name), path.name))


def newest_parts(folder: Path) -> dict[str, dict[str, Path]]:
    """Suite -> the newest run's files that have it: part -> the newest file of that part, of one commit and
    one number of parts. A run in one piece is part "1/1"."""
    runs: dict[str, dict[tuple, dict[str, Path]]] = {}
    for path in in_order(folder.glob("*.csv")):
        found = PART.search(path.stem)
        k, n = (found[1], found[2]) if found else ("1", "1")
        for suite in {entry.suite for entry in record.read(path)}:
            by_run = runs.setdefault(suite, {})
            run = (record.shared(path)["commit"], n)
            by_run[run] = by_run.pop(run, {}) | {f"{k}/{n}": path}  # last: the newest
    return {suite: list(by_run.values())[-1] for suite, by_run in runs.items()}


def gpu_folders(results: Path) -> list[Path]:
    """Of machines that are GPUs."""
    return [
        folder
        for folder in sorted(results.iterdir())
        if any("capability" in record.shared(path) for path in folder.glob("*.csv"))
    ]


def compared(entry: Row) -> float:
    """A peer's time over fusegen's, over the frozen one's where the peer's weights are packed beforehand."""
    return float(counterpart(entry)[1])


def is_compared(entry: Row) -> bool:
    """Whether the fusegen that a peer is compared with was read beside it: of a partial run it may not be."""
    return counterpart(entry)[1] != ""
