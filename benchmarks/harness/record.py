"""Result rows, and the CSV files that they stand in: results/MACHINE/ISA/DATE-COMMIT.csv."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fusegen._choice import slug
from harness.machine import ROOT, environment

RESULTS = ROOT / "benchmarks/results"


@dataclass
class Row:
    """One figure of one contestant. Empty strings are figures that the suite does not have.

    value in `unit` (median), p20 and p80 beside it; ratio_X: this contestant's time over X's, the median over
    rounds of the two read in the same round, X being fusegen in one of its forms: above 1, fusegen is faster.
    gflops and gbs: operations of the matrix products and least bytes of a call over its time. rounds: those
    that count; dropped: those that do not, the machine having not stood still.
    """

    suite: str
    cell: str = ""
    form: str = ""
    mode: str = ""
    dtype: str = ""
    I: int = 0
    H: int = 0
    B: int = 0
    T: int = 0
    tokens: int = 0
    peer: str = ""
    value: float = float("nan")
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
    columns = {name: getattr(case, name) for name in ("cell", "form", "mode", "dtype", "I", "H", "B", "T")}
    return Row(suite, **columns, tokens=problem.tokens, peer=peer, value=value, **figures)


PEERS = ("onnxruntime", "openvino", "onednn", "tract")  # columns of what only speed is compared with
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
