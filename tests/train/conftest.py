"""A text to train on, a run that is over, and the figures that are made."""

import pytest
from fusegen import drawing
from fusegen.cli import main
from runs import QUIET, SHAPE, STORY


@pytest.fixture
def story(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text(STORY, encoding="utf-8")
    return str(path)


@pytest.fixture
def done(tmp_path, story, capsys):
    """A run of four steps, checkpoints after each second one."""
    folder = tmp_path / "done"
    arguments = ["train", "text", *SHAPE, *QUIET, "--data", story, "--steps", "4", "--folder", str(folder)]
    assert main([*arguments, "--tokens", "character"]) == 0
    capsys.readouterr()
    return folder


@pytest.fixture
def figures(monkeypatch):
    """The figures that are made."""
    seen, own = [], drawing.png
    monkeypatch.setattr(drawing, "png", lambda figure: (seen.append(figure), own(figure))[1])
    return seen
