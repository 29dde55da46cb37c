"""Result rows, the machine and versions they belong to, and the CSV files in results/MACHINE/ISA/."""

from __future__ import annotations

import csv
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

import cap
import fusegen
from fusegen import _C
from fusegen._choice import slug

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"


@dataclass
class Row:
    """One figure of one contestant. Empty strings are figures that the suite does not have.

    value in `unit` (median), p20 and p80 beside it; ratio_X: this contestant's time over X's, the median over
    rounds of the two read in the same round, X being fusegen in one of its forms: above 1, fusegen is faster.
    gflops and gbs: operations of the matrix products and least bytes of a call over its time. rounds: those
    that count; dropped: those that do not, the machine having not stood still.
    """

    suite: str
    cell: str
    form: str
    mode: str
    dtype: str
    I: int
    H: int
    B: int
    T: int
    tokens: int
    peer: str
    value: float
    unit: str = "ms"
    p20: float | str = ""
    p80: float | str = ""
    rounds: int = 1
    gflops: float | str = ""
    ratio_fused: float | str = ""
    ratio_frozen: float | str = ""
    ratio_auto: float | str = ""
    ratio_graph: float | str = ""
    gbs: float | str = ""
    error: float | str = ""
    note: str = ""
    dropped: int | str = ""


def row(suite: str, problem, peer: str, value: float, **figures) -> Row:
    """A row of `problem`'s case."""
    case = problem.case
    return Row(
        suite, case.cell, case.form, case.mode, case.dtype, case.I, case.H, case.B, case.T, problem.tokens,
        peer, value, **figures,
    )  # fmt: skip


@cache
def processor() -> str:
    """CPU model and core count, nothing that names the host."""
    cpuinfo = Path("/proc/cpuinfo")
    model = model_name(cpuinfo.read_text() if cpuinfo.exists() else "")
    return f"{model or platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def model_name(cpuinfo: str) -> str:
    """The model by the name that it gives itself; vendor, family and model beside a name that tells no model,
    as a virtual machine's ("AMD EPYC" of Zen 3 and of Zen 5 alike). "" where there is no such name."""

    def field(name: str) -> str:
        found = re.search(rf"^{name}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
        return found[1] if found else ""

    model = re.sub(r"\((R|TM|tm)\)|\bCPU\b|\bProcessor\b", " ", field("model name"))
    model = " ".join(model.split())
    if not model or re.search(r"\d{3}", model.partition("@")[0]) or not field("cpu family"):
        return model
    vendor = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}.get(field("vendor_id"), field("vendor_id"))
    known = "" if vendor.lower() in model.lower() else f"{vendor} "
    return f"{model} ({known}family {field('cpu family')} model {field('model')})"


@cache
def commit() -> str:
    """Short hash of HEAD, "-dirty" after it if measured sources differ from it; "unversioned" outside git."""
    if not (ROOT / ".git").exists():
        return "unversioned"

    def git(*args):
        return subprocess.run(
            ["git", "-C", ROOT, *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--", "csrc", "python", "CMakeLists.txt", "benchmarks/peers")
        return git("rev-parse", "--short=10", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):  # no git here, or a checkout of another user's
        return "unversioned"


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


@cache
def gpu() -> dict[str, str]:
    """The GPU in use, its driver and the libraries that torch brings."""
    found = torch.cuda.get_device_properties(0)
    return {
        "machine": found.name,
        "host": processor(),
        "capability": f"{found.major}.{found.minor}",
        "driver": nvidia_smi("driver_version"),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }


def nvidia_smi(what: str) -> str:
    """One value of the first GPU."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.splitlines()[0].strip()


@cache
def environment(device: str = "cpu") -> dict[str, str]:
    """The columns that all rows of a run share."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%MZ"),
        "commit": commit(),
        "machine": processor(),
        **(gpu() if device == "cuda" else {}),
        "isa": _C.isa(),
        "capped": cap.applied,
        "threads": str(torch.get_num_threads()),
        "fusegen": fusegen.__version__,
        "torch": torch.__version__,
        "onnxruntime": version("onnxruntime"),
        "openvino": version("openvino"),
        "onednn": version("onednn-cpu-gomp"),
        "python": platform.python_version(),
        "compiler": str(_C.build_info()["compiler"]),
    }


PEERS = ("onnxruntime", "openvino", "onednn")  # columns of what only speed is compared with
Add = Callable[[Iterable[Mapping[str, object]]], None]


@contextmanager
def new_file(
    names: Sequence[str], folder: Path, shared: dict[str, str], suffix: str
) -> Iterator[tuple[Path, Add]]:
    """A new file DATE-COMMIT.csv of columns `names` and `shared`, and what adds rows to it, at once on the
    disk; a number is added where the name is taken."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, number = f"{shared['date'][:10]}-{shared['commit']}{suffix}", 1
    while True:
        path = folder / (stem + (f"-{number}" if number > 1 else "") + ".csv")
        try:
            file = path.open("x", newline="")
            break
        except FileExistsError:
            number += 1
    with file:
        writer = csv.DictWriter(file, [*names, *shared], lineterminator="\n")
        writer.writeheader()

        def add(rows: Iterable[Mapping[str, object]]) -> None:
            writer.writerows({name: compact(value) for name, value in row.items()} | shared for row in rows)
            file.flush()

        yield path, add


def write(rows: list[Row], folder: Path = RESULTS, suffix: str = "", device: str = "cpu") -> Path:
    """A new file in `folder`/MACHINE/ISA with the rows of a run; a GPU has no ISA beside it."""
    shared = environment(device)
    names = [field.name for field in fields(Row)]
    place = folder / slug(shared["machine"])
    if device == "cpu":
        place /= shared["isa"]
    with new_file(names, place, shared, suffix) as (path, add):
        add(map(asdict, rows))
    return path


@contextmanager
def learning(what: str, names: Sequence[str], dry: bool = False) -> Iterator[tuple[Path | None, Add]]:
    """A `new_file` in results/MACHINE/learning for figures of `what` was learnt; none if `dry`."""
    if dry:
        yield None, lambda rows: None
        return
    own = environment()
    shared = {name: value for name, value in own.items() if name not in PEERS}
    with new_file(names, RESULTS / slug(own["machine"]) / "learning", shared, f"-{what}") as opened:
        yield opened


def compact(value: object) -> object:
    return f"{value:.5g}" if isinstance(value, float) else value


def read(path: Path) -> list[Row]:
    """Rows of a file as written; the shared columns are left to shared(). Later columns are empty."""
    types = {field.name: field.type for field in fields(Row)}

    def convert(name: str, text: str):
        if types[name] == "str" or (text == "" and "str" in types[name]):
            return text
        return int(text) if types[name].startswith("int") else float(text)

    with path.open(newline="") as file:
        lines = csv.DictReader(file)
        return [Row(**{name: convert(name, line.get(name, "")) for name in types}) for line in lines]


def shared(path: Path) -> dict[str, str]:
    """The columns of a file that all its rows share: date, commit, machine, versions, threads, isa. Raises
    ValueError for a file without rows."""
    own = {field.name for field in fields(Row)}
    with path.open(newline="") as file:
        first = next(csv.DictReader(file), None)
    if first is None:
        raise ValueError(f"{path.name}: expected rows of benchmarks/run.py, got none")
    return {name: value for name, value in first.items() if name not in own}
