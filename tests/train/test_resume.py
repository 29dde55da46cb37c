"""Runs that go on: after signals, kills, torn checkpoints and full disks, and those that may not."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from fusegen.cli import main
from fusegen.train import TextTask
from fusegen.train.run import Run, read_log
from fusegen.train.tasks import room
from processes import ENVIRONMENT
from runs import (
    QUIET,
    SHAPE,
    STORY,
    equal,
    refusal,
)


def test_a_torn_checkpoint_is_refused_the_last_good_one_offered_and_taken(done, capsys):
    torn, good = (done / f"checkpoints/step-0000000{step}.pt" for step in (4, 2))
    torn.write_bytes(torn.read_bytes()[:-100])
    err = refusal(capsys, "resume", done)
    assert f"checkpoint {torn} is torn or cut short" in err and f"the last good one is {good}" in err
    assert main(["resume", str(done), "--from", str(good)]) == 0
    assert main(["evaluate", str(done), "--checkpoint", "4"]) == 0


def test_a_checkpoint_of_another_run_is_refused(done, tmp_path, story, capsys):
    other = tmp_path / "other"
    arguments = ["train", "text", *SHAPE, *QUIET, "--data", story, "--steps", "2", "--folder", str(other)]
    assert main(arguments) == 0
    capsys.readouterr()
    foreign = other / "checkpoints/best.pt"
    for command in (
        ("resume", done, "--from"),
        ("evaluate", done, "--checkpoint"),
        ("sample", done, "--checkpoint"),
    ):
        assert f"checkpoint {foreign} is foreign: it is not of the run in {done}" in refusal(
            capsys, *command, foreign
        )


def test_a_run_that_is_there_is_not_written_over(done, story, capsys):
    err = refusal(capsys, "train", "text", "--data", story, "--folder", done)
    assert f"--folder: {done} holds a run already; --resume goes on with one" in err


def test_what_a_checkpoint_depends_on_cannot_be_changed(done, capsys):
    err = refusal(capsys, "train", "text", "--folder", done, "--resume", "--hidden", "99")
    assert f"--hidden: {done} was begun with 16, got 99" in err


def test_more_steps_can_be_asked_for(done, capsys):
    assert main(["resume", str(done), "--steps", "6"]) == 0
    assert Run.open(done).sections["fit"].steps == 6 and Run.open(done).load("last")["step"] == 6
    assert main(["train", "text", "--folder", str(done), "--resume", "--steps", "8"]) == 0
    assert Run.open(done).load("last")["step"] == 8


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run, story: story.write_text(STORY[:-1] + "!"), "the data are not those of its run"),
        (lambda run, story: story.unlink(), "--data: cannot read"),
        (lambda run, story: (run / "config.json").unlink(), "there is no run in"),
        (lambda run, story: (run / "config.json").write_text("{"), "is not JSON"),
        (
            lambda run, story: change(run / "config.json", "task", "tixt"),
            "no task 'tixt'; did you mean 'text'?",
        ),
        (
            lambda run, story: change(run / "config.json", "model", {"hidden": 24, "chunk": 8}),
            "does not fit: ",
        ),
        (lambda run, story: (run / "vocabulary.json").write_text("[]"), "is not a vocabulary"),
        (
            lambda run, story: change(run / "vocabulary.json", "kind", "word"),
            "of kind 'word', this run reads",
        ),
        (lambda run, story: shorten(run / "vocabulary.json"), "there, and [27, 8] by this run's"),
    ],
)
def test_a_run_that_does_not_fit_is_not_resumed(done, tmp_path, capsys, spoil, words):
    spoil(done, tmp_path / "story.txt")
    assert words in refusal(capsys, "resume", done)


def change(path, key, value):
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def shorten(path):
    tokens = json.loads(path.read_text())["tokens"]
    change(path, "tokens", tokens[:27] if len(tokens) > 27 else [*tokens, *"0123456789ABCDEFGH"][:27])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", ""], "--prompt: expected at least one character"),
        (["--prompt", "€"], "--prompt: character '€' is not in this run's vocabulary; it has 'o', 't'"),
        (["--temperature", "-1"], "--temperature: expected a number at least 0"),
        (["--top-k", "9999"], "--top-k: expected an integer from 1 to"),
        (["--checkpoint", "3"], "there is no checkpoint of step 3 in"),
        (["--checkpoint", "nowhere"], "checkpoint nowhere cannot be read"),
        (["--device", "cuda:99"], "--device: "),
    ],
)
def test_a_sample_that_cannot_be_drawn_is_refused(done, capsys, arguments, words):
    assert words in refusal(capsys, "sample", done, *arguments)


PICTURE, NUMBERS = b"a picture", b"numbers"


@pytest.mark.parametrize(
    ("kinds", "out", "written"),
    [
        ({".txt": "told"}, "a.txt", {"a.txt": b"told"}),
        ({".txt": "told"}, "a.b.c.TXT", {"a.b.c.TXT": b"told"}),
        ({".txt": "told"}, "a", {"a": b"told"}),
        ({".png": PICTURE}, "a.PNG", {"a.PNG": PICTURE}),
        ({".png": PICTURE, ".npy": NUMBERS}, "a.NPY", {"a.png": PICTURE, "a.NPY": NUMBERS}),
        ({".png": PICTURE, ".npy": NUMBERS}, "run.2.png", {"run.2.png": PICTURE, "run.2.npy": NUMBERS}),
        ({".png": PICTURE, ".npy": NUMBERS}, "a", {"a.png": PICTURE, "a.npy": NUMBERS}),
        ({".txt": "told"}, "a.png", ".txt"),
        ({".txt": "told"}, "a.txt.jsonl", ".txt"),
        ({".png": PICTURE, ".npy": NUMBERS}, "run.2", ".png or .npy"),
        ({".txt": "told"}, "", ".txt"),
    ],
)
def test_samples_go_to_the_file_that_is_named(done, tmp_path, monkeypatch, capsys, kinds, out, written):
    monkeypatch.setattr(TextTask, "sample", lambda self, how: dict(kinds))
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.chdir(folder)
    if isinstance(written, dict):
        assert main(["sample", str(done), "--out", out]) == 0
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == written
    else:
        said = refusal(capsys, "sample", done, "--out", out)
        assert f"--out: expected a file that ends in {written}, or in nothing, got" in said
        assert not list(folder.iterdir())


def test_no_run_is_said(tmp_path, capsys):
    for command in ("resume", "sample", "evaluate", "export"):
        assert f"there is no run in {tmp_path}" in refusal(capsys, command, tmp_path)
    assert "RUN: expected the folder of a run" in refusal(capsys, "sample")


def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(done, capsys):
    link = done / f"checkpoints/.step-00000006.pt.{os.getpid()}.aside"
    from fusegen.train import files

    before, files.clear_aside = files.clear_aside, lambda folder: None
    link.symlink_to("/dev/full")
    try:
        assert main(["resume", str(done), "--steps", "8", "--checkpoint-every", "6"]) == 1
    finally:
        files.clear_aside = before
    err = capsys.readouterr().err
    assert "the checkpoint of step 6 is not saved: cannot write" in err and "No space left on device" in err
    assert "that of step 4 is whole" in err
    assert Run.open(done).load("last")["step"] == 4
    assert main(["resume", str(done)]) == 0 and Run.open(done).load("last")["step"] == 8


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_the_run_and_the_status_says_which(tmp_path, story, capsys, monkeypatch, number, status):
    folders = [tmp_path / name for name in ("never", "stopped")]
    arguments = ["train", "text", *SHAPE, *QUIET, "--data", story, "--steps", "9", "--dropout", "0.1"]
    assert main([*arguments, "--folder", str(folders[0])]) == 0
    before = signal.getsignal(number)
    at = TextTask.at

    def stop(self, step, steps):
        if step == 4:
            os.kill(os.getpid(), number)
        at(self, step, steps)

    monkeypatch.setattr(TextTask, "at", stop)
    assert main([*arguments, "--folder", str(folders[1])]) == status
    assert signal.getsignal(number) is before
    monkeypatch.undo()
    err = capsys.readouterr().err
    assert f"stopped by {number.name} at step 5" in err and f"fusegen resume {folders[1]} goes on" in err
    assert main(["resume", str(folders[1])]) == 0
    never, stopped = (Run.open(folder).load("last") for folder in folders)
    assert all(equal(never[name], stopped[name]) for name in never.keys() - {"run"})


def test_a_second_ctrl_c_interrupts_at_once(tmp_path, story, capsys, monkeypatch):
    monkeypatch.setattr(TextTask, "at", lambda *_: [os.kill(os.getpid(), signal.SIGINT) for _ in "12"])
    folder = tmp_path / "run"
    assert main(["train", "text", *SHAPE, *QUIET, "--data", story, "--folder", str(folder)]) == 130
    assert "interrupted twice" in capsys.readouterr().err and not list(folder.glob("checkpoints/*"))


def test_a_model_that_does_not_fit_into_memory_is_status_2_and_1_where_that_was_not_foreseen(
    tmp_path, story, capsys, monkeypatch
):
    arguments = ["--data", story, "--hidden", "10000000", "--folder", str(tmp_path / "run")]
    command = ["train", "text", *arguments, "--batch", "2", "--chunk", "2"]
    assert main(command) == 2
    assert "--hidden: expected a model that fits in memory" in capsys.readouterr().err
    monkeypatch.setattr(room, "memory", lambda: 10**20)
    assert main(command) == 1
    assert "not enough memory" in capsys.readouterr().err


def test_a_loss_that_explodes_is_status_1(tmp_path, story, capsys):
    arguments = ["--data", story, "--lr", "1e30", "--steps", "30", "--folder", str(tmp_path / "run")]
    assert main(["train", "text", *SHAPE, *QUIET, *arguments]) == 1
    assert "a lower lr may help" in capsys.readouterr().err


def test_a_half_written_line_of_the_log_is_passed_over(done):
    with open(done / "log.jsonl", "a") as log:
        log.write('{"step": 4, "lo')
    assert len(read_log(done)) == 7
    assert main(["resume", str(done), "--steps", "6"]) == 0
    steps = [json.loads(line)["step"] for line in (done / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 6


def command(*arguments):
    return [sys.executable, "-m", "fusegen.cli", *map(str, arguments)]


def kill_and_resume(tmp_path, story, kills, steps):
    """A run killed at `kills` random moments and resumed each time, beside one that never was."""
    arguments = [*SHAPE, *QUIET, "--data", story, "--steps", steps, "--dropout", 0.1, "--checkpoint-every", 3]
    folders = [tmp_path / name for name in ("never", "killed")]
    quietly = {"stdout": subprocess.DEVNULL, "env": ENVIRONMENT}
    begin = command("train", "text", *arguments, "--folder", folders[1], "--resume")
    assert main(["train", "text", *map(str, arguments), "--folder", str(folders[0])]) == 0
    moments, seen = random.Random(0), []
    for _ in range(kills):
        process = subprocess.Popen(begin, **quietly)
        while not any(line["step"] > (seen[-1] if seen else 0) for line in read_log(folders[1])):
            assert process.poll() is None, "it was done before it was killed"
            time.sleep(0.01)
        try:
            process.wait(moments.random() * 0.3)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        seen.append(max((line["step"] for line in read_log(folders[1])), default=0))
    subprocess.run(begin, check=True, **quietly)
    never, killed = (Run.open(folder).load("last") for folder in folders)
    assert never["step"] == killed["step"] == steps
    for name in never.keys() - {"run"}:
        assert equal(never[name], killed[name]), name
    return seen


def test_killed_at_random_moments_it_ends_as_if_it_never_was(tmp_path, story):
    kill_and_resume(tmp_path, story, kills=2, steps=400)


@pytest.mark.slow
def test_killed_twenty_times_it_ends_as_if_it_never_was(tmp_path, story):
    assert len(kill_and_resume(tmp_path, story, kills=20, steps=4000)) == 20
