"""The training loop, and `fusegen demo` as a user meets it."""

import math
import signal
import subprocess
import sys
import time

import pytest
import torch
from fusegen.cli import main
from fusegen.data import Text, count_characters, pydocs
from fusegen.train import Comparison, FitOptions, Shard, TextOptions, TextTask
from fusegen.train.commands.demo import Demo, _learnt, _quoted
from fusegen.train.learner import FINAL_RATE, learning_rate
from fusegen.train.tasks.text import BITS
from processes import ENVIRONMENT
from runs import refusal, silent
from tolerances import TOLERANCE
from torch.optim.optimizer import register_optimizer_step_pre_hook

TINY = ["--hidden", "24", "--embedding", "12", "--batch", "4", "--chunk", "16"]


def text_of(content):
    return Text("here", torch.tensor(list(content), dtype=torch.uint8))


def tiny(steps=6, dropout=0.0, cell="lstm"):
    torch.manual_seed(0)
    options = TextOptions(cell=cell, hidden=16, embedding=8, dropout=dropout, batch=4, chunk=16)
    text = text_of(b"a short story about a short story. " * 60)
    return TextTask.make(text, options), FitOptions(steps=steps, lr=0.02)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_what_is_learnt_is_real(cell):
    task, how = tiny(steps=150, cell=cell)
    history = silent(task, how, evaluations=3)
    assert [done for done, _ in history] == [0, 50, 100, 150]
    # A sentence that repeats: from uniform over 256 bytes to nearly sure.
    assert history[0][1][BITS] > 6.5 and history[-1][1][BITS] < 2.0


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_run_repeats_from_its_seed_and_a_comparison_does_not_change_it(dropout):
    runs = []
    for compared in (False, False, True):
        task, how = tiny(steps=12, dropout=dropout)
        comparison = Comparison.with_torch_nn(task.model, how.lr) if compared else None
        torch.manual_seed(1)
        history = silent(task, how, comparison=comparison)
        runs.append((history, [p.detach().clone() for p in task.model.parameters()]))
    for history, weights in runs[1:]:
        assert history == runs[0][0]
        assert all(torch.equal(a, b) for a, b in zip(weights, runs[0][1], strict=True))


def test_the_twin_is_torch_nn_computes_the_same_and_is_timed_as_often():
    task, how = tiny(steps=30)
    comparison = Comparison.with_torch_nn(task.model, how.lr)
    assert type(comparison.twin.rnn) is torch.nn.LSTM and type(task.model.rnn) is not torch.nn.LSTM
    with pytest.raises(ValueError, match="no pair"):
        comparison.medians()
    silent(task, how, comparison=comparison)
    assert comparison.pairs == 30 and len(comparison.ours) == len(comparison.theirs) == 24
    assert all(0 < seconds < 60 for seconds in comparison.medians())
    assert comparison.loss_difference < TOLERANCE[torch.float32, "training"]


def test_steps_compared_are_spread_over_the_run():
    due = [step for step in range(900) if Comparison.due(step, 900)]
    assert len(due) == 30 and due[0] == 0 and due[-1] > 700


def test_the_state_is_carried_and_begins_anew_with_the_text():
    task, how = tiny()
    batches = task.data(Shard())
    chunks = [next(batches) for _ in range(2 * len(task._lanes))]
    begins = [anew for _, anew in chunks]
    assert begins == [index % len(task._lanes) == 0 for index in range(len(chunks))]
    assert torch.equal(chunks[0][0][0], chunks[len(task._lanes)][0][0])
    _, state = task.loss(task.model, chunks[0][0], None)
    assert not any(part.requires_grad for part in state)
    carried, fresh = (task.loss(task.model, chunks[1][0], s)[0] for s in (state, None))
    assert carried != fresh

    given, loss = [], task.loss
    task.loss = lambda model, batch, state: (given.append(state), loss(model, batch, state))[1]
    silent(task, FitOptions(steps=len(task._lanes) + 2, lr=how.lr))
    assert [state is None for state in given] == begins[: len(given)]


