"""Tables of text: which sign parts their columns, whether they are headed, which columns hold numbers.

pandas parses. What stands in a table is found here, because no reader finds it safely: pandas' and Python's
own sniffers read `0,5;0,25` as three columns, and DuckDB's leaves out rows of another length without a word.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .._optional import needed
from .encodings import marked
from .kinds import kind_of
from .paths import path_of

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
SPACES = "spaces"  # a delimiter: any run of white space
_DELIMITERS = {",": ",", ";": ";", "\t": "\t", "|": "|", SPACES: r"\s+"}
_NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": SPACES, " ": SPACES}
_MISSING = {
    "",
    "-",
    "--",
    "?",
    ".",
    "na",
    "n/a",
    "#n/a",
    "nan",
    "-nan",
    "null",
    "none",
    "nil",
    "<na>",
    "missing",
}
_TEXT, _NAME = "text", 40  # the column that is read where none is named; letters of a name that are shown
_LOOKED_AT = 1000  # lines by which a delimiter is judged


@dataclass(frozen=True)
class Table:
    """The columns of numbers of a table.

    names: theirs; "0", "1", ... where the table has no header. values: float64 [rows, columns], all finite.
    left_out: each column that is none of numbers, with a cell of it. notes: how the table was read where that
    is not plain: another delimiter than a comma, a decimal comma, a header that is made of numbers.

    Nothing is raised here: ``read_table`` checks.
    """

    names: tuple[str, ...]
    values: np.ndarray
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_table(
    path: str | os.PathLike[str],
    argument: str = "path",
    *,
    delimiter: str | None = None,
    decimal: str | None = None,
    header: bool | None = None,
) -> Table:
    """The numbers in a .csv or .tsv file; lines that begin with # are remarks.

    delimiter: "," ";" "|", a tab ("tab"), "spaces" for any run of them, or another single character; by
    default the one that parts every line into the same number of columns, most of them numbers. decimal: "."
    or ","; by default whichever makes more cells numbers. header: whether the first row holds names; by
    default it does where none of its cells is a number and a later row has one, or where its cells are all
    different and stand above numbers of another kind or magnitude (years above amounts).

    A column without any number (dates, "1,000") is left out and said so in `Table.left_out`. In a column of
    numbers every cell must hold a finite one: gaps (empty, NA, NaN, -, ?, null and the like) raise.

    Raises OSError for what cannot be read and ValueError for what is no such table; messages begin with
    ``argument`` and name row and column. ModuleNotFoundError where pandas is missing.

    path: of the file.
    """
    text, encoding = _decoded(path, argument)
    asked = _asked_delimiter(delimiter)
    if (named := re.match(r"sep=(.)\n", text)) is not None:  # as spreadsheets write it
        asked, text = asked or named[1], text[named.end() :]
    text = "\n".join(line for line in text.split("\n") if not _is_remark(line))
    if decimal not in (None, ".", ","):
        raise ValueError(f"decimal: expected '.' or ',', got {decimal!r}")
    if asked is None:
        asked = _find_delimiter(text, decimal)
    if asked == decimal == ",":
        raise ValueError(f"{argument}: {path}: a comma cannot be delimiter and decimal mark at once")
    cells = _parse(text, asked, path, argument)
    decimals = [decimal] if decimal else (["."] if asked == "," else [".", ","])
    readings = {mark: _as_numbers(cells, mark) for mark in decimals}
    mark = max(readings, key=lambda one: int(np.isfinite(readings[one]).sum()))  # ".", where both do
    numbers = readings[mark]
    headed = _is_headed(cells, numbers) if header is None else header
    names = [cell.strip() for cell in cells[0]] if headed else [str(i) for i in range(cells.shape[1])]
    unnamed = not names[0]
    names = [name or f"column {i + 1}" for i, name in enumerate(names)]
    first = [cell for cell in cells[0] if _is_number(cell, mark)] if headed else []
    if headed:
        cells, numbers = cells[1:], numbers[1:]
    if not len(cells) or (len(cells) == 1 and not headed and not np.isfinite(numbers).any()):
        raise ValueError(f"{argument}: {path} holds names but no values")
    kept, left_out = _columns_of_numbers(names, cells, numbers, counted=headed and unnamed)
    left_out = [f"{path}: {each}" for each in left_out]
    if not kept:
        raise ValueError(f"{argument}: {path}: no column holds numbers: {_briefly(left_out)}")
    if missing := _missing(names, cells, numbers, kept):
        if missing.is_empty:
            _check_widths(text, asked, path, argument)
        raise ValueError(f"{argument}: {path}: {missing.said}")
    notes = ["it is not UTF-8, and was read as Windows-1252"] if encoding == "cp1252" else []
    if asked != ",":
        notes.append(f"columns are parted by {_spoken(asked)}")
    if mark == ",":
        notes.append("a comma is the decimal mark")
    twice = sorted(name for name, count in Counter(names[j] for j in kept).items() if count > 1)
    if twice:
        notes.append(f"several columns have one name: {', '.join(twice)}")
    if first and header is None:
        notes.append(f"the first row holds names, {first[0].strip()!r} among them")
    return Table(tuple(names[j] for j in kept), numbers[:, kept], tuple(left_out), tuple(notes))


def _columns_of_numbers(
    names: list[str], cells: Any, numbers: Any, *, counted: bool
) -> tuple[list[int], list[str]]:
    """Which columns hold numbers, and why each other one is left out. counted: whether a first column that
    counts the rows is no feature."""
    kept, left_out = [], []
    for j, name in enumerate(names):
        if counted and j == 0 and len(names) > 1 and _counts(numbers[:, 0]):
            left_out.append(f"column 1 has no name, and counts the rows from {numbers[0, 0]:g}")
        elif np.isfinite(numbers[:, j]).any():
            kept.append(j)
        else:
            shown = next((cell for cell in cells[:, j] if not _is_gap(cell)), "")
            why = f"holds no numbers: {shown.strip()!r} and the like" if shown else "holds nothing but gaps"
            left_out.append(f"column {name!r} {why}")
    return kept, left_out


class _Missing(NamedTuple):
    said: str
    is_empty: bool  # whether nothing at all stands there


def _missing(names: list[str], cells: Any, numbers: Any, kept: list[int]) -> _Missing | None:
    """What is said of the first cell among numbers that is none; None where all are."""
    wrong = np.argwhere(~np.isfinite(numbers[:, kept]))
    if not len(wrong):
        return None
    i, j = int(wrong[0, 0]), kept[int(wrong[0, 1])]
    found = cells[i, j].strip()
    came = repr(found) + (" (a gap)" if _is_gap(found) else "")
    rows = len(set(wrong[:, 0].tolist()))
    which = f"{rows:,} rows that lack something" if rows > 1 else "row"
    return _Missing(
        f"column {names[j]!r}, row {i + 1} of values: expected a finite number, got {came}; fill in what is "
        f"missing, or drop the {which} of {len(cells):,}",
        not found,
    )


def read_text_column(
    path: str | os.PathLike[str], column: str | None, argument: str = "path"
) -> tuple[list[str], tuple[str, ...]]:
    """The cells of a column of a .csv or .tsv file whose first row holds names, by default of "text", and
    remarks on how they were read. Errors as in `read_table`; ValueError too, naming those that there are,
    where there is no column of that name."""
    text, encoding = _decoded(path, argument)
    lines = _parse(text, _find_delimiter(text, None), path, argument)
    names = [cell.strip() for cell in lines[0]]
    wanted = _TEXT if column is None else column
    if wanted not in names:
        there = ", ".join(name[:_NAME] for name in names)
        if column is None:
            raise ValueError(
                f"{argument}: {path} is a table: --column says which of its columns is the text, of {there}; "
                "to read all of it as it is, commas too, name it .txt"
            )
        raise ValueError(f"{argument}: {path} has no column {column!r}: {there}; --column names one of them")
    if names.count(wanted) > 1:
        raise ValueError(f"{argument}: {path} has {names.count(wanted)} columns named {wanted!r}")
    notes = ["it is not UTF-8, and was read as Windows-1252"] if encoding == "cp1252" else []
    if column is None:
        notes.append(f"{path}: the column {wanted!r} is read, of {', '.join(names)}; --column names another")
    return list(lines[1:, names.index(wanted)]), tuple(notes)


# ---- parts ------------------------------------------------------------------------------------------


def _decoded(path: str | os.PathLike[str], argument: str) -> tuple[str, str]:
    """The text, and the encoding that it is in."""
    try:
        content = path_of(path, argument).read_bytes()
    except OSError as error:
        if error.strerror is None:
            raise
        raise type(error)(f"{argument}: cannot read {path}: {error.strerror}") from error
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{argument}: {path} is not gzip, or is cut short: {error}") from error
    if kind := kind_of(content):
        raise ValueError(f"{argument}: {path} is not a table of text, but {kind}")
    encoding = marked(content) or "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig" or 0 in content:
            hint = "" if encoding != "utf-8-sig" else " (UTF-16 without a byte order mark? then convert it)"
            raise ValueError(f"{argument}: {path} is not a table of text: {error}{hint}") from error
        encoding = "cp1252"  # names with accents; numbers are the same in it
        text = content.decode(encoding, "replace")
    if "\0" in text:
        raise ValueError(
            f"{argument}: {path} is not a table of text: character {text.index(chr(0))} is NUL "
            "(UTF-16 without a byte order mark? then convert it)"
        )
    if not text.strip():
        raise ValueError(f"{argument}: {path} is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _asked_delimiter(given: str | None) -> str | None:
    if given is None:
        return None
    found = _NAMES.get(given.lower() if isinstance(given, str) else "", given)
    if not isinstance(found, str) or not (found in _DELIMITERS or (len(found) == 1 and found not in '"\n\r')):
        raise ValueError(f"delimiter: expected one character, 'tab' or 'spaces', got {given!r}")
    return found


def _find_delimiter(text: str, decimal: str | None) -> str:
    """That which parts most lines into one number of columns, more than one; of those, the one by which the
    larger share of cells are numbers; of those, the first of `_DELIMITERS`."""
    lines = text.split("\n", _LOOKED_AT + 1)[:_LOOKED_AT]

    def worth(delimiter: str) -> tuple[bool, float, float]:
        rows = _rows(lines, delimiter)
        columns, count = Counter(map(len, rows)).most_common(1)[0] if rows else (1, 0)
        if columns < 2:
            return (False, 0.0, 0.0)
        cells = [cell for row in rows for cell in row]
        marks = [decimal] if decimal else [".", ","]
        numbers = max(
            sum(_is_number(cell, mark) for cell in cells)
            for mark in marks
            if mark != delimiter or len(marks) == 1
        )
        return (True, round(count / len(rows), 2), numbers / len(cells))

    return max(_DELIMITERS, key=worth)


def _rows(lines: list[str], delimiter: str) -> list[list[str]]:
    try:
        if delimiter == SPACES:
            rows = [line.split() for line in lines]
        else:
            rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return []
    return [row for row in rows if any(cell.strip() for cell in row)]


def _parse(text: str, delimiter: str, path: Any, argument: str) -> np.ndarray:
    """str [rows, columns]."""
    pandas = needed("pandas", "pandas")
    try:
        frame = pandas.read_csv(
            io.StringIO(text),
            sep=_DELIMITERS.get(delimiter, delimiter),
            header=None,
            dtype=str,
            keep_default_na=False,
            na_values=[],
            skipinitialspace=True,
            low_memory=False,
        )
    except pandas.errors.EmptyDataError as error:
        raise ValueError(f"{argument}: {path} is empty") from error
    except pandas.errors.ParserError as error:
        _check_widths(text, delimiter, path, argument)
        raise ValueError(f"{argument}: {path} is not a table of text: {error}") from error
    return frame.to_numpy(dtype=object)


def _check_widths(text: str, delimiter: str, path: Any, argument: str) -> None:
    """pandas fills short rows up, and names the wrong row where quotes hold line ends."""
    widths = [len(row) for row in _rows(text.split("\n"), delimiter)]
    for i, width in enumerate(widths):
        if width != widths[0]:
            raise ValueError(f"{argument}: {path}: expected {widths[0]} columns, got {width} in row {i + 1}")


def _as_numbers(cells: np.ndarray, decimal: str) -> np.ndarray:
    """float64 [rows, columns], NaN for what is no finite number."""
    pandas = needed("pandas", "pandas")
    found = np.empty(cells.shape)
    for j in range(cells.shape[1]):
        column = pandas.Series(cells[:, j], dtype=str).str.strip()
        if decimal == ",":
            column = column.where(~column.str.contains(".", regex=False), "").str.replace(
                ",", ".", n=1, regex=False
            )
        found[:, j] = pandas.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    found[~np.isfinite(found)] = np.nan
    return found


def _counts(column: np.ndarray) -> bool:
    """Whether a column is row numbers, from 0 or 1 on, as data frames write them."""
    return len(column) > 1 and column[0] in (0, 1) and bool((np.diff(column) == 1).all())


def _is_headed(cells: np.ndarray, numbers: np.ndarray) -> bool:
    first, rest = numbers[0], numbers[1:]
    is_number = np.isfinite(first)
    below = np.isfinite(rest)
    if not is_number.any():
        return bool(below.any())
    names = [cell.strip() for cell in cells[0]]
    if not len(rest) or len(set(names)) < len(names):
        return False
    titled = [j for j, name in enumerate(names) if not is_number[j] and not _is_gap(name)]
    filled = np.array([[not _is_gap(cell) for cell in row] for row in cells[1:]])
    if any(below[:, j].any() and (below[:, j] == filled[:, j]).all() for j in titled):
        return True  # a word above nothing but numbers
    columns = [j for j in range(len(names)) if is_number[j]]
    if not all(float(first[j]).is_integer() and below[:, j].any() for j in columns):
        return False
    steps = np.diff(first[columns])
    evenly_spaced = bool(len(columns) > 1 and steps[0] != 0 and (steps == steps[0]).all())
    years = all(1000 <= first[j] <= 2999 for j in columns)
    if not (years and (titled or evenly_spaced)) and not (evenly_spaced and (titled or len(columns) > 2)):
        return False
    return all(_differs(first[j], rest[below[:, j], j]) for j in columns)


def _differs(name: float, values: np.ndarray) -> bool:
    """Whether a whole number stands above values of another kind, or of ten times another magnitude."""
    if not (values == np.round(values)).all():
        return True
    most = float(np.abs(values).max())
    if most == 0 or name == 0:
        return most != abs(name)
    least = float(np.abs(values).min())
    return abs(name) > 10 * most or (least > 0 and abs(name) * 10 < least)


def _is_number(cell: str, decimal: str) -> bool:
    cell = cell.strip()
    if decimal == ",":
        if "." in cell:
            return False
        cell = cell.replace(",", ".", 1)
    try:
        return "_" not in cell and math.isfinite(float(cell))
    except ValueError:
        return False


def _is_remark(line: str) -> bool:
    line = line.lstrip()
    return line.startswith("#") and not line.casefold().startswith("#n/a")


def _is_gap(cell: str) -> bool:
    return cell.strip().casefold() in _MISSING


def _spoken(delimiter: str) -> str:
    return {SPACES: "spaces", "\t": "tabs"}.get(delimiter, repr(delimiter))


def _briefly(lines: list[str]) -> str:
    return "; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")
