"""A batch that is larger than the data says so, and what would fit."""

import numpy as np
import pytest
from fusegen.cli import main
from fusegen.train.tasks.batch import check_batch, fitting
from fusegen.train.tasks.text import _that_fit
from runs import refusal


@pytest.mark.parametrize(
    ("count", "fits"), [(1, 1), (3, 1), (7, 1), (8, 2), (31, 4), (120, 16), (10_000, 2048)]
)
def test_what_fits_is_a_few_batches(count, fits):
    assert fitting(count) == fits
    check_batch(count, 64, count, "images")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((64, 64, 40, "pairs"), "batch: the default, 64, is too large for these data: there are 40 pairs to"),
        ((64, 64, 40, "pairs"), "; give --batch 8, 40 at most"),
        ((65, 64, 40, "pairs"), "batch: 65 is too large"),
        ((2, 64, 1, "images"), "there are 1 images to learn from; give --batch 1"),
    ],
)
def test_the_default_is_called_so(given, words):
    with pytest.raises(ValueError) as caught:
        check_batch(*given)
    assert words in str(caught.value)
    with pytest.raises(ValueError, match=r"to learn from \(9 of 49 are held out\); give"):
        check_batch(64, 64, 40, "pairs", held_out=9)


@pytest.mark.parametrize(("count", "batch", "chunk"), [(900, 16, 64), (100, 16, 64), (9, 64, 64), (2, 1, 9)])
def test_what_a_text_has_room_for(count, batch, chunk):
    said = _that_fit(count, batch, chunk)
    if count <= 2:
        assert said == ""
        return
    words = said.split()
    assert int(words[words.index("--batch") + 1]) * int(words[words.index("--chunk") + 1].rstrip(",")) < count


SMALL = {
    "gan": "--arch recurrent --length 5 --data {series}",
    "seqvae": "--data {lines}",
    "seq2seq": "--data {pairs}",
    "vae": "--data {images}",
}


@pytest.mark.parametrize("task", SMALL)
def test_with_the_batch_that_is_named_it_trains(tmp_path, task, capsys):
    for name in ("sacrebleu", "matplotlib", "pandas"):
        pytest.importorskip(name)
    random = np.random.default_rng(0)
    np.save(tmp_path / "series.npy", random.standard_normal((40, 2)).cumsum(0))
    np.save(tmp_path / "images.npy", random.integers(0, 256, (30, 6, 6), dtype=np.uint8))
    (tmp_path / "lines.txt").write_text("".join(f"line {i} of it\n" for i in range(30)))
    (tmp_path / "pairs.tsv").write_text("".join(f"red cat {i}\tcat red {i}\n" for i in range(30)))
    places = {each.stem: each for each in tmp_path.iterdir()}
    words = ["train", task, *SMALL[task].format(**places).split(), "--folder", tmp_path / "run"]
    said = refusal(capsys, *words)
    default = {"gan": 128, "vae": 128}.get(task, 64)
    assert f"--batch: the default, {default}, is too large for these data" in said
    assert (" are held out" in said) == (task != "gan")
    batch = said.split("give --batch ")[1].split(",")[0]
    short = ["--steps", "1", "--evaluations", "1", "--no-tensorboard", "--batch", batch, "--hidden", "4"]
    more = {"gan": ["--score-steps", "2"], "vae": ["--importance", "0"], "seqvae": ["--importance", "0"]}
    assert main([*map(str, words), *short, *more.get(task, [])]) == 0