def test_bits_per_character_is_the_mean_over_every_held_out_character():
    task, _ = tiny()
    with torch.no_grad():
        task.model.decoder.weight.zero_()  # tied: the embedding too, so every byte is as likely as any other
        task.model.decoder.bias.zero_()
    assert task.evaluate()[BITS] == pytest.approx(8.0, abs=1e-5)
    assert task.held_out_characters == 210
    assert task.model.training
    assert count_characters(torch.tensor(list("zwölf €".encode()), dtype=torch.uint8)) == 7


def test_learning_rate():
    how = FitOptions(steps=100, lr=1.0)
    rates = [learning_rate(step, how) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True) and FINAL_RATE < rates[-1] < FINAL_RATE + 0.01
    assert learning_rate(0, FitOptions(steps=1, lr=1.0)) == 1.0


def test_a_loss_that_is_not_finite_stops_the_run():
    task, how = tiny()
    with torch.no_grad():
        task.model.decoder.bias.fill_(math.inf)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1"):
        silent(task, how)


def test_gradients_are_clipped():
    task, _ = tiny()
    norms = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: norms.append(
            torch.nn.utils.get_total_norm(
                [p.grad for g in optimizer.param_groups for p in g["params"]]
            ).item()
        )
    )
    try:
        silent(task, FitOptions(steps=3, clip=1e-3))
    finally:
        hook.remove()
    assert norms == pytest.approx([1e-3] * 3, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"steps": 0}, ValueError, "steps"),
        ({"steps": 1.0}, TypeError, "steps"),
        ({"lr": 0.0}, ValueError, "lr"),
        ({"lr": math.inf}, ValueError, "lr"),
        ({"clip": -1.0}, ValueError, "clip"),
        ({"seed": -1}, ValueError, "seed"),
        ({"hidden": 0}, ValueError, "hidden"),
        ({"dropout": 1.0}, ValueError, "dropout"),
        ({"cell": "mlp"}, ValueError, "cell"),
        ({"batch": "4"}, TypeError, "batch"),
    ],
)
def test_options_are_checked(options, error, name):
    kind = FitOptions if name in {"steps", "lr", "clip", "seed"} else TextOptions
    with pytest.raises(error, match=f"^{name}: expected"):
        kind(**options)


# fusegen demo


def test_demo_on_the_text_that_ships_with_python(capsys):
    assert main(["demo", *TINY, "--steps", "40", "--lr", "0.02"]) == 0
    shown = capsys.readouterr().out
    assert "pydoc_data.topics" in shown and "step    40 of 40" in shown
    assert "It now writes" in shown and "  | The " in shown
    assert "a training step:" in shown and "on torch.nn" in shown and "the losses differ by at most" in shown
    bits = [float(line.split(BITS)[1].split()[0]) for line in shown.splitlines() if line.startswith("  step")]
    assert len(bits) == 11 and bits[0] > 6 and bits[-1] < 5.5


@pytest.mark.parametrize("cell", ["gru", "rnn"])
def test_demo_on_a_users_folder(tmp_path, capsys, cell):
    (tmp_path / "a.txt").write_text("ein kurzer Satz über nichts. " * 50)
    (tmp_path / "b.bin").write_bytes(b"\0")
    assert (
        main(["demo", *TINY, "--steps", "3", "--cell", cell, "--dropout", "0.1", "--text", str(tmp_path)])
        == 0
    )
    shown = capsys.readouterr().out
    assert f"2-layer {cell.upper()}" in shown and "left out:" in shown and "b.bin" in shown
    assert "losses differ" not in shown  # the two draw different masks


