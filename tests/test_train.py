"""A run: its folder, its options, its resuming, the command line, and every task on the one loop."""

import json
import math
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from fusegen.cli import main
from fusegen.data import Shuffled, open_text, read_text
from fusegen.train import FitOptions, RunOptions, TextOptions, TextTask, config, fit
from fusegen.train.learner import Learner, _recut
from fusegen.train.options import TextData, TextSampling
from fusegen.train.run import Run, read_log
from fusegen.train.step import Task, Turn
from fusegen.train.tasks import TASKS, find_task
from fusegen.train.text import BITS
from fusegen.train.workers import Shard, Workers
from torch import nn

SHAPE = ["--hidden", "16", "--embedding", "8", "--batch", "4", "--chunk", "8"]
SMALL = {"hidden": 16, "embedding": 8, "batch": 4, "chunk": 8}
AWD = {"locked_dropout": True, "embedding_dropout": 0.1, "weight_drop": 0.3, "ar": 2.0, "tar": 1.0}
QUIET = ["--no-tensorboard", "--evaluations", "2", "--log-every", "1"]
STORY = "a short story about a short story, zwölf lines long. " * 12


@pytest.fixture
def story(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text(STORY, encoding="utf-8")
    return str(path)


def silent(task, options, **more):
    return fit(task, options, say=lambda line: None, **more)


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a, b):
    """Bit for bit, through lists, tuples and dicts."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


# Other tasks on the same loop: what a VAE and a GAN need


class Autoencoder(Task):
    """Noise in the loss, several losses, shuffled samples, something that changes on the way."""

    options = {}  # noqa: RUF012
    sampling = TextSampling

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 6))
        self.samples = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
        self.weight = None

    def data(self, shard):
        return _Rows(self.samples, Shuffled(len(self.samples), 8, 5, shard.of(8)))

    def at(self, step, steps):
        self.weight = step / steps

    def loss(self, model, batch, carried):
        noisy = batch + torch.randn_like(batch) * random.random() * np.random.rand()  # noqa: NPY002
        error, size = (model(noisy) - batch).square().mean(), noisy.square().mean()
        return {"elbo": error + self.weight * size, "error": error}, None

    def evaluate(self, model=None):
        return {"error": float((self.samples[:, 0]).square().mean())}

    def sample(self, how, model=None):
        return {".txt": "text", ".png": b"bytes"}


class _Rows:
    def __init__(self, samples, order):
        self.samples, self.order = samples, order

    def __next__(self):
        rows, begins = next(self.order)
        return self.samples[rows], begins

    def state_dict(self):
        return self.order.state_dict()

    def load_state_dict(self, state):
        self.order.load_state_dict(state)


class Adversaries(Autoencoder):
    """Two networks that take turns, one of them less often, each with an optimiser of its own."""

    better = "higher"

    def __init__(self):
        super().__init__()
        self.model = nn.ModuleDict({"G": nn.Linear(2, 6), "D": nn.Linear(6, 1)})
        self.taken = []

    def turns(self):
        sgd = lambda module, lr: torch.optim.SGD(module.parameters(), lr=lr)
        return (
            Turn("discriminator", self.model["D"], self.judge),
            Turn("generator", self.model["G"], self.forge, every=2, rate=0.5, optimizer=sgd),
        )

    def judge(self, D, real, carried):
        self.taken.append("D")
        with torch.no_grad():
            fake = self.model["G"](torch.randn(len(real), 2))
        return {"D": D(fake).mean() - D(real).mean(), "penalty": D(real).square().mean()}, None

    def forge(self, G, real, carried):
        self.taken.append("G")
        fixed = {name: value.detach() for name, value in self.model["D"].named_parameters()}
        fake = G(torch.randn(len(real), 2))
        return -torch.func.functional_call(self.model["D"], fixed, fake).mean(), None


def run_of(folder, task_name="text", **options):
    """A new run's folder, with defaults but for `options` of the section "run"."""
    sections = {"fit": FitOptions(), "run": RunOptions(device="cpu", tensorboard=False, **options)}
    if task_name == "text":
        sections |= {"model": TextOptions(**SMALL), "data": TextData()}
    return Run.create(folder, task_name, sections)


