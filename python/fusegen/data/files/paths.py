"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit


def source_of(value: object, argument: str) -> str:
    """A source or a path as text. Raises TypeError, beginning with `argument`, for what is neither a str
    nor an os.PathLike of one."""
    found = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(found, str):
        raise TypeError(f"{argument}: expected a path, got {type(value).__name__} {value!r:.60}")
    return found


def path_of(value: object, argument: str, *, new: bool = False) -> Path:
    """The path of a file or a folder, ~ at its beginning being somebody's home.

    Raises TypeError as `source_of`, ValueError for an empty path or one with a NUL, FileNotFoundError, with
    what to do, where there is nothing and it is a URL, a pattern, a variable or "-" for standard input.
    Nothing else is looked for: a path that is not there is the reader's to refuse. new: it is to be written,
    and need not be there.
    """
    text = source_of(value, argument)
    if not text:
        raise ValueError(f"{argument}: expected a path, got an empty one")
    if "\0" in text:
        raise ValueError(f"{argument}: expected a path, got one with a NUL: {text!r}")
    path = Path(text)
    if not os.path.lexists(path):
        try:
            path = path.expanduser()
        except RuntimeError as error:  # ~somebody who is not known
            raise FileNotFoundError(f"{argument}: cannot read {text}: {error}") from error
    if not new and not os.path.lexists(path) and (why := _why_not(text)):
        raise FileNotFoundError(f"{argument}: cannot read {text}: {why}")
    return path


def _why_not(text: str) -> str:
    """What somebody may have meant who names what is not there."""
    if text == "-":
        return "standard input is not read, since a run reads its data again when it goes on; give a file"
    parts = urlsplit(text) if "://" in text else None
    if parts is not None and parts.scheme == "file":
        return f"it is a URL; give the path, {unquote(parts.path)}"
    if parts is not None and parts.scheme in ("http", "https", "ftp", "s3", "gs"):
        return "it is a URL, and nothing is downloaded; give the path of a file"
    if any(sign in text for sign in "*?["):
        return "No such file or directory; patterns are not expanded here: give a folder, or one file"
    if "$" in text:
        return "No such file or directory; variables are not expanded here"
    return ""