def test_one_step_is_enough_to_see_something(tmp_path, capsys):
    path = tmp_path / "a.txt"
    path.write_text("word " * 100)
    assert main(["demo", *TINY, "--steps", "1", "--text", str(path)]) == 0
    assert "too few steps to time" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--text", "{tmp}/nowhere"], "--text: cannot read {tmp}/nowhere: No such file or directory"),
        (["--text", "{tmp}/empty"], "--text: {tmp}/empty is empty"),
        (["--text", "{tmp}/short"], "--text: too short: one step reads 16 x 64 bytes"),
        (["--text", "{tmp}/binary"], "--text: {tmp}/binary is not text"),
        (["--text", "{tmp}/folder"], "--text: no text in {tmp}/folder"),
        (["--text", ""], "--text: expected a path"),
        (["--chunk", "1000000"], "--text: too short"),
        (["--hidden", "0"], "--hidden: expected an integer at least 1, got 0"),
        (["--lr", "nan"], "--lr: expected a number above 0, got nan"),
        (["--dropout", "1"], "--dropout: expected"),
        (["--hidden", "1000000"], "memory"),
    ],
    ids=lambda value: None if isinstance(value, str) else value[0][2:] + "-" + value[1].rpartition("/")[2],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, capsys, arguments, words):
    (tmp_path / "empty").touch()
    (tmp_path / "short").write_text("only a few words")
    (tmp_path / "binary").write_bytes(b"\x7fELF\0")
    (tmp_path / "folder").mkdir()
    assert main(["demo", *(part.format(tmp=tmp_path) for part in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("fusegen demo: error: ") and err.count("\n") == 1
    assert words.format(tmp=tmp_path) in err


@pytest.mark.parametrize("arguments", [["fly"], ["demo", "--hidden", "x"], ["demo", "--cell", "mlp"]])
def test_wrong_usage_is_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.startswith("fusegen") and said.count("\n") == 1


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"--{name}" in shown for name in ("text", "cell", "hidden", "steps", "lr", "seed"))


def test_a_loss_that_explodes_is_status_1(tmp_path, capsys):
    path = tmp_path / "a.txt"
    path.write_text("word " * 100)
    assert main(["demo", *TINY, "--steps", "30", "--lr", "1e30", "--text", str(path)]) == 1
    assert "a lower lr may help" in capsys.readouterr().err


def test_without_tqdm_and_in_a_terminal_that_knows_ascii_only(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("Öl für alle. " * 100, encoding="utf-8")
    code = (
        "import sys; sys.modules['tqdm'] = None; from fusegen.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, "demo", *TINY, "--steps", "10", "--text", str(path)],
        capture_output=True,
        timeout=120,
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
    )
    assert run.returncode == 0, run.stderr.decode()
    assert b"step    10 of 10" in run.stdout and b"It now writes" in run.stdout


def test_ctrl_c_ends_cleanly(tmp_path):
    run = subprocess.Popen(
        [sys.executable, "-m", "fusegen.cli", "demo", *TINY, "--steps", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # A job that a shell starts in the background ignores Ctrl-C, and so would all its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while "step     0 of" not in (line := run.stdout.readline()):
            assert line, run.stderr.read()
        time.sleep(0.3)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=30)
    finally:
        run.kill()
    assert run.returncode == 130
    assert "Traceback" not in err and err.strip().endswith("interrupted, nothing is saved")


def test_a_sample_cannot_speak_to_the_terminal():
    assert _quoted(b"a\x1b[2Jb\n\x07c\xff") == "  | a\ufffd[2Jb\n  | \ufffdc\ufffd"


def test_a_text_learnt_by_heart_is_pointed_out():
    rising = [(0, {BITS: 8.0}), (10, {BITS: 3.0}), (20, {BITS: 4.0})]
    assert "lowest, 3.000, at step 10" in _learnt(rising)[1]
    assert len(_learnt(rising[:2])) == 1


@pytest.mark.slow
def test_the_promise():
    """The demo as it is run: at most 1.85 bits per character within three minutes on two cores."""
    start = time.monotonic()
    history = Demo(pydocs(), TextOptions(), FitOptions()).run()
    assert history[-1][1][BITS] <= 1.85
    assert time.monotonic() - start <= 180


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--layers 1 --hidden-dropout 0.1", "--hidden-dropout: it would change nothing: one layer"),
        ("--locked-dropout", "--locked-dropout: it would change nothing: there is no dropout to lock"),
    ],
)
def test_no_option_is_ignored(capsys, flags, words):
    assert f"error: {words}" in refusal(capsys, "demo", *flags.split())
