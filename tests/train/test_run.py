"""A run's folder: what is refused leaves it as it was, what was taken back loses nothing, one at a time."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from fusegen.cli import main
from fusegen.train import checkpoint
from fusegen.train.run import Run, read_log
from processes import ENVIRONMENT
from runs import QUIET, SHAPE


def train(story, folder, *arguments):
    return ["train", "text", *SHAPE, *QUIET, "--data", story, "--folder", str(folder), *arguments]


def refusal(capsys, *arguments, status=2):
    assert main([*map(str, arguments)]) == status
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


# ---- what was refused leaves nothing ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--data", "nowhere.txt"], "--data: cannot read nowhere.txt"),
        (["--accumulate", "3"], "--batch: expected a multiple of 3"),
        (["--chunk", "9999"], "--data: too short"),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_a_refused_command_can_be_given_again(tmp_path, story, capsys, wrong, words, there):
    folder = tmp_path / "new"
    if there:
        folder.mkdir()
    assert words in refusal(capsys, *train(story, folder, "--steps", "2", *wrong))
    assert list(folder.iterdir()) == [] if there else not folder.exists()
    assert main(train(story, folder, "--steps", "2")) == 0


def test_what_was_in_a_folder_stays_when_a_run_there_is_refused(tmp_path, story, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("dear")
    assert "is there and not empty" in refusal(capsys, *train(story, folder))
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (["--ema", "0.9"], "one of the two has no ema"),
        (["--accumulate", "3"], "--batch: expected a multiple of 3"),
        (["--steps", "3"], "--steps: expected at least 4"),
    ],
)
def test_options_that_a_run_refuses_do_not_stay(done, capsys, changed, words):
    before = (done / "config.json").read_bytes()
    assert words in refusal(capsys, "resume", done, *changed)
    assert (done / "config.json").read_bytes() == before
    assert main(["resume", str(done), "--steps", "5"]) == 0
    assert json.loads((done / "config.json").read_text())["fit"]["steps"] == 5


def test_a_refused_resume_removes_nothing_of_a_run_without_a_checkpoint(tmp_path, story, capsys):
    folder = tmp_path / "killed"
    assert main(train(story, folder, "--steps", "2")) == 0
    shutil.rmtree(folder / "checkpoints")
    err = refusal(capsys, "resume", folder, "--accumulate", "3", "--anew")
    assert "expected a multiple of 3" in err and (folder / "log.jsonl").exists()
    assert main(["resume", str(folder), "--anew"]) == 0


# ---- another precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["float32", "float16", "float64", "bfloat16"])
@pytest.mark.parametrize("after", ["float32", "float16", "float64", "bfloat16"])
def test_a_run_goes_on_in_another_precision(tmp_path, story, before, after):
    folder = tmp_path / "run"
    assert main(train(story, folder, "--steps", "2", "--precision", before)) == 0
    assert main(["resume", str(folder), "--steps", "4", "--precision", after]) == 0
    state = Run.open(folder).load("last")
    wide = torch.float64 if after == "float64" else torch.float32
    assert state["step"] == 4 and state["model"]["embedding.weight"].dtype == wide


# ---- back to an earlier checkpoint --------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["1", "3"])
def test_a_run_taken_back_keeps_what_it_saves_then(tmp_path, story, keep):
    folder = tmp_path / "run"
    assert main(train(story, folder, "--steps", "8", "--checkpoint-every", "2")) == 0
    torn = folder / "checkpoints/step-00000008.pt"
    torn.write_bytes(torn.read_bytes()[:-100])
    go_on = ["resume", str(folder), "--from", "4", "--checkpoint-every", "1", "--keep", keep]
    run = subprocess.run(
        [sys.executable, "-c", STOP_AT_5, *go_on], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert run.returncode == 9, run.stderr
    checkpoints = Run.open(folder).checkpoints
    assert checkpoints.steps()[-1] == 5 and checkpoint.load(checkpoints.find("last"))["step"] == 5
    assert main(["resume", str(folder)]) == 0
    assert [line["step"] for line in read_log(folder) if "loss" in line] == list(range(1, 9))


STOP_AT_5 = """
import os, sys
from fusegen.cli import main
from fusegen.train.checkpoint import Checkpoints
save = Checkpoints.save
def then_die(self, step, *more, **how):
    save(self, step, *more, **how)
    if step == 5:
        os._exit(9)
