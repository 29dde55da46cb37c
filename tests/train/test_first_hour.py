"""The command line as somebody meets it in the first hour: from any folder, with data that moved,
asked for help, stopped by a terminal that closes, on training that diverges."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from fusegen.cli import main
from fusegen.data.files.places import absolute
from fusegen.train import FitOptions, RunOptions, fit
from fusegen.train.checkpoint import load
from fusegen.train.commands.sample import _printable
from fusegen.train.progress import Progress
from fusegen.train.run import Run, read_log
from fusegen.train.watching import telling
from fusegen.train.watching.divergence import OF_SERIES, OF_TURNS, DivergenceWatch, Watches
from processes import ENVIRONMENT
from runs import QUIET, SHAPE, STORY, equal, refusal, text_task


def train(*arguments):
    return main(["train", "text", *SHAPE, *QUIET, "--steps", "4", *map(str, arguments)])


# ---- places -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("story.txt", "{here}/story.txt"),
        ("sub/../story.txt", "{here}/story.txt"),
        ("sub", "{here}/sub"),
        ("/story.txt", "/story.txt"),
        ("pydocs", "pydocs"),  # though a folder of that name is here
        ("nowhere.txt", "nowhere.txt"),
        ("", ""),
        ("story.txt,sub/b.txt", "{here}/story.txt,{here}/sub/b.txt"),
        ("story.txt,nowhere", "story.txt,nowhere"),
        ("hf:NAME", "hf:NAME"),
        ("hf:NAME:configuration", "hf:NAME:configuration"),
        ("hf:json:story.txt", "hf:json:{here}/story.txt"),
        ("hf:json:https://somewhere/a.json", "hf:json:https://somewhere/a.json"),
        ("hf:sub", "hf:{here}/sub"),
        ("mo:sub:de", "mo:{here}/sub:de"),
        ("mo:sub", "mo:{here}/sub:"),
        ("mo:nowhere:de", "mo:nowhere:de"),
    ],
)
def test_places_are_named_from_anywhere(tmp_path, monkeypatch, source, found):
    (tmp_path / "sub").mkdir()
    (tmp_path / "pydocs").mkdir()
    for name in ("story.txt", "sub/b.txt"):
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    assert absolute(source, ("pydocs", "unicode")) == found.format(here=tmp_path)


def test_a_run_begun_with_a_relative_place_goes_on_from_any_folder(tmp_path, story, monkeypatch, capsys):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    assert train("--data", "story.txt", "--folder", "run") == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["data"]["data"] == story
    monkeypatch.chdir(elsewhere)
    (elsewhere / "story.txt").write_text("another " * 200)  # of the same name, and not the run's
    assert main(["evaluate", "../run"]) == 0 and "not the data" not in capsys.readouterr().err
    assert main(["resume", "../run", "--steps", "6"]) == 0
    monkeypatch.chdir(tmp_path)
    again = ["--data", "story.txt", "--folder", "run", "--resume", "--steps", "8"]
    assert train(*again) == 0 and Run.open(tmp_path / "run").load("last")["step"] == 8


@pytest.mark.parametrize("command", [["evaluate"], ["resume", "--steps", "6"], ["sample"]])
def test_data_that_moved_are_named_and_must_be_the_same(done, tmp_path, story, capsys, command):
    moved, other = tmp_path / "moved.txt", tmp_path / "other.txt"
    shutil.move(story, moved)
    other.write_text(STORY[:-1] + "!")
    name, *more = command
    if name != "sample":
        said = refusal(capsys, name, done, *more)
        assert "--data: cannot read" in said and "--data PLACE says where they lie now" in said
    assert "not the data" in refusal(capsys, name, done, *more, "--data", other).replace(
        "the data are not", "not the data"
    )
    assert "--data: cannot read nowhere" in refusal(capsys, name, done, *more, "--data", "nowhere")
    assert json.loads((done / "config.json").read_text())["data"]["data"] == story  # nothing refused stays
    assert main([name, str(done), *more, "--data", str(moved)]) == 0
    kept = json.loads((done / "config.json").read_text())["data"]["data"]
    assert kept == (str(moved) if name == "resume" else story)


def test_a_sample_reads_what_a_run_has_lost_from_its_data(done, story, capsys):
    for name in ("vocabulary.json", "prompt.txt"):
        (done / name).unlink()
    assert "is missing, without which no text can be written" in refusal(capsys, "sample", done)
    assert main(["sample", str(done), "--data", story, "--length", "5"]) == 0


@pytest.mark.parametrize("words", [["resume", "{done}"], ["train", "text", "--folder", "{done}", "--resume"]])
def test_a_run_that_is_finished_says_so_and_how_to_go_on(done, capsys, words):
    log = (done / "log.jsonl").read_bytes()
    assert main([word.format(done=done) for word in words]) == 0
    said = capsys.readouterr().out
    assert f"finished before: all 4 steps of {done} are done, and nothing was trained" in said
    assert f"fusegen resume {done} --steps 8 trains on" in said and "done: " not in said
    assert (done / "log.jsonl").read_bytes() == log
    assert main(["resume", str(done), "--steps", "8"]) == 0
    assert f"done: {done}; fusegen sample" in capsys.readouterr().out
    assert Run.open(done).load("last")["step"] == 8


def test_a_run_without_checkpoints_begins_anew_when_that_is_agreed_to(done, tmp_path, story, capsys):
    assert "--anew: " in refusal(capsys, "resume", done, "--anew")  # it has some
    shutil.rmtree(done / "checkpoints")
    log = (done / "log.jsonl").read_bytes()
    said = refusal(capsys, "resume", done)
    assert f"RUN: {done} has no checkpoint any more" in said and "its log ends at step 4: --anew" in said
    assert (done / "log.jsonl").read_bytes() == log
    assert main(["resume", str(done), "--anew"]) == 0
    assert "has no checkpoint: it begins anew" in capsys.readouterr().out
    assert Run.open(done).load("last")["step"] == 4
    shutil.rmtree(done / "checkpoints")
    other = tmp_path / "other.txt"
    other.write_text("quite another text, of other letters: kqxjv. " * 40)
    assert main(["resume", str(done), "--anew", "--data", str(other)]) == 0
    assert "q" in json.loads((done / "vocabulary.json").read_text())["tokens"]


# ---- samples ------------------------------------------------------------------------------------------


def test_samples_are_numbered_and_none_is_written_over(done, capsys):
    before = {path.name: path.read_bytes() for path in (done / "samples").iterdir()}
    for seed in range(3):
        assert main(["sample", str(done), "--length", "9", "--seed", str(seed)]) == 0
        out, err = capsys.readouterr()
        assert err == f"{done}/samples/step-00000004-{seed + 1:03d}.txt\n"
        assert (done / f"samples/step-00000004-{seed + 1:03d}.txt").read_text() + "\n" == out
    after = {path.name: path.read_bytes() for path in (done / "samples").iterdir()}
    assert len(after) == len(before) + 3 and before.items() <= after.items()


def test_what_lies_beside_out_is_not_written_over(done, tmp_path, monkeypatch, capsys):
    from fusegen.train import TextTask

    monkeypatch.setattr(TextTask, "sample", lambda self, how: {".png": b"new", ".npy": b"numbers"})
    mine, out = tmp_path / "a.npy", tmp_path / "a.png"
    mine.write_bytes(b"mine")
    assert f"--out: {mine} is there already" in refusal(capsys, "sample", done, "--out", out)
    assert mine.read_bytes() == b"mine" and not out.exists()
    mine.unlink()
    for _ in range(2):  # what the same command wrote before
        assert main(["sample", str(done), "--out", str(out)]) == 0


@pytest.mark.parametrize(
    ("text", "tokens", "begin"),
    [
        ("The cat sat. The dog ran. " * 60, "byte", "The "),
        ("0123456789\n" * 90, "byte", "0123"),
        ("0123456789\n" * 90, "character", "0123"),
        ("人之初，性本善。\n" * 120, "character", "人之初，"),
        ("naïve café\n" * 120, "word", "naïve"),
        ("  \n\n  début\n" * 120, "byte", "débu"),
    ],
)
def test_the_default_prompt_is_of_the_runs_own_text(tmp_path, capsys, text, tokens, begin):
    (tmp_path / "a.txt").write_text(text)
    folder = tmp_path / "run"
    assert train("--data", tmp_path / "a.txt", "--tokens", tokens, "--folder", folder) == 0
    capsys.readouterr()
    assert main(["sample", str(folder), "--length", "3"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(begin) and "\N{REPLACEMENT CHARACTER}" not in said[: len(begin)]
    if tokens == "character":  # as a run of before that kept no prompt
        (folder / "prompt.txt").unlink()
        assert main(["sample", str(folder), "--length", "3"]) == 0
        assert capsys.readouterr().out[0] in text


def test_a_carriage_return_ends_a_line():
    assert _printable("a\r\nb\rc\nd\x1b") == "a\nb\nc\nd\N{REPLACEMENT CHARACTER}"


def test_series_come_as_a_table_and_sounds_as_sound(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    soundfile = pytest.importorskip("soundfile")
    random = np.random.default_rng(0)
    np.savetxt(tmp_path / "a.csv", random.random((60, 2)), delimiter=",", header="up,down", comments="")
    soundfile.write(tmp_path / "a.wav", random.random((300, 2)) - 0.5, 8000, "PCM_16")
    options = [
        "--arch",
        "recurrent",
        "--hidden",
        "4",
        "--noise",
        "2",
        "--length",
        "5",
        "--batch",
        "4",
        "--steps",
        "1",
    ]
    options += ["--evaluations", "1", "--score-steps", "1", "--no-tensorboard"]
    for name in ("a.csv", "a.wav"):
        folder = tmp_path / name.replace(".", "-")
        assert main(["train", "gan", *options, "--data", str(tmp_path / name), "--folder", str(folder)]) == 0
        assert main(["sample", str(folder), "--count", "3"]) == 0
    drawn = np.load(tmp_path / "a-csv/samples/step-00000001-001.npy")
    head, *rows = (tmp_path / "a-csv/samples/step-00000001-001.csv").read_text().splitlines()
    assert head == "sequence,step,up,down" and len(rows) == 15
    table = np.array([[float(x) for x in row.split(",")] for row in rows])
    assert np.array_equal(table[:, 2:].reshape(3, 5, 2), drawn) and table[-1, :2].tolist() == [2, 4]
    sound, rate = soundfile.read(tmp_path / "a-wav/samples/step-00000001-001.wav")
    want = np.load(tmp_path / "a-wav/samples/step-00000001-001.npy")
    assert rate == 8000 and sound.shape == (3 * 5 + 2 * 2000, 2)
    assert np.abs(sound[2005:2010] - want[1].clip(-1, 1)).max() < 1e-4 and not sound[5:2005].any()


# ---- help ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["resume", "sample", "evaluate", "export"])
def test_help_needs_no_run_and_tells_more_with_one(done, capsys, command):
    shown = []
    for words in ([command, "--help"], [command, str(done), "--help"], [command, "-h", str(done)]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        shown.append(" ".join(capsys.readouterr().out.split()))
    assert "RUN" in shown[0] and str(done) in shown[1] and shown[1] == shown[2]
    if command == "sample":
        assert all(f"of a run of {task}" in shown[0] for task in ("text", "vae", "gan"))
        assert "--truncation" in shown[0] and "--top-p" in shown[1] and "--truncation" not in shown[1]
    if command == "resume":
        assert "optimiser steps (default: 4)" in shown[1] and "--anew" in shown[0]
    if command == "evaluate":
        assert "--judges" in shown[0] and "--judges" not in shown[1] and "--data" in shown[1]


def test_options_may_stand_before_the_run(done, capsys):
    assert main(["sample", "--length", "3", str(done)]) == 0
    assert main(["evaluate", "--checkpoint", "2", str(done)]) == 0
    assert "step  2" in capsys.readouterr().out


def test_bare_and_versions(capsys):
    assert main([]) == 0 and "usage: fusegen" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    from fusegen import __version__

    assert caught.value.code == 0 and capsys.readouterr().out == f"fusegen {__version__}\n"


@pytest.mark.parametrize("name", ["FUSEGEN_ISA", "FUSEGEN_BACKEND"])
def test_a_wrong_environment_is_one_line(name):
    run = subprocess.run(
        [sys.executable, "-m", "fusegen.cli", "info"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | {name: "foo"},
    )
    assert run.returncode == 2 and run.stdout == "" and run.stderr.count("\n") == 1
    assert (
        run.stderr.startswith(f"fusegen info: error: {name}: expected one of") and "got 'foo'" in run.stderr
    )


# ---- what is told while it goes on ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measures", "better", "told"),
    [
        ({"bits": 3.21456}, "lower", "bits 3.215 (lower is better)"),
        ({"exact %": 12.0, "BLEU": 1.5e6}, "higher", "exact % 12 (higher is better)   BLEU 1,500,000"),
        (
            {"digits Frechet distance": 24.91, "digits Frechet distance of a Gaussian fit": 848.2},
            "lower",
            "digits Fréchet distance 24.91 (Gaussian fit: 848.2; lower is better)",
        ),
    ],
)
def test_a_measure_is_told_with_what_it_is_beside_and_which_way_is_better(measures, better, told):
    assert telling.measures(measures, better) == told


def test_without_a_terminal_there_is_a_line_a_minute():
    now, lines = [0.0], []
    progress = Progress(1000, 0, lines.append, reads=(512, "tokens"), clock=lambda: now[0])
    progress.line(0, None, "bits 8 (lower is better)")
    progress.measured("bits 8 (lower is better)")
    for _ in range(125):
        now[0] += 1.0
        progress.advance(2.5)
        now[0] += 0.5  # an evaluation: no part of the speed
        progress.went_on()
    assert lines == [
        "  step     0 of 1000   bits 8 (lower is better)",
        "  step    41 of 1000   loss 2.5   bits 8 (lower is better)   512 tokens/s   23:47 left",
        "  step    81 of 1000   loss 2.5   bits 8 (lower is better)   512 tokens/s   22:53 left",
        "  step   121 of 1000   loss 2.5   bits 8 (lower is better)   512 tokens/s   21:55 left",
    ]


def test_in_a_terminal_there_is_a_bar_with_all_of_it(monkeypatch):
    pytest.importorskip("tqdm")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    now = [0.0]
    with Progress(10, 0, lambda line: None, reads=(64, "images"), clock=lambda: now[0]) as progress:
        progress.measured("nats 9 (lower is better)")
        for _ in range(3):
            now[0] += 2.0
            progress.advance(0.5, ["divergence"])
            progress._bar.refresh()
    said = terminal.getvalue()
    for part in ("3/10", "loss 0.5", "nats 9 (lower is better)", "32 images/s", "divergence", "<"):
        assert part in said


def test_tensorboard_has_text_and_pictures_and_its_absence_is_said_once(tmp_path, story, monkeypatch, capsys):
    pytest.importorskip("tensorboard")
    pytest.importorskip("matplotlib")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    usual = ["--steps", "2", "--evaluations", "2", "--log-every", "1"]
    assert main(["train", "text", *SHAPE, *usual, "--data", story, "--folder", str(tmp_path / "t")]) == 0
    vae = [
        "--hidden",
        "4",
        "--latent",
        "2",
        "--layers",
        "1",
        "--batch",
        "8",
        "--importance",
        "0",
        "--measured",
        "8",
    ]
    assert main(["train", "vae", *vae, *usual, "--folder", str(tmp_path / "v")]) == 0
    tags = [EventAccumulator(str(tmp_path / run / "tensorboard")).Reload().Tags() for run in "tv"]
    assert tags[0]["tensors"] == ["sample/text_summary"] and tags[1]["images"] == ["sample"]
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(["train", "text", *SHAPE, *usual, "--data", story, "--folder", str(tmp_path / "n")]) == 0
    assert capsys.readouterr().out.count("tensorboard is not installed") == 1


# ---- the end ------------------------------------------------------------------------------------------


def test_a_terminal_that_closes_saves_the_run(tmp_path, story, monkeypatch, capsys):
    from fusegen.train import TextTask

    folders = [tmp_path / name for name in ("never", "closed")]
    usual = ["--data", story, "--dropout", "0.1", "--steps", "9"]
    assert train(*usual, "--folder", folders[0]) == 0
    at = TextTask.at
    monkeypatch.setattr(
        TextTask,
        "at",
        lambda self, step, steps: (step == 4 and os.kill(os.getpid(), signal.SIGHUP), at(self, step, steps)),
    )
    assert train(*usual, "--folder", folders[1]) == 129
    monkeypatch.undo()
    assert "stopped by SIGHUP at step 5" in capsys.readouterr().err
    assert main(["resume", str(folders[1])]) == 0
    never, closed = (Run.open(folder).load("last") for folder in folders)
    assert all(equal(never[name], closed[name]) for name in never.keys() - {"run"})


def test_under_nohup_a_hangup_is_nothing(tmp_path, story, monkeypatch):
    from fusegen.train import TextTask

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(TextTask, "at", lambda *_: os.kill(os.getpid(), signal.SIGHUP))
    try:
        assert train("--data", story, "--folder", tmp_path / "run") == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_pipe_that_nobody_reads_any_more_saves_the_run(tmp_path, story):
    arguments = ["train", "text", *SHAPE, "--no-tensorboard", "--data", story, "--steps", "100000"]
    arguments += ["--evaluations", "5000", "--folder", str(tmp_path / "run")]
    run = subprocess.Popen(
        [sys.executable, "-m", "fusegen.cli", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    try:
        while "step     0 of" not in (line := run.stdout.readline()):
            assert line, run.stderr.read()
        run.stdout.close()
        assert run.wait(60) == 129
        said = run.stderr.read()
    finally:
        run.kill()
    assert "stopped by SIGHUP at step" in said and "Traceback" not in said and "BrokenPipe" not in said
    assert Run.open(tmp_path / "run").load("last")["step"] > 0


@pytest.mark.parametrize("where", ["runs/new", "deep/er/new"])
def test_a_run_that_does_not_fit_into_memory_leaves_no_folder(tmp_path, story, monkeypatch, capsys, where):
    monkeypatch.chdir(tmp_path)
    too_large = ["--data", story, "--hidden", "10000000", "--batch", "2", "--chunk", "2"]
    assert main(["train", "text", *too_large, "--folder", where]) == 2
    assert "--hidden: expected a model that fits in memory" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["story.txt"]


def test_memory_that_python_lacks_is_no_traceback(tmp_path, story, monkeypatch, capsys):
    from fusegen.train.tasks import text

    def too_large(*_, **__):
        raise MemoryError("Unable to allocate 8.00 PiB")

    monkeypatch.setattr(text, "open_text", too_large)
    assert train("--data", story, "--folder", tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert said.startswith("fusegen train: not enough memory: Unable to allocate 8.00 PiB; smaller --")
    assert said.endswith(", --batch (4), --chunk (8), or a larger --accumulate, need less\n")
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


# ---- divergence ---------------------------------------------------------------------------------------


def told(watch, losses, measures=()):
    for step, value in measures:
        if step == 0:
            watch.measured(0, value, {})
    for step, loss in enumerate(losses, 1):
        watch.losses(step, {"loss": loss})
    for step, value in measures:
        if step:
            watch.measured(step, value, {})
    return bool(watch.standing)


@pytest.mark.parametrize(
    ("losses", "measures", "better", "diverges"),
    [
        ([5.5, 5.0, 4.0, 3.0, 2.0, 1.5], [], "lower", False),
        ([5.5] * 9, [], "lower", False),  # it learns nothing, and does not diverge
        ([5.5, 8.0, 8.2, 7.9, 8.1, 8.0, 8.1], [], "lower", False),
        ([5.5, 9.0, 9.0, 9.0, 9.0, 9.0], [], "lower", True),
        ([5.5, 1e6, 1e6, 1e6, 2.0, 2.0, 2.0, 2.0, 2.0], [], "lower", False),  # it came back
        ([-5.5, -5.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0], [], "lower", True),
        ([5.5, 3.0, 1.0, 0.1, 0.01, 0.01], [(0, 8.0), (6, 40.0)], "lower", False),  # learnt by heart
        ([5.5, 6.0, 6.0, 6.0], [(0, 8.0), (4, 40.0)], "lower", True),
        ([5.5, 6.0, 6.0, 6.0], [(0, 8.0), (4, 9.0)], "lower", False),
        ([5.5, 6.0, 6.0, 6.0], [(0, 0.6), (4, 0.1)], "higher", True),
    ],
)
def test_training_diverges_where_it_is_much_worse_than_untrained(losses, measures, better, diverges):
    assert told(DivergenceWatch(better), losses, measures) == diverges


@pytest.mark.parametrize(
    ("losses", "measures", "diverges"),
    [
        ([1.4, 30.0, 80.0, 120.0, 90.0, 60.0], [(0, 900.0), (6, 400.0)], False),
        ([0.0, 1e5, 1e5, 1e5, 1e5, 1e5], [], True),
        ([1.4] * 6, [(0, 900.0), (6, 1700.0)], False),
        ([1.4] * 6, [(0, 900.0), (6, 1900.0)], True),
    ],
)
def test_of_networks_that_take_turns_far_more_is_asked(losses, measures, diverges):
    assert told(DivergenceWatch(limits=OF_TURNS), losses, measures) == diverges


@pytest.mark.parametrize(("score", "diverges"), [(0.0147, False), (0.09, False), (0.2, True)])
def test_a_discriminative_score_that_is_next_to_nothing_may_double(score, diverges):
    losses, measures = [0.7] * 8, [(0, 0.0025), (8, score)]
    assert told(DivergenceWatch(limits=OF_SERIES), losses, measures) == diverges


def test_a_watch_goes_on_from_its_state_and_says_a_thing_once():
    watch, again = (Watches(DivergenceWatch(), divergence=DivergenceWatch(stop=True)) for _ in "12")
    told(watch, [1.0, 9.0, 9.0])
    again.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    for step in (4, 5, 6):
        for each in (watch, again):
            each.losses(step, {"loss": 9.0})
    assert again.state_dict() == watch.state_dict() and again.stops == "divergence"
    assert len(again.news()) == 2 and again.news() == []
    assert again.logged() == {"signal: divergence": 1.0}
    old = DivergenceWatch()
    old.load_state_dict({})  # of a checkpoint of before
    assert not told_later(old, [9.0] * 9)


def told_later(watch, losses):
    for step, loss in enumerate(losses, 100):
        watch.losses(step, {"loss": loss})
    return bool(watch.standing)


@pytest.mark.parametrize("stop", [False, True])
def test_a_run_that_diverges_says_so_and_names_its_best_checkpoint(tmp_path, story, capsys, stop):
    folder = tmp_path / "run"
    arguments = ["--data", story, "--lr", "50", "--steps", "20", "--folder", folder]
    assert train(*arguments, *["--stop-when-diverged"] * stop) == (3 if stop else 0)
    out, err = capsys.readouterr()
    assert "divergence: the loss is" in out and "5.45 before training" in out and "a lower --lr" in out
    best = load(folder / "checkpoints/best.pt")["step"]
    named = f"the best checkpoint is {folder}/checkpoints/best.pt, of step {best}"
    assert named in (err if stop else out)
    assert (f"stopped for divergence at step {10 if stop else 20}" in err) == stop
    assert any(line.get("signal: divergence") == 1 for line in read_log(folder))


def test_training_as_usual_is_silent():
    lines = []
    fit(
        text_task(),
        FitOptions(steps=60, lr=0.01),
        setup=RunOptions(device="cpu"),
        evaluations=3,
        say=lines.append,
    )
    assert len(lines) == 4 and not any("divergence" in line for line in lines)
    assert all("tokens/s" in line and "loss" in line for line in lines[1:])


@pytest.mark.parametrize(
    ("losses", "measure", "diverges"),
    [
        ([2133.0], 17172.0, True),  # within one evaluation, the loss as it was
        ([2133.0, 2050.0], 17172.0, True),
        ([2133.0, 900.0, 500.0, 300.0, 200.0, 100.0], 17172.0, False),  # knows its samples by heart
        ([2133.0], 3000.0, False),
        ([-50.0, -49.0], 400.0, True),
    ],
)
def test_a_measure_far_worse_diverges_unless_the_loss_has_fallen(losses, measure, diverges):
    watch = DivergenceWatch()
    watch.measured(0, losses[0], {})
    for step, loss in enumerate(losses, 1):
        watch.losses(step, {"loss": loss})
    watch.measured(len(losses), measure, {})
    assert bool(watch.standing) == diverges
