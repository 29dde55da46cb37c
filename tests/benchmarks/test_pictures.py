"""benchmarks/pictures.py: it draws every picture that the pages show, and no other."""

import json
import re
from pathlib import Path

import pictures
import pytest

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_picture_of_the_pages_is_drawn_and_each_is_shown():
    shown = set()
    for page in PAGES:
        links = re.findall(r"!\[[^\]]*\]\(([^)\s]+\.png)\)", page.read_text("utf-8"))
        shown |= {str((page.parent / link).resolve().relative_to(ROOT)) for link in links}
    drawn = pictures.pictures().keys()
    assert shown == set(drawn)
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "docs/pictures").iterdir()}
    assert there == {path for path in drawn if path.startswith("docs/pictures/")}


def test_no_picture_is_wider_than_a_page_shows():
    image = pytest.importorskip("PIL.Image")
    assert {path: size for path in pictures.pictures() if (size := image.open(ROOT / path).width) > 830} == {}


def test_runs_are_of_recipes_whose_task_their_name_begins_with():
    for recipe, _ in pictures.TRAINED.values():
        content = json.loads((ROOT / f"recipes/{recipe}.json").read_text())
        assert content["task"] == recipe.partition("-")[0]


@pytest.mark.parametrize("name", ["text-lstm", "avx512/layers"])
def test_pictures_of_rows_are_the_same_each_time(tmp_path, capsys, name):
    files = []
    for again in "ab":
        assert pictures.main(["--only", name, "--out", str(tmp_path / again), "--runs", "/nowhere"]) == 0
        (path,) = capsys.readouterr().out.split()
        files.append((tmp_path / again / path).read_bytes())
    assert files[0] == files[1] and files[0].startswith(b"\x89PNG")


def test_a_run_is_trained_where_it_is_missing_and_gone_on_with_where_it_is_not_done(tmp_path, monkeypatch):
    calls, own = [], pictures.fusegen
    small = json.loads((ROOT / "recipes/gan-mlp-digits.json").read_text())
    small["fit"]["steps"], small["data"] = 2, {**small["data"], "samples": 50, "batch": 4}
    small["run"] = {**small["run"], "evaluations": 1, "tensorboard": False}
    (tmp_path / "recipes").mkdir()
    recipe = tmp_path / "recipes/gan-small.json"
    recipe.write_text(json.dumps(small))
    monkeypatch.setattr(pictures, "ROOT", tmp_path)
    monkeypatch.setattr(pictures, "platforms", lambda results: [])
    monkeypatch.setattr(
        pictures, "fusegen", lambda arguments: (calls.append(arguments[0]), own(arguments))[1]
    )
    monkeypatch.setattr(
        pictures, "TRAINED", {"a/b.png": ("gan-small", ("--count", "3")), "c.png": ("gan-small", "curves")}
    )
    asked = ["--only", "a/b", "c.png", "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert pictures.main(asked) == 0 and calls == ["train", "sample"]
    assert {p.name for p in (tmp_path / "out").rglob("*.png")} == {"b.png", "c.png"}
    before = (tmp_path / "out/a/b.png").read_bytes()
    assert pictures.main(asked) == 0 and calls == ["train", "sample", "sample"]
    assert (tmp_path / "out/a/b.png").read_bytes() == before
    small["fit"]["lr"], small["model"]["noise"] = 0.5, 7
    recipe.write_text(json.dumps(small))
    with pytest.raises(SystemExit, match=r"other options than .*gan-small.json has \(lr, noise\): remove it"):
        pictures.main(asked)
    assert (tmp_path / "out/a/b.png").read_bytes() == before


def test_an_unknown_picture_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        pictures.main(["--only", "nothing"])
    assert (
        caught.value.code == 2
        and "--only: expected a part of one of docs/pictures" in capsys.readouterr().err
    )
