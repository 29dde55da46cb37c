"""Whatever takes a path takes a str and an os.PathLike, and says what it takes where it is given another."""

import os
from pathlib import Path

import numpy as np
import pytest
from fusegen import data
from fusegen.data.files.paths import path_of
from fusegen.train import Run
from fusegen.train.run import read_log
from runs import run_of


class Named(os.PathLike):
    """Neither a str nor a Path."""

    def __init__(self, path):
        self.path = str(path)

    def __fspath__(self):
        return self.path


@pytest.fixture
def there(tmp_path):
    """A file or a folder of each kind, by the function that reads it."""
    (tmp_path / "a.txt").write_text("some text\nin lines\n")
    (tmp_path / "a.tsv").write_text("one\ttwo\nthree\tfour\n")
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4\n")
    (tmp_path / "a.jsonl").write_text('{"text": "first"}\n{"text": "second"}\n')
    np.save(tmp_path / "ids.npy", np.arange(9))
    np.save(tmp_path / "images.npy", np.zeros((2, 4, 4), np.uint8))
    (tmp_path / "vocabulary.json").write_text(data.Vocabulary("ids", size=7).to_json())
    run_of(tmp_path / "run")
    return tmp_path


READERS = {
    "read_text": (data.read_text, "a.txt"),
    "open_text": (data.open_text, "a.txt"),
    "read_pairs": (data.read_pairs, "a.tsv"),
    "read_table": (data.read_table, "a.csv"),
    "read_series": (lambda path: data.read_series(path, 1), "a.csv"),
    "read_array": (data.read_array, "ids.npy"),
    "read_tokens": (data.read_tokens, "ids.npy"),
    "read_images": (data.read_images, "images.npy"),
    "Vocabulary.load": (data.Vocabulary.load, "vocabulary.json"),
    "Run.open": (Run.open, "run"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_path_is_a_str_or_a_path_like(there, name, monkeypatch):
    if name in ("read_table", "read_series"):
        pytest.importorskip("pandas")
    read, file = READERS[name]
    for path in (there / file, str(there / file), Named(there / file)):
        assert read(path) is not None
    if name != "Vocabulary.load":  # which reads what a run wrote
        monkeypatch.setenv("HOME", str(there))
        assert read(f"~/{file}") is not None


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("path", [None, 3, b"a.txt", ["a.txt"]], ids=repr)
def test_another_type_is_refused_by_name(name, path):
    with pytest.raises(TypeError, match=r"^(path|source|folder): expected a path, got "):
        READERS[name][0](path)


def test_a_run_takes_str_wherever_it_takes_a_path(there, capsys):
    pytest.importorskip("safetensors")
    pytest.importorskip("matplotlib")
    run = Run.open(str(there / "run"))
    made = Run.create(str(there / "other"), run.task_name, run.sections)
    assert made.folder == there / "other" and read_log(str(there / "other")) == []
    (there / "run/log.jsonl").write_text('{"step": 1, "seconds": 1.0, "loss": 2.0}\n')
    assert run.save_curves(str(there / "c.png")) == there / "c.png" and (there / "c.png").exists()
    model = run.task(data=True).model
    assert run.export(model, str(there / "w.safetensors")).exists()
    assert run.export(model, Named(there / "[w].safetensors")).exists()  # new: no pattern
    with pytest.raises(TypeError, match=r"^path: expected a path, got int 3"):
        run.export(model, 3)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("-", "standard input is not read"),
        ("file:///data/my%20text.txt", "it is a URL; give the path, /data/my text.txt"),
        ("https://example.org/a.txt", "nothing is downloaded"),
        ("*.txt", "patterns are not expanded here: give a folder, or one file"),
        ("$HOME/a.txt", "variables are not expanded here"),
        ("~nobody-of-that-name/a.txt", "cannot read ~nobody-of-that-name/a.txt: "),
    ],
)
def test_what_was_meant_is_said(path, words):
    for read in (data.read_text, data.open_text, data.read_series, data.read_images, data.read_array):
        with pytest.raises(FileNotFoundError) as caught:
            read(path)
        assert str(caught.value).startswith(("path: cannot read", "source: cannot read"))
        assert words in str(caught.value)


def test_a_path_of_odd_letters_that_is_there_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-", "*.txt", "$HOME", "~", "a b\nc.txt", "zwölf 漢字.txt"):
        Path(tmp_path, name).write_text("text")
        assert path_of(name, "path") == Path(name)
        assert bytes(data.read_text(name).tokens.numpy()) == b"text"
    for wrong, words in (("", "got an empty one"), ("a\0b", "got one with a NUL")):
        with pytest.raises(ValueError, match=f"^x: expected a path, {words}"):
            path_of(wrong, "x")