Checkpoints.save = then_die
sys.exit(main(sys.argv[1:]))
"""


def test_a_run_killed_before_the_best_had_its_name_names_it_when_it_goes_on(tmp_path, story, done, capsys):
    best = done / "checkpoints/best.pt"
    state = checkpoint.load(done / "checkpoints/step-00000004.pt")
    assert state["is_best"]
    best.write_bytes((done / "checkpoints/step-00000002.pt").read_bytes())
    assert main(["resume", str(done)]) == 0
    assert checkpoint.load(best)["step"] == 4


# ---- one process at a time ----------------------------------------------------------------------------


def test_two_processes_do_not_train_in_one_folder(done, capsys):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(done)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        err = refusal(capsys, "resume", done, "--steps", "6")
        assert f"RUN: another process is training in {done}" in err
    finally:
        holder.kill()
        holder.communicate()
    assert main(["resume", str(done), "--steps", "6"]) == 0


HOLD = """
import sys
from pathlib import Path
from fusegen.train.run import Run
Run.open(Path(sys.argv[1])).claim()
print("held", flush=True)
sys.stdin.read()
"""


# ---- numbers that are none ----------------------------------------------------------------------------


def test_a_measure_that_is_no_number_is_status_1(tmp_path, story, capsys):
    folder = tmp_path / "run"
    err = refusal(capsys, *train(story, folder, "--steps", "1", "--lr", "1e38"), status=1)
    assert "held-out bits per character: it is nan at step 1; a lower lr may help" in err
    assert Run.open(folder).checkpoints.steps() == []


def test_a_model_that_writes_no_numbers_is_refused(done, capsys):
    path = done / "checkpoints/best.pt"
    state = checkpoint.load(path)
    state["model"]["decoder.bias"][:] = torch.nan
    checkpoint.save(path, state)
    assert "the logits of token 0 are not finite" in refusal(capsys, "sample", done)


# ---- small things -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample"], "error: RUN: expected the folder of a run"),
        (["train", "text", "--folder", ""], "error: --folder: expected a path, got an empty one"),
        (["train", "text", "--save-config", ""], "error: cannot write .: Is a directory"),
        (["train", "text", "--save-config", "/nowhere/a"], "error: cannot write /nowhere/a: No such file"),
        (["export", "{done}", "--out", "{done}"], "error: cannot write {done}: Is a directory"),
    ],
)
def test_a_wrong_path_is_one_line(done, capsys, arguments, words):
    err = refusal(capsys, *(each.format(done=done) for each in arguments))
    assert words.format(done=done) in err


# ---- several processes --------------------------------------------------------------------------------

# The data lie where the first process looks, and nowhere for the other, as on a machine without them.
ELSEWHERE = """
import os, sys
from fusegen.cli import main
from fusegen.train.tasks import text
os.chdir(os.path.dirname(__file__))

def missing(*_, **__):
    raise FileNotFoundError("--data: cannot read story.txt: No such file or directory")

if os.environ["RANK"] == "1" and "story.txt" in sys.argv:
    text.open_text = missing
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--batch", "3"], "--batch: expected a multiple of 2"),
        (["--data", "story.txt"], "rank 1: --data: cannot read story.txt"),
    ],
)
def test_what_one_process_refuses_all_do_and_nothing_is_left(tmp_path, story, wrong, words):
    pytest.importorskip("torch.distributed")
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = train(story, tmp_path / "new", "--steps", "2", *wrong)
    run = subprocess.run(
        [*launch, str(tmp_path / "elsewhere.py"), *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 1 and words in run.stderr
    assert run.stderr.count("fusegen train: error") == 1
    assert not (tmp_path / "new").exists()
