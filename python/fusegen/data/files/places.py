"""Sources of data as one may name them from any folder."""

from __future__ import annotations

import os
from collections.abc import Collection

from .hub import FILES


def absolute(source: str, names: Collection[str] = ()) -> str:
    """`source` with the paths in it made absolute, so that it names the same data from any folder.

    names: sources that are no paths, whatever lies in this folder. Paths are what exists here: a file or a
    folder, both parts of "FILE,FILE", the folder of "mo:FOLDER:LANGUAGE", the file of "hf:json:FILE" and the
    folder of "hf:FOLDER". Everything else, and what would not be read back as the same, is left as it is.
    """
    if not source or source in names:
        return source
    if source.startswith("hf:"):
        return _of_hub(source)
    if source.startswith("mo:"):
        folder, _, language = source.removeprefix("mo:").rpartition(":")
        if not folder:  # no language: without the last colon, one in the path would part it
            folder, language = language, ""
        return f"mo:{os.path.abspath(folder)}:{language}" if os.path.isdir(folder) else source
    if os.path.exists(source):
        return os.path.abspath(source)
    sides = source.split(",")
    found = [os.path.abspath(side) for side in sides if side and os.path.exists(side)]
    if len(found) == len(sides) == 2 and not any("," in side for side in found):
        return ",".join(found)
    return source


def _of_hub(source: str) -> str:
    name, colon, rest = source.removeprefix("hf:").partition(":")
    if name in FILES:
        return f"hf:{name}:{os.path.abspath(rest)}" if os.path.exists(rest) else source
    if os.path.isdir(name) and ":" not in os.path.abspath(name):
        return f"hf:{os.path.abspath(name)}{colon}{rest}"
    return source
