"""recipes/: the options of every trained result in the docs, as `fusegen train --config` reads them."""

import json
import re
from pathlib import Path

import pytest
from fusegen.cli import main
from fusegen.train import config
from fusegen.train.tasks import find_task

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.json"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_holds_every_option_and_is_what_a_run_would_write_down(path, tmp_path, capsys):
    content = json.loads(path.read_text())
    task = find_task(content["task"])
    for section, options in config.classes(task).items():
        assert content[section].keys() == options.__dataclass_fields__.keys(), section
    saved = tmp_path / "saved.json"
    assert main(["train", content["task"], "--config", str(path), "--save-config", str(saved)]) == 0
    assert saved.read_text() == path.read_text()
    assert path.stem.startswith(content["task"])


def test_the_docs_link_to_every_recipe_and_to_no_other():
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    named = {
        name for page in pages for name in re.findall(r"recipes/([\w-]+\.json)", page.read_text("utf-8"))
    }
    assert named == {path.name for path in RECIPES}
