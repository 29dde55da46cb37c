"""Pieces of Markdown: tables, and what stands in their cells."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from statistics import geometric_mean


def spread(values: Iterable[float]) -> str:
    """Geometric mean and range, a losing end in bold."""
    values = list(values)
    if not values:
        return "–"
    low = f"{min(values):.2f}"
    if min(values) < 1:
        low = f"**{low}**"
    return f"{geometric_mean(values):.2f}× ({low}–{max(values):.2f})"


def table(head: list[str], lines: list[list[str]]) -> list[str]:
    """Markdown."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines)]


def short(values: Iterable[float]) -> str:
    """Geometric mean and the smallest, in bold where it is a loss."""
    values = list(values)
    if not values:
        return "–"
    low = f"{min(values):.2f}"
    return f"{geometric_mean(values):.2f} ({low if min(values) >= 1 else f'**{low}**'})"


def link(path: Path, page: Path) -> str:
    """From a page of this repository to a file of it."""
    return Path(os.path.relpath(path, page.parent)).as_posix()


def joined(parts: Iterable[list[str]]) -> str:
    """Blocks of lines with an empty line between; an empty block is left out."""
    return "\n\n".join("\n".join(lines) for lines in parts if lines)