class StopAt:
    """Ends a run before a step as a kill would: nothing is saved on the way out."""

    class Killed(BaseException):
        pass

    def __init__(self, task, step):
        self._at, self._step = task.at, step
        task.at = self

    def __call__(self, step, steps):
        if step == self._step:
            raise self.Killed
        self._at(step, steps)


def text_task(seed=0, dropout=0.2, **options):
    torch.manual_seed(seed)
    text = open_text("pydocs")
    return TextTask.make(
        type(text)("some", text.tokens[:2000]), TextOptions(**{**SMALL, "dropout": dropout, **options})
    )


@pytest.mark.parametrize(
    ("make", "setup"),
    [
        (text_task, {}),
        (lambda: text_task(cell="gru"), {"accumulate": 2, "ema": 0.9}),
        (lambda: text_task(**AWD), {}),
        (lambda: text_task(cell="rnn", **AWD), {"accumulate": 2}),
        (text_task, {"precision": "bfloat16"}),
        (text_task, {"precision": "float16"}),
        (Autoencoder, {"ema": 0.5}),
        (Adversaries, {}),
    ],
    ids=["text", "accumulated-ema", "awd", "awd-accumulated", "bfloat16", "float16", "noise", "turns"],
)
def test_killed_and_resumed_equals_never_killed_bit_for_bit(tmp_path, make, setup):
    options = FitOptions(steps=12, lr=0.01)

    def run(folder, *kills):
        run = run_of(tmp_path / folder, checkpoint_every=3, **setup)
        which = None
        for kill in (*kills, None):
            task = make()
            torch.manual_seed(4 if which is None else 77)
            random.seed(5 if which is None else 78)
            np.random.seed(6 if which is None else 79)  # noqa: NPY002
            if kill is not None:
                StopAt(task, kill)
            try:
                silent(task, options, setup=run.sections["run"], run=run, evaluations=4, resume=which)
            except StopAt.Killed:
                which = "last" if run.checkpoints.steps() else None
        losses = [{k: v for k, v in line.items() if k != "seconds"} for line in read_log(run.folder)]
        return run.load("last"), losses

    (never, never_log), (killed, killed_log) = run("never"), run("killed", 2, 4, 8, 11)
    for name in never.keys() - {"run"}:
        assert equal(never[name], killed[name]), name
    assert killed_log == never_log and never["step"] == 12


def test_turns_are_taken_in_order_and_each_as_often_as_it_says(tmp_path):
    task = Adversaries()
    run = run_of(tmp_path / "run", log_every=1)
    silent(task, FitOptions(steps=4), setup=run.sections["run"], run=run, evaluations=1)
    assert task.taken == ["D", "G", "D", "D", "G", "D"]
    lines = [line for line in read_log(run.folder) if "D" in line]
    assert ["generator loss" in line for line in lines] == [True, False, True, False]
    assert all("penalty" in line for line in lines)
    assert (run.folder / "samples/step-00000004.png").read_bytes() == b"bytes"


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_the_best_is_that_of_the_first_measure(tmp_path, better):
    task, values = Autoencoder(), iter([0.0, 3.0, 1.0, 2.0, 2.5])
    task.better, task.evaluate = better, lambda model=None: {"measure": next(values)}
    run = run_of(tmp_path / "run", keep=1)
    silent(task, FitOptions(steps=4), setup=run.sections["run"], run=run, evaluations=4)
    assert run.load("best")["step"] == {"lower": 2, "higher": 1}[better]
    assert run.load("last")["step"] == 4 and run.checkpoints.steps() == [4]


# Parts and processes


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_is_the_whole_batch(parts):
    runs = []
    for accumulate in (1, parts):
        task = text_task(dropout=0.0)
        setup = RunOptions(device="cpu", precision="float64", accumulate=accumulate)
        learner = Learner(task, FitOptions(steps=20, lr=0.01), setup, Workers("cpu"))
        runs.append(([learner.advance()["loss"] for _ in range(20)], weights_of(task.model)))
    assert np.abs(np.subtract(runs[0][0], runs[1][0])).max() < 1e-11
    for name, value in runs[0][1].items():
        assert (value - runs[1][1][name]).abs().max() < 1e-9


