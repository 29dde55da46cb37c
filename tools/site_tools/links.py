"""MkDocs hook: links that leave docs/ resolve in the site too.

Pages link to files as they lie in the repository, so that the links work wherever the repository is read. A
link to a file outside docs/ (a recipe, a results file, CONTRIBUTING.md) makes that file part of the site:
Markdown as a page below project/, anything else as it is below files/. README.md, whose place docs/index.md
takes, is that page. A link to a file that is not there, or to a folder, is a warning, and fails a strict
build.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
HOME = ROOT / "README.md"
ALWAYS = (ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")  # whether or not a page links to them
log = logging.getLogger("mkdocs.hooks.links")

CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.S | re.M)
LINK = re.compile(r"(\]\()([^)#\s]+)([^)\s]*\))")


def place(path: Path) -> str:
    """Where a file of the repository lies in the site's sources."""
    if path == HOME:
        return "index.md"
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    if path.name == "README.md":  # no index of a folder
        path = path.parent.with_suffix(".md")
    inside = path.relative_to(ROOT).as_posix()
    return f"project/{inside}" if path.suffix == ".md" else f"files/{inside}"


def local(link: str) -> bool:
    return "://" not in link and not link.startswith(("mailto:", "/"))


def changed(text: str, change: Callable[[str], str]) -> str:
    """``text`` with each link's target changed; code stays as it is."""
    done, out = 0, []

    def links(prose: str) -> str:
        return LINK.sub(lambda m: m[1] + (change(m[2]) if local(m[2]) else m[2]) + m[3], prose)

    for code in CODE.finditer(text):
        out += [links(text[done : code.start()]), code[0]]
        done = code.end()
    return "".join([*out, links(text[done:])])


def linked(page: Path) -> list[Path]:
    """The files that a page links to."""
    found: list[str] = []
    changed(page.read_text(encoding="utf-8"), lambda link: (found.append(link), link)[1])
    return [Path(os.path.normpath(page.parent / link)) for link in found]


def on_files(files: Files, config: Any) -> Files:
    """Adds what pages link to outside docs/, and what those pages link to in turn."""
    pages = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    waiting = [(DOCS, path) for path in ALWAYS] + [
        (page, target) for page in pages for target in linked(page)
    ]
    seen = {HOME}
    while waiting:
        page, target = waiting.pop()
        if target in seen or target.is_relative_to(DOCS):
            continue
        seen.add(target)
        if not target.is_file():
            log.warning(
                "%s links to %s, which is not a file", page.relative_to(ROOT), target.relative_to(ROOT)
            )
            continue
        files.append(File.generated(config, place(target), abs_src_path=str(target)))
        if target.suffix == ".md":
            waiting += [(target, further) for further in linked(target)]
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns a page's links into those between the site's sources."""
    source = Path(page.file.abs_src_path)
    above = Path(page.file.src_uri).parent

    def change(link: str) -> str:
        target = Path(os.path.normpath(source.parent / link))
        return os.path.relpath(place(target), above)

    return changed(markdown, change)
