"""What runs are trained on, a run that is over, and the figures that are made."""

import signal

import numpy as np
import pytest
from fusegen import drawing
from fusegen.cli import main
from runs import QUIET, SHAPE, STORY


@pytest.fixture(autouse=True)
def hangups_arrive():
    """SIGHUP is not ignored, as it is by all that was begun with nohup: runs would leave that so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


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


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Data by kind: pictures of 3 classes in folders, as an array, a series, a text."""
    image = pytest.importorskip("PIL.Image")
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for i in range(24):
        folder = root / "pictures" / ("red", "green", "blue")[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 90, (9, 8, 3), dtype=np.uint8)
        pixels[..., i % 3] += 150
        image.fromarray(pixels).save(folder / f"{i}.png")
    np.save(root / "pictures.npy", random.integers(0, 256, (24, 8, 8), dtype=np.uint8))
    np.save(root / "series.npy", random.standard_normal((60, 3)).cumsum(0))
    (root / "text.txt").write_text("the cat sat on the mat; " * 8)
    kinds = {"mlp": "pictures.npy", "dcgan": "pictures", "series": "series.npy", "text": "text.txt"}
    return {kind: str(root / name) for kind, name in kinds.items()}
