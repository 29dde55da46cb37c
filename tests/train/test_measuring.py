"""What `fusegen evaluate` says while it measures, and of each measure which way is better."""

import io
import sys

import numpy as np
import pytest
from fusegen.cli import main
from fusegen.train.progress import Measuring
from fusegen.train.watching.telling import direction


def test_a_line_at_once_and_then_every_few_seconds():
    said, now = [], [0.0]
    told = Measuring(said.append, clock=lambda: now[0])
    for done, seconds in enumerate((0, 1, 4.9, 10, 12)):
        now[0] = seconds
        told(f"network {done}", done, 5)
    told.close()
    assert said == [
        "  measuring network 0, part 1 of 5",
        "  measuring network 3, part 4 of 5, about 0:07 left",
    ]


def test_on_a_terminal_it_is_a_bar(monkeypatch):
    pytest.importorskip("tqdm")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    told = Measuring()
    told("scores", 1, 4)
    told.close()
    assert "measuring scores:  25%" in sys.stderr.getvalue() and "\n" not in sys.stderr.getvalue()


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("held-out bits per character", "lower is better"),
        ("discriminative score", "lower is better"),
        ("discriminative score (wide judge)", "lower is better"),
        ("discriminative score (wide judge), deviation", ""),
        ("predictive score of the data", ""),
        ("predictive score of a Gaussian fit", ""),
        ("log-spectral distance of an AR(16) fit", ""),
        ("unique share of a bigram model", ""),
        ("BLEU", "higher is better"),
        ("BLEU of the sources", ""),
        ("digits Frechet distance", "lower is better"),
        ("of a Gaussian fit's", "lower is better"),
        ("KL", ""),
        ("exact %", "higher is better"),
    ],
)
def test_the_direction_of_a_measure(name, way):
    assert direction(name) == way


def test_a_gan_of_series_tells_what_it_measures(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("fusegen.train.progress.WAITED", 0.0)
    np.save(tmp_path / "s.npy", np.random.default_rng(0).standard_normal((60, 2)).cumsum(0))
    shape = ["--arch", "recurrent", "--hidden", "4", "--length", "5", "--batch", "8", "--score-steps", "2"]
    how = ["--steps", "1", "--evaluations", "1", "--no-tensorboard", "--folder", str(tmp_path / "run")]
    assert main(["train", "gan", *shape, *how, "--data", str(tmp_path / "s.npy")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--score-steps", "2", "--repeats", "2"]) == 0
    out, err = capsys.readouterr()
    assert "measuring discriminative score, part 1 of 10" in err
    assert "measuring predictive score of the data, part 10 of 10, about " in err
    lines = out.splitlines()
    assert lines[:2] == ["step  1 of 1, best", "scores are by networks of 2 steps (--score-steps)"]
    assert lines[2].startswith("discriminative score  0") and lines[2].endswith("  (lower is better)")
    assert [x for x in lines if x.startswith("predictive score of the data  ") and "better" not in x]


@pytest.mark.parametrize("name", ["held-out text"])
def test_a_text_model_tells_too(done, capsys, monkeypatch, name):
    monkeypatch.setattr("fusegen.train.progress.WAITED", 0.0)
    assert main(["evaluate", str(done)]) == 0
    out, err = capsys.readouterr()
    assert f"measuring {name}, part 1 of " in err and "(lower is better)" in out