def test_a_run_goes_on_with_another_number_of_parts(tmp_path):
    def advance(*accumulated):
        state, losses = None, []
        for accumulate in accumulated:
            setup = RunOptions(device="cpu", precision="float64", accumulate=accumulate)
            learner = Learner(text_task(dropout=0.0), FitOptions(steps=20, lr=0.01), setup, Workers("cpu"))
            if state is not None:
                learner.load_state_dict(state, "here")
            losses += [learner.advance()["loss"] for _ in range(5)]
            state = learner.state_dict()
        return losses

    assert np.abs(np.subtract(advance(1, 1, 1), advance(1, 4, 2))).max() < 1e-11


def test_carried_state_is_cut_anew_along_the_batch():
    h, c = torch.arange(24.0).view(2, 4, 3), torch.zeros(2, 4, 3)
    halves = list(zip(h.tensor_split(2, 1), c.tensor_split(2, 1), strict=True))
    assert equal(_recut([(h, c)], 2), halves) and equal(_recut(halves, 1), [(h, c)])
    assert equal(_recut([h], 4), list(h.split(1, 1))) and _recut([None], 3) == [None] * 3


@pytest.mark.parametrize("accumulate", [3, 8])
def test_a_batch_that_does_not_divide_is_refused(story, tmp_path, capsys, accumulate):
    arguments = ["train", "text", *SHAPE, "--data", story, "--folder", str(tmp_path / "run")]
    assert main([*arguments, "--accumulate", str(accumulate)]) == 2
    expected = f"--batch: expected a multiple of {accumulate} (processes x accumulate), got 4"
    assert expected in capsys.readouterr().err


def test_shards_are_the_whole_in_order():
    parts = [Shard(index, 3).of(12) for index in range(3)]
    assert [i for part in parts for i in range(12)[part]] == list(range(12))


# Options and configuration


