"""`fusegen train`, `sample`, `evaluate` and `export` on text: a run from the command line."""

import json
import math
import os
import re

import numpy as np
import pytest
import torch
from fusegen.cli import main
from fusegen.data import read_text
from fusegen.train import TextOptions, TextTask
from fusegen.train.run import read_log
from fusegen.train.tasks.text import BITS
from runs import (
    QUIET,
    SHAPE,
    SMALL,
)
from tolerances import near


def test_a_run_is_a_folder_that_samples_evaluates_and_exports(tmp_path, story, capsys):
    folder = tmp_path / "run"
    arguments = ["train", "text", *SHAPE, *QUIET, "--data", story, "--steps", "6", "--ema", "0.5"]
    assert main([*arguments, "--folder", str(folder), "--tokens", "character", "--keep", "1"]) == 0
    assert "done:" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "log.jsonl", "vocabulary.json", "prompt.txt", "checkpoints", "samples")
    }
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.pt", "step-00000006.pt"}
    lines = read_log(folder)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    measured = [line for line in lines if BITS in line]
    assert [line["step"] for line in measured] == [0, 3, 6] and "perplexity" in measured[0]
    assert len((folder / "samples/step-00000006.txt").read_text()) > 20 and len(lines) == 9

    assert main(["evaluate", str(folder), "--checkpoint", "last"]) == 0
    assert f"{BITS}  {measured[-1][BITS]:.6g}" in capsys.readouterr().out  # those of the averaged weights

    os.remove(story)  # a sample needs no data
    assert main(["sample", str(folder), "--length", "20", "--prompt", "a short", "--seed", "3"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("a short") and len(first) == len("a short") + 20 + 1
    out = tmp_path / "out.txt"
    assert (
        main(
            ["sample", str(folder), "--length", "20", "--prompt", "a short", "--seed", "3", "--out", str(out)]
        )
        == 0
    )
    assert out.read_text() + "\n" == first
    with pytest.raises(SystemExit):
        main(["sample", str(folder), "--help"])
    shown = capsys.readouterr().out
    assert "--prompt" in shown and "--top-p" in shown

    pytest.importorskip("safetensors")
    assert main(["export", str(folder)]) == 0
    assert (folder / "model.safetensors").stat().st_size > 1000


def test_tensorboard_where_it_is_installed(tmp_path, story):
    pytest.importorskip("tensorboard")
    folder = tmp_path / "run"
    assert main(["train", "text", *SHAPE, "--data", story, "--steps", "2", "--folder", str(folder)]) == 0
    assert list((folder / "tensorboard").glob("events*"))


@pytest.mark.parametrize("tokens", ["byte", "character", "word"])
def test_text_in_every_kind_of_token(tmp_path, story, capsys, tokens):
    folder = tmp_path / "run"
    arguments = ["--tokens", tokens, "--steps", "3", "--chunk", "4", "--folder", str(folder)]
    arguments += [] if tokens == "byte" else ["--vocabulary", "30"]
    assert main(["train", "text", *SHAPE, *QUIET, "--data", story, *arguments]) == 0
    assert json.loads((folder / "vocabulary.json").read_text())["kind"] == tokens
    assert main(["sample", str(folder), "--length", "3"]) == 0
    assert 0 < read_log(folder)[0][BITS] < 12


def test_text_from_numbers_of_tokens(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.arange(1000, dtype=np.uint16) % 40)
    folder = tmp_path / "run"
    arguments = ["--data", str(tmp_path / "a.npy"), "--steps", "2", "--folder", str(folder)]
    assert main(["train", "text", *SHAPE, *QUIET, *arguments]) == 0
    capsys.readouterr()
    assert main(["sample", str(folder), "--length", "3", "--prompt", "1 2"]) == 0
    words = capsys.readouterr().out.split()
    assert len(words) == 5 and all(int(word) < 40 for word in words)
    assert main(["sample", str(folder), "--length", "3"]) == 0
    for prompt in ("abc", "40", "-1"):
        capsys.readouterr()
        assert main(["sample", str(folder), f"--prompt={prompt}"]) == 2
        assert f"prompt: expected token numbers below 40, got {prompt!r}" in capsys.readouterr().err


def test_bits_per_character_of_words_count_every_character(story):
    text = read_text(story)
    from fusegen.data import tokenize

    words = tokenize(text, "word", 1000)
    task = TextTask.make(words, TextOptions(**SMALL))
    with torch.no_grad():
        task.model.decoder.weight.zero_()
    measures = task.evaluate()
    size = len(words.vocabulary)
    held_out = round(len(words) * 0.1)
    characters = sum(len(words.vocabulary.tokens[i]) for i in words.tokens[-held_out:].tolist())
    near(measures[BITS], math.log2(size) * held_out / characters)
    near(measures["perplexity"], size)
    assert measures["unknown %"] == 0


def test_the_demo_is_train_text_with_a_clock(tmp_path, story, capsys):
    tail = ["--steps", "10", "--lr", "0.02", *SHAPE]
    assert main(["demo", "--text", story, *tail]) == 0
    steps = lambda: [line for line in capsys.readouterr().out.splitlines() if line.startswith("  step")]
    told = lambda: [re.sub(r"   \S+ tokens/s", "", line) for line in steps()]  # without the speed
    demo = told()
    assert (
        main(["train", "text", "--data", story, *tail, "--folder", str(tmp_path / "r"), "--no-tensorboard"])
        == 0
    )
    train = told()
    assert len(demo) == 11 and demo == train


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "{tmp}/nowhere"], "--data: cannot read {tmp}/nowhere: No such file or directory"),
        (["--data", "{tmp}/empty"], "--data: {tmp}/empty is empty"),
        (["--data", "{tmp}/binary"], "--data: {tmp}/binary is not text"),
        (["--data", "{tmp}/latin", "--tokens", "word"], "--data: {tmp}/latin is not UTF-8: byte 1 is 0xf6"),
        (["--data", "{tmp}/short"], "the rest is held out; give --batch 1 --chunk 8, or more"),
        (["--data", "{tmp}/short", "--tokens", "word"], "--data: too short: one step reads 4 x 8 words"),
        (["--data", "{tmp}/tiny", "--batch", "1", "--chunk", "1"], "--data: too short"),
        (["--data", ""], "--data: expected a path"),
        (["--data", "{tmp}/a.npy"], "--data: cannot read {tmp}/a.npy: No such file"),
        (["--data", "hf:"], "--data: expected hf:NAME"),
        (["--hidden", "0"], "--hidden: expected an integer at least 1, got 0"),
        (["--log-every", "0"], "--log-every: expected an integer at least 1, got 0"),
        (["--ema", "1"], "--ema: expected a number at least 0 and below 1"),
        (["--device", "gpu"], "--device: expected cpu, cuda, cuda:N or auto, got 'gpu'"),
        (["--device", "meta"], "--device: expected cpu, cuda, cuda:N or auto, got 'meta'"),
        (["--resume"], "--folder: expected the folder of the run, got none"),
        (["--folder", "{tmp}"], "--folder: {tmp} is there and not empty"),
        (["--folder", "{tmp}/empty"], "--folder: {tmp}/empty is there and not empty"),
        (["--folder", "{tmp}/empty/x"], "--folder: cannot make {tmp}/empty/x: Not a directory"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\x7fELF\0")
    (tmp_path / "latin").write_bytes("zö".encode("latin-1"))
    (tmp_path / "short").write_text("only a few words")
    (tmp_path / "tiny").write_text("four")
    assert main(["train", "text", *SHAPE, *(each.format(tmp=tmp_path) for each in arguments)]) == 2
    err = capsys.readouterr().err
    assert (
        err.startswith("fusegen train: error: ")
        and err.count("\n") == 1
        and words.format(tmp=tmp_path) in err
    )
