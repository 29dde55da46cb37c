"""Result rows, and the CSV files that they stand in: results/MACHINE/ISA/DATE-COMMIT.csv."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TextIO

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


NAMES = [field.name for field in fields(Row)]


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
        yield path, adder(file, names, shared)


def adder(file: TextIO, names: Sequence[str], shared: dict[str, str]) -> Add:
    """Writes the heading of a CSV file; what adds rows to it, at once on the disk."""
    writer = csv.DictWriter(file, [*names, *shared], lineterminator="\n")
    writer.writeheader()

    def add(rows: Iterable[Mapping[str, object]]) -> None:
        writer.writerows({name: compact(value) for name, value in row.items()} | shared for row in rows)
        file.flush()

    return add


def write(rows: list[Row], folder: Path = RESULTS, suffix: str = "", device: str = "cpu") -> Path:
    """A new file in `folder`/MACHINE/ISA with the rows of a run; a GPU has no ISA beside it."""
    place, shared = place_of(folder, device)
    with new_file(NAMES, place, shared, suffix) as (path, add):
        add(map(asdict, rows))
    return path


def place_of(folder: Path, device: str) -> tuple[Path, dict[str, str]]:
    """Where the rows of this machine lie, and the columns that all of them share."""
    shared = environment(device)
    place = folder / slug(shared["machine"])
    return (place / shared["isa"] if device == "cpu" else place), shared


class Running:
    """The rows of a run that is not over, each on the disk as soon as it is read: in a file of their own,
    DATE-COMMIT-partial-unfinished.csv, made with the first of them. It is what is left of a run that is
    stopped; one that ends writes all of its rows with `write`, and removes it.

    output: a new file that gets the rows instead; it stays, and needs no `write`. Raises OSError where it is
    there already or cannot be made."""

    def __init__(
        self, folder: Path | None = None, suffix: str = "", device: str = "cpu", output: Path | None = None
    ):
        self.folder, self.suffix, self.device, self.output = folder, suffix, device, output
        self.path: Path | None = None
        self._open, self._add = ExitStack(), None
        self._seen: dict[int, Row] = {}  # by id, and held, so that no other row gets that

    def __enter__(self) -> Running:
        if self.output is not None:
            file = self._open.enter_context(self.output.open("x", newline=""))
            self.path, self._add = self.output, adder(file, NAMES, environment(self.device))
        _running.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _running.remove(self)
        self._open.close()

    def saw(self, rows: Iterable[Row]) -> None:
        """Writes those that it has not seen yet."""
        new = [entry for entry in rows if id(entry) not in self._seen]
        if not new:
            return
        if self._add is None:
            place, shared = place_of(self.folder or RESULTS, self.device)
            suffix = f"-partial-unfinished{self.suffix}"
            self.path, self._add = self._open.enter_context(new_file(NAMES, place, shared, suffix))
        self._add(map(asdict, new))
        self._seen |= {id(entry): entry for entry in new}

    def remove(self) -> None:
        """Of a run whose rows are written elsewhere, or that nobody wants to keep."""
        self._open.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            self.path = None


_running: list[Running] = []


def saw(rows: Iterable[Row]) -> None:
    """Tells the run that is going on, where there is one, of rows that were read just now."""
    for each in _running:
        each.saw(rows)


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