@pytest.mark.parametrize("name", TASKS)
def test_a_configuration_comes_back_from_its_file(tmp_path, name):
    task = find_task(name)
    sections = config.defaults(task)
    path = tmp_path / "config.json"
    path.write_text(config.to_json(name, sections, fusegen="9.9", id="x"))
    assert config.from_json(task, config.read_json(path, "run"), "here") == sections


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"modle": {}}, "there is no 'modle'; did you mean 'model'?"),
        ({"model": {"hiden": 3}}, "model: there is no 'hiden'; did you mean 'hidden'?"),
        ({"model": {"zzz": 3}}, "model: there is no 'zzz'; there is cell, layers"),
        ({"model": 3}, "model: expected an object, got int"),
        ({"model": {"hidden": "3"}}, "model.hidden: expected an integer, got str '3'"),
        ({"model": {"hidden": 0}}, "model.hidden: expected an integer at least 1, got 0"),
        ({"model": {"hidden": True}}, "model.hidden: expected an integer, got bool"),
        ({"model": {"cell": "mlp"}}, "model.cell: expected one of lstm, gru, rnn, got 'mlp'"),
        ({"data": {"data": 3}}, "data.data: expected text, got int 3"),
        ({"run": {"compile": 1}}, "run.compile: expected true or false, got int 1"),
        ({"fit": {"lr": None}}, "fit.lr: expected a number, got NoneType"),
        ({"task": "image"}, "it is for the task 'image', not 'text'"),
        ([], "expected an object, got list"),
        ("{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (None, "cannot read"),
    ],
)
def test_a_wrong_configuration_is_refused_by_key(tmp_path, capsys, content, words):
    path = tmp_path / "options.json"
    if content is not None:
        raw = (
            content
            if isinstance(content, bytes)
            else content
            if isinstance(content, str)
            else json.dumps(content)
        )
        path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    assert main(["train", "text", "--config", str(path), "--folder", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("fusegen train: error: --config: ") and str(path) in err and words in err
    assert err.count("\n") == 1 and not (tmp_path / "run").exists()


def test_options_are_saved_read_and_overridden(tmp_path, capsys):
    first, second = (str(tmp_path / name) for name in ("a.json", "b.json"))
    assert main(["train", "text", "--hidden", "33", "--lr", "0.5", "--compile", "--save-config", first]) == 0
    assert (
        main(["train", "text", "--config", first, "--lr", "0.25", "--no-compile", "--save-config", second])
        == 0
    )
    a, b = (json.loads(pathlib.Path(path).read_text()) for path in (first, second))
    assert (a["model"]["hidden"], a["fit"]["lr"], a["run"]["compile"]) == (33, 0.5, True)
    assert (b["model"]["hidden"], b["fit"]["lr"], b["run"]["compile"]) == (33, 0.25, False)


def test_options_may_be_none_and_are_checked_when_they_are_not():
    assert TextSampling(top_k=None).top_k is None
    with pytest.raises(ValueError, match=r"^top_k: expected an integer at least 1"):
        TextSampling(top_k=0)


@pytest.mark.parametrize("name", TASKS)
def test_help_shows_every_option(capsys, name):
    with pytest.raises(SystemExit) as caught:
        main(["train", name, "--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    names = [each for kind in config.kinds(find_task(name)).values() for each in kind.__dataclass_fields__]
    assert len(names) == len(set(names))
    assert all(f"--{each.replace('_', '-')}" in shown for each in [*names, "folder", "config", "resume"])


@pytest.mark.parametrize("name", TASKS)
def test_no_flag_is_one_that_torchrun_takes_for_its_own(name):
    from torch.distributed.run import get_args_parser

    theirs = [each for action in get_args_parser()._actions for each in action.option_strings]
    names = [each for kind in config.kinds(find_task(name)).values() for each in kind.__dataclass_fields__]
    for flag in [
        f"--{each.replace('_', '-')}" for each in [*names, "folder", "config", "save_config", "resume"]
    ]:
        assert len([each for each in theirs if each.startswith(flag)]) < 2, flag


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "text", "--hiden", "3"], "did you mean '--hidden'?"),
        (["train", "text", "--hid", "3"], "unrecognized arguments: --hid 3"),
        (["train", "text", "--qqq"], "--help shows all"),
        (["train"], "required: TASK"),
        (["resume", "x", "--hidden", "3"], "unrecognized arguments: --hidden 3"),
    ],
)
def test_wrong_flags_are_status_2_and_the_nearest_is_named(capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and words in capsys.readouterr().err


# The command line


def test_a_run_is_a_folder_that_samples_evaluates_and_exports(tmp_path, story, capsys):
    folder = tmp_path / "run"
    arguments = ["train", "text", *SHAPE, *QUIET, "--data", story, "--steps", "6", "--ema", "0.5"]
    assert main([*arguments, "--folder", str(folder), "--tokens", "character", "--keep", "1"]) == 0
    assert "done:" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "log.jsonl", "vocabulary.json", "checkpoints", "samples")
    }
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.pt", "step-00000006.pt"}
    lines = read_log(folder)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    measured = [line for line in lines if BITS in line]
    assert [line["step"] for line in measured] == [0, 3, 6] and "perplexity" in measured[0]
    assert (folder / "samples/step-00000006.txt").read_text().endswith("") and len(lines) == 9

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
    arguments = [
        "--tokens",
        tokens,
        "--vocabulary",
        "30",
        "--steps",
        "3",
        "--chunk",
        "4",
        "--folder",
        str(folder),
    ]
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
    assert measures[BITS] == pytest.approx(math.log2(size) * held_out / characters, rel=1e-5)
    assert measures["perplexity"] == pytest.approx(size, rel=1e-4) and measures["unknown %"] == 0


