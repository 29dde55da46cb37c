"""Files that are there whole or not at all."""

import contextlib
import errno
import os
from pathlib import Path

_ASIDE = ".aside"


def write(path: Path, content: bytes | memoryview | str) -> None:
    """Writes aside, syncs, renames: at every moment `path` holds what it held before or all of `content`.

    Raises OSError naming `path`; it and what lay there are untouched then, and nothing is left aside.
    """
    if isinstance(content, str):
        content = content.encode()
    if path.is_dir() or not path.name:
        raise IsADirectoryError(errno.EISDIR, f"cannot write {path}: {os.strerror(errno.EISDIR)}")
    aside = path.with_name(f".{path.name}.{os.getpid()}{_ASIDE}")
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise type(error)(error.errno, f"cannot write {path}: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clear_aside(folder: Path) -> None:
    """Removes what a process that died while writing left aside."""
    for left in folder.glob(f".*{_ASIDE}"):
        with contextlib.suppress(OSError):
            left.unlink()
