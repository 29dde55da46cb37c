"""Data sets through the `datasets` library, which is imported only where one is asked for."""

import os
from pathlib import Path
from typing import Any

from ..._errors import first_line
from .paths import path_of, source_of

# Loaders of files: hf:parquet:FILE. With any other name the second part is a configuration.
FILES = ("arrow", "csv", "json", "parquet", "text", "xml")
_BY_SUFFIX = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".ndjson": "json"}


def hub_name(source: str | os.PathLike[str], argument: str = "source") -> str | None:
    """`source` as "hf:..." where the `datasets` library reads it: that itself, or a .parquet, .json or .jsonl
    file; None for anything else. Raises OSError, beginning with `argument`, where there is no such file.
    """
    source = source_of(source, argument)
    if source.startswith("hf:"):
        return source
    loader = _BY_SUFFIX.get(Path(source).suffix.lower())
    if loader is None or Path(source).is_dir():
        return None
    try:
        path = path_of(source, argument)
        path.open("rb").close()
    except OSError as error:
        if error.strerror is None:
            raise
        raise type(error)(f"{argument}: cannot read {source}: {error.strerror}") from error
    return f"hf:{loader}:{path}"


def read_hub(source: str, split: str = "train", argument: str = "source", *, streaming: bool = False) -> Any:
    """The data set "hf:NAME", "hf:NAME:CONFIGURATION", or "hf:parquet:FILE" (json, csv, text, arrow too).

    streaming: read while it is gone through, in place of before.
    Raises ValueError, beginning with `argument`, where `datasets` is not installed or cannot load it.
    """
    name, _, rest = source.removeprefix("hf:").partition(":")
    if not name:
        raise ValueError(f"{argument}: expected hf:NAME, got {source!r}")
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"{argument}: {source} needs the datasets library: pip install datasets") from error
    from_files = {"data_files": rest} if name in FILES else {"name": rest or None}
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what is wrong is said below
    try:
        return datasets.load_dataset(name, split=split, streaming=streaming, **from_files)
    except Exception as error:  # it raises those of every library beneath it
        raise ValueError(f"{argument}: cannot load {source}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first cause that says something: the library wraps it."""
    said = first_line(error)
    cause = error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, Exception) and not isinstance(cause, StopIteration):
            said = first_line(cause) or said
        cause = cause.__cause__ or cause.__context__
    return "it is empty" if isinstance(error, StopIteration) or said == "StopIteration" else said


def column_of(rows: Any, column: str, source: str, argument: str) -> list[Any]:
    """A column of what `read_hub` returned. Raises ValueError where there is none of that name."""
    if column not in rows.column_names:
        there = ", ".join(rows.column_names)
        raise ValueError(
            f"{argument}: {source} has no column {column!r}: {there}; --column names one of them"
        )
    return rows[column]


def read_hub_text(source: str, column: str, split: str, argument: str) -> tuple[str, tuple[str, ...]]:
    """The texts of a column, one after another with a blank line between, and remarks. Errors as in
    `read_hub`."""
    rows = column_of(read_hub(source, split, argument), column, source, argument)
    try:
        texts = list(rows)
    except UnicodeDecodeError as error:
        raise ValueError(f"{argument}: {source}: column {column!r} is not UTF-8: {error}") from error
    if wrong := next((type(text).__name__ for text in texts if not isinstance(text, str | None)), None):
        raise ValueError(f"{argument}: {source}: column {column!r} holds {wrong}, not text")
    joined = "\n\n".join(text.strip("\n") for text in texts if text)
    if not joined.strip():
        raise ValueError(f"{argument}: {source}: column {column!r} is empty")
    empty = sum(not text or not text.strip() for text in texts)
    notes = (f"{empty:,} of {len(texts):,} rows have nothing in column {column!r}",) if empty else ()
    return joined, notes
