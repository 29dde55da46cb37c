"""Options that change nothing beside others, each with the reason: what tasks share of it."""

from __future__ import annotations

from ...data.files import tables

_ROWS = (".parquet", ".json", ".jsonl", ".ndjson")  # files that the `datasets` library reads
_ARRAYS = (".npy", ".npz")


def of_rows(source: str, *, rows: bool = True) -> dict[str, str]:
    """--column and --split of a source. rows: whether files and tables of rows of text are read."""
    found, end = {}, source.lower()
    hub = source.startswith("hf:")
    has_columns = hub or end.endswith(".npz") or (rows and end.endswith((*_ROWS, *tables.SUFFIXES)))
    if not has_columns:
        kinds = "an hf: data set, rows (.parquet, .json, .csv)" if rows else "an hf: data set"
        found["column"] = f"only {kinds} or an .npz has columns, {source} has none"
    if not hub and not (rows and end.endswith(_ROWS)):
        found["split"] = f"only an hf: data set has parts by name, {source} has none"
    return found


def of_vocabulary(tokens: str, source: str = "") -> dict[str, str]:
    """--vocabulary beside --tokens."""
    if source.lower().endswith(_ARRAYS):
        return {"vocabulary": f"{source} holds numbers of tokens, however many there are"}
    if tokens in ("character", "word"):
        return {}
    whose = "all 256 bytes are kept" if tokens == "byte" else f"{tokens} brings its own"
    return {"vocabulary": f"with --tokens {tokens}, {whose}"}
