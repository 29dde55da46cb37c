"""Data sets through the `datasets` library, which is imported only where one is asked for."""

from typing import Any

# Loaders of files: hf:parquet:FILE. With any other name the second part is a configuration.
_FILES = ("arrow", "csv", "json", "parquet", "text", "xml")


def read_hub(source: str, split: str = "train", argument: str = "source") -> Any:
    """The data set "hf:NAME", "hf:NAME:CONFIGURATION", or "hf:parquet:FILE" (json, csv, text, arrow too).

    Raises ValueError, beginning with `argument`, where `datasets` is not installed or cannot load it.
    """
    name, _, rest = source.removeprefix("hf:").partition(":")
    if not name:
        raise ValueError(f"{argument}: expected hf:NAME, got {source!r}")
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"{argument}: {source} needs the datasets library: pip install datasets") from error
    from_files = {"data_files": rest} if name in _FILES else {"name": rest or None}
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, split=split, **from_files)
    except Exception as error:  # it raises those of every library beneath it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{argument}: cannot load {source}: {reason}") from error


def column_of(rows: Any, column: str, source: str, argument: str) -> list[Any]:
    """A column of what `read_hub` returned. Raises ValueError where there is none of that name."""
    if column not in rows.column_names:
        there = ", ".join(rows.column_names)
        raise ValueError(f"{argument}: {source} has no column {column!r}: {there}")
    return rows[column]


def read_hub_text(source: str, column: str, split: str, argument: str) -> str:
    """The texts of a column, one after another with a blank line between. Errors as in `read_hub`."""
    texts = list(column_of(read_hub(source, split, argument), column, source, argument))
    if wrong := next((type(text).__name__ for text in texts if not isinstance(text, str | None)), None):
        raise ValueError(f"{argument}: {source}: column {column!r} holds {wrong}, not text")
    joined = "\n\n".join(text.strip("\n") for text in texts if text)
    if not joined.strip():
        raise ValueError(f"{argument}: {source}: column {column!r} is empty")
    return joined
