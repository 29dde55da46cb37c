"""What the pages name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files(page):
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose)
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_every_path_of_adding_exists():
    paths = re.findall(r"`([\w.]+(?:/[\w.-]+)+)`", (ROOT / "docs/adding.md").read_text(encoding="utf-8"))
    assert len(paths) > 50 and [path for path in paths if not (ROOT / path).exists()] == []


def test_pictures_lie_in_one_place():
    pictures = {path.parent for path in (ROOT / "docs").rglob("*.png")}
    assert pictures == {ROOT / "docs/pictures"}
