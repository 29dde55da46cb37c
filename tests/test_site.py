"""The documentation site: it is built without a warning, every page is reached from the first one, and no
link in it leads nowhere. `make docs` installs what this needs; .ci/run runs it there."""

import ast
import logging
import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

mkdocs = pytest.importorskip("mkdocs", reason="mkdocs-material is not installed: make docs")
pytest.importorskip("mkdocstrings", reason="mkdocstrings-python is not installed: make docs")

from site_tools import docstrings, links  # noqa: E402

ROOT = Path(__file__).parent.parent


class Page(HTMLParser):
    """The targets of links and pictures, and the places in a page that links can lead to."""

    def __init__(self, path: Path):
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.places |= {given[name] for name in ("id", "name") if given.get(name)}
        for name in ("href", "src"):
            if given.get(name):
                self.targets.append(given[name])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site. Any warning fails."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("mkdocs").addHandler(handler)
    before = os.getcwd()
    os.chdir(ROOT)  # paths of mkdocs.yml
    try:
        build(load_config("mkdocs.yml", site_dir=str(folder), strict=False))
    finally:
        os.chdir(before)
        logging.getLogger("mkdocs").removeHandler(handler)
    assert said == []
    return folder


def local(page: Path, target: str, folder: Path) -> tuple[Path, str] | None:
    """(file, place) of a link inside the site."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return None
    path = unquote(parts.path)
    file = page if not path else folder / path[1:] if path.startswith("/") else page.parent / path
    return Path(os.path.normpath(file)), unquote(parts.fragment)


@pytest.mark.slow
def test_every_page_is_reached_and_every_link_leads_somewhere(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    nowhere, seen, waiting = [], set(), [site / "index.html"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in pages[page].targets:
            if (found := local(page, target, site)) is None:
                continue
            file, place = found
            file = file / "index.html" if file.is_dir() else file
            known = place in ("", "__codelineno") or file not in pages or place in pages[file].places
            if not file.exists() or not known:
                nowhere.append(f"{page.relative_to(site)}: {target}")
            elif file in pages:
                waiting.append(file)
    assert nowhere == []
    assert {page.name for page in pages.keys() - seen} == {"404.html"}
    assert len(seen) > 40


@pytest.mark.slow
def test_the_reference_shows_an_entry_of_each_kind(site):
    nn = (site / "reference/nn.html").read_text()
    assert 'id="fusegen.nn.LSTM.forward"' in nn and "<code>[L*D, B, P]</code>" in nn
    assert "<code>lengths" in nn and "python/fusegen/nn/lstm.py" in nn  # arguments, and the source
    train = (site / "reference/train.html").read_text()
    assert "Optimiser steps. At least 1." in train  # the help of an option, and its default
    assert "option(" not in train.split('id="fusegen.train.FitOptions"')[1].split("Source code in")[0]


def test_links_out_of_docs():
    assert links.place(ROOT / "README.md") == "index.md"
    assert links.place(ROOT / "docs/guides/terms.md") == "guides/terms.md"
    assert links.place(ROOT / "recipes/vae-digits.json") == "files/recipes/vae-digits.json"
    assert links.place(ROOT / "CONTRIBUTING.md") == "project/CONTRIBUTING.md"
    assert links.place(ROOT / "benchmarks/results/README.md") == "project/benchmarks/results.md"
    text = "[a](b.md#c), [d](https://e.f), `[g](h)`\n```\n[i](j)\n```\n![k](l.png)"
    assert links.changed(text, lambda link: f"../{link}") == text.replace("b.md", "../b.md").replace(
        "l.png", "../l.png"
    )


class Missing:
    """A page of MkDocs's with a link to nothing."""

    def __init__(self, path: Path):
        self.abs_src_path = str(path)


def test_a_link_to_nothing_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(links, "ROOT", tmp_path)
    monkeypatch.setattr(links, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(links, "ALWAYS", ())
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs/page.md"
    page.write_text("[x](../gone.csv) and [y](../docs)")
    pages = type("Files", (), {"documentation_pages": lambda self: [Missing(page)]})()
    with caplog.at_level(logging.WARNING, "mkdocs"):
        links.on_files(pages, None)
    assert caplog.messages == ["docs/page.md links to gone.csv, which is not a file"]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ('option(3, "how many", least=1)', "How many. At least 1."),
        ('option(0.1, "share", least=0, most=1, open_below=True)', "Share. Above 0. At most 1."),
        ('option("a", "which", CHOICES)', "Which. One of `CHOICES`."),
        ("option(3, help=TEXT)", None),
    ],
)
def test_help_of_an_option(call, text):
    assert docstrings.described(ast.parse(call, mode="eval").body) == text


def test_shapes_and_arguments_are_marked():
    assert (
        docstrings.with_shapes("x [L*D, B], `[a]`, [b](c) and w[0]") == "x `[L*D, B]`, `[a]`, [b](c) and w[0]"
    )
    text = "steps: T. stride, at: of a window.\nArgs:\n    steps: as above. Their steps: no."
    marked = "`steps`: T. `stride`, `at`: of a window.\nArgs:\n    steps: as above. Their steps: no."
    assert docstrings.with_names(text, ["steps", "stride", "at"]) == marked
    assert docstrings.with_names("x: y", []) == "x: y"
