"""The files below a folder that are somebody's data."""

from __future__ import annotations

import os
from pathlib import Path

# What operating systems and tools leave among data.
_LITTER = {
    "__MACOSX", "__pycache__", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found",
    "Thumbs.db", "desktop.ini",
}  # fmt: skip


def files_below(folder: Path) -> tuple[list[Path], list[str]]:
    """All files, those of a folder before those of its subfolders, both by name; and what was passed over,
    with the reason.

    Symbolic links to folders are followed, unless they lead back to a folder that they lie in. Hidden files
    and known litter are passed over without a word, hidden folders and folders of litter are named.
    Raises OSError for a folder that cannot be read.
    """
    found: list[Path] = []
    skipped: list[str] = []
    _walk(folder, (os.path.realpath(folder),), found, skipped)
    return found, skipped


def _walk(folder: Path, inside: tuple[str, ...], found: list[Path], skipped: list[str]) -> None:
    with os.scandir(folder) as entries:
        folders: list[os.DirEntry[str]] = []
        others: list[os.DirEntry[str]] = []
        for entry in sorted(entries, key=lambda each: each.name):
            (folders if entry.is_dir() else others).append(entry)
    for entry in others:
        if entry.name.startswith(".") or entry.name in _LITTER:
            continue
        if entry.is_file():
            found.append(folder / entry.name)
        else:
            gone = entry.is_symlink() and not os.path.exists(entry.path)
            skipped.append(f"{entry.path} {'is a link to nothing' if gone else 'is not a regular file'}")
    for entry in folders:
        if entry.name.startswith(".") or entry.name in _LITTER:
            why = "is hidden" if entry.name.startswith(".") else "is no data, but left by a program"
            skipped.append(f"{entry.path} {why}")
            continue
        real = os.path.realpath(entry.path)
        if real in inside:
            skipped.append(f"{entry.path} is a link that leads back to {real}")
            continue
        _walk(folder / entry.name, (*inside, real), found, skipped)