def test_the_demo_is_train_text_with_a_clock(tmp_path, story, capsys):
    tail = ["--steps", "10", "--lr", "0.02", *SHAPE]
    assert main(["demo", "--text", story, *tail]) == 0
    demo = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  step")]
    assert (
        main(["train", "text", "--data", story, *tail, "--folder", str(tmp_path / "r"), "--no-tensorboard"])
        == 0
    )
    train = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  step")]
    assert len(demo) == 11 and demo == train


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "{tmp}/nowhere"], "--data: cannot read {tmp}/nowhere: No such file or directory"),
        (["--data", "{tmp}/empty"], "--data: {tmp}/empty is empty"),
        (["--data", "{tmp}/binary"], "--data: {tmp}/binary is not text"),
        (["--data", "{tmp}/latin", "--tokens", "word"], "--data: {tmp}/latin is not UTF-8: byte 1 is 0xf6"),
        (["--data", "{tmp}/short"], "--data: too short: one step reads 4 x 8 bytes"),
        (["--data", "{tmp}/short", "--tokens", "word"], "--data: too short: one step reads 4 x 8 words"),
        (["--data", "{tmp}/tiny", "--batch", "1", "--chunk", "1"], "--data: too short"),
        (["--data", ""], "--data: expected a path"),
        (["--data", "{tmp}/a.npy"], "--data: cannot read {tmp}/a.npy: No such file"),
        (["--data", "hf:"], "--data: expected hf:NAME"),
        (["--hidden", "0"], "--hidden: expected an integer at least 1, got 0"),
        (["--log-every", "0"], "--log-every: expected an integer at least 1, got 0"),
        (["--ema", "1"], "--ema: expected a number at least 0 and below 1"),
        (["--device", "gpu"], "--device: expected cpu, cuda, cuda:N or auto, got 'gpu'"),
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


@pytest.fixture
def done(tmp_path, story, capsys):
    """A run of four steps, checkpoints after each second one."""
    folder = tmp_path / "done"
    arguments = ["train", "text", *SHAPE, *QUIET, "--data", story, "--steps", "4", "--folder", str(folder)]
    assert main([*arguments, "--tokens", "character"]) == 0
    capsys.readouterr()
    return folder


def refusal(capsys, *arguments):
    assert main([*map(str, arguments)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"fusegen {arguments[0]}: error: ") and err.count("\n") == 1
    return err


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
        (["--prompt", "€"], "--prompt: '€' has what is not in the vocabulary"),
        (["--temperature", "-1"], "--temperature: expected a number at least 0"),
        (["--top-k", "9999"], "--top-k: expected an integer from 1 to"),
        (["--checkpoint", "3"], "there is no checkpoint of step 3 in"),
        (["--checkpoint", "nowhere"], "checkpoint nowhere cannot be read"),
        (["--device", "cuda:99"], "--device: "),
    ],
)
def test_a_sample_that_cannot_be_drawn_is_refused(done, capsys, arguments, words):
    assert words in refusal(capsys, "sample", done, *arguments)


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


def test_a_model_that_does_not_fit_into_memory_is_status_1(tmp_path, story, capsys):
    arguments = ["--data", story, "--hidden", "10000000", "--folder", str(tmp_path / "run")]
    assert main(["train", "text", *arguments, "--batch", "2", "--chunk", "2"]) == 1
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


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"ar": 2.0, "tar": 1.0}])
def test_compiled_steps_give_the_same_losses(options):
    losses = []
    for compiled in (False, True):
        setup = RunOptions(device="cpu", compile=compiled)
        learner = Learner(text_task(dropout=0.0, **options), FitOptions(steps=4), setup, Workers("cpu"))
        losses.append([learner.advance()["loss"] for _ in range(4)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# Processes that die


def command(*arguments):
    return [sys.executable, "-m", "fusegen.cli", *map(str, arguments)]


def kill_and_resume(tmp_path, story, kills, steps):
    """A run killed at `kills` random moments and resumed each time, beside one that never was."""
    arguments = [*SHAPE, *QUIET, "--data", story, "--steps", steps, "--dropout", 0.1, "--checkpoint-every", 3]
    folders = [tmp_path / name for name in ("never", "killed")]
    quietly = {"stdout": subprocess.DEVNULL}
    begin = command("train", "text", *arguments, "--folder", folders[1], "--resume")
    subprocess.run(command("train", "text", *arguments, "--folder", folders[0]), check=True, **quietly)
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
