"""A table is no text: a column of it is, which is named, or else is "text", and said."""

import pytest
from fusegen.cli import main
from fusegen.data import open_text, read_pairs, read_text
from runs import QUIET, SHAPE, refusal

pytest.importorskip("pandas")
ROWS = [("5", "a fine day", "good"), ("1", "rain, and wind", "bad")] * 60


def written(tmp_path, name, names=("stars", "review", "text")):
    sign = "\t" if name.lower().endswith(".tsv") else ","
    quoted = lambda cell: f'"{cell}"' if sign in cell else cell
    lines = [sign.join(map(quoted, row)) for row in (names, *ROWS)]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    return tmp_path / name


def read(text):
    return bytes(text.tokens.numpy()).decode()


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.CSV", "x.Tsv"])
def test_a_column_is_read_and_said(tmp_path, name):
    path = written(tmp_path, name)
    assert read(open_text(path, column="review")).split("\n\n")[:2] == ["a fine day", "rain, and wind"]
    usual = open_text(path)
    assert read(usual).startswith("good\n\nbad\n\ngood")
    assert usual.notes == (
        f"{path}: the column 'text' is read, of stars, review, text; --column names another",
    )


@pytest.mark.parametrize("name", ["x.csv", "x.TSV", "x.jsonl", "x.JSONL", "x.ndjson"])
@pytest.mark.parametrize("task", ["text", "seqvae"])
def test_without_a_column_it_is_refused_naming_them(tmp_path, capsys, name, task):
    if "js" in name.lower():
        pytest.importorskip("datasets")
        path = tmp_path / name
        path.write_text('{"stars": 1, "review": "a"}\n' * 9)
    else:
        path = written(tmp_path, name, ("stars", "review", "mood"))
    said = refusal(capsys, "train", task, "--data", path, "--folder", tmp_path / "run")
    assert "stars, review" in said and "--column" in said and not (tmp_path / "run").exists()


def test_a_run_says_which_column_it_read(tmp_path, capsys):
    path = written(tmp_path, "x.csv")
    how = [*SHAPE, *QUIET, "--steps", "1", "--folder", str(tmp_path / "run"), "--data", str(path)]
    assert main(["train", "text", *how]) == 0
    assert f"data      {path}: the column 'text' is read, of stars," in capsys.readouterr().out


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = written(tmp_path, "x.csv", ("text", "review", "text"))
    with pytest.raises(ValueError, match="has 2 columns named 'text'"):
        open_text(path)


def test_what_is_read_as_it_is_says_so(tmp_path):
    path = written(tmp_path, "x.csv")
    assert "is read as it is, signs between columns and all" in read_text(path).notes[0]
    (tmp_path / "a.txt").write_text("some text")
    found = open_text(tmp_path)
    assert "1 of 2 files are read as they are" in found.notes[0] and str(path) in found.notes[0]
    path.unlink()
    assert open_text(tmp_path).notes == ()


def test_pairs_say_which_columns_are_left_out(tmp_path):
    assert read_pairs(written(tmp_path, "x.tsv")).skipped == (
        f"what {tmp_path / 'x.tsv'} has after its first two columns",
    )
    (tmp_path / "b.TSV").write_text("a\tb\n")
    assert read_pairs(tmp_path / "b.TSV").skipped == ()
