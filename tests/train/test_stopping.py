"""Signals that stop a run: in every phase of every task, once, with what is said, saved and gone on with."""

import contextlib
import os
import signal

import pytest
from fusegen.cli import main
from fusegen.train.learner import Learner
from fusegen.train.run import Run, read_log
from fusegen.train.tasks import TASKS, find_task
from fusegen.train.tasks.text import TextTask
from fusegen.train.watching.stopping import Asked, Signals, collected
from runs import QUIET, SHAPE, equal

pytest.importorskip("matplotlib")

NUMBERS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
EACH = pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
TINY = {
    "text": [*SHAPE, "--data", "STORY"],
    "seqvae": ["--hidden", "8", "--embedding", "4", "--batch", "4", "--data", "STORY", "--unit", "sentence"],
    "seq2seq": ["--hidden", "8", "--embedding", "4", "--batch", "4"],
    "vae": ["--hidden", "8", "--batch", "4", "--importance", "0"],
    "gan": ["--widths", "8", "--critic-widths", "8", "--batch", "4", "--samples", "50"],
}


@pytest.fixture
def story(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text("".join(f"The cat sat on mat {i}. A dog ran {i} times. " for i in range(40)))
    return str(path)


@pytest.fixture
def sends(monkeypatch):
    """sends(owner, name, number, at): sends the signal in the `at`th call of a method, in which nothing must
    go on. Sends it once."""

    def patch(owner, name, number, at=1):
        own, calls = owner.__dict__[name], []
        kind, function = type(own), getattr(own, "__func__", own)

        def method(self, *args, **more):
            calls.append(1)
            if len(calls) == at:
                os.kill(os.getpid(), number)
                raise AssertionError("it went on after the signal")
            return function(self, *args, **more)

        monkeypatch.setattr(owner, name, kind(method) if kind in (classmethod, staticmethod) else method)

    return patch


def arguments_of(name, folder, story, *more):
    options = [story if word == "STORY" else word for word in TINY[name]]
    return ["train", name, *options, *QUIET, "--steps", "6", "--folder", str(folder), *more]


def states_of(*folders):
    """The last checkpoints and the logs, but for what every run has of its own."""
    for folder in folders:
        state = Run.open(folder).load("last")
        lines = [{k: v for k, v in line.items() if k != "seconds"} for line in read_log(folder)]
        yield {key: x for key, x in state.items() if key != "run"}, lines


def told(capsys):
    """The one line that is said of a signal."""
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


UNSAVED = "before the first checkpoint: nothing is saved; the same command begins anew"


@EACH
@pytest.mark.parametrize("name", TASKS)
def test_before_the_first_checkpoint_nothing_is_kept_and_the_same_command_begins_anew(
    tmp_path, story, capsys, sends, name, number
):
    folder, before = tmp_path / "run", signal.getsignal(number)
    sends(find_task(name), "evaluate", number)
    assert main(arguments_of(name, folder, story)) == NUMBERS[number]
    assert told(capsys) == f"fusegen train: stopped by {number.name} {UNSAVED}"
    assert not folder.exists() and signal.getsignal(number) is before


@EACH
@pytest.mark.parametrize("phase", ["data", "model"])
def test_while_it_reads_and_while_it_builds(tmp_path, story, capsys, sends, monkeypatch, phase, number):
    folder = tmp_path / "run"
    sends(*{"data": (TextTask, "from_options"), "model": (Learner, "__init__")}[phase], number)
    arguments = arguments_of("text", folder, story)
    assert main(arguments) == NUMBERS[number]
    assert told(capsys) == f"fusegen train: stopped by {number.name} {UNSAVED}"
    assert not folder.exists()
    monkeypatch.undo()
    assert main(arguments) == 0
    capsys.readouterr()
    sends(*{"data": (TextTask, "from_options"), "model": (Learner, "__init__")}[phase], number)
    assert main(["resume", str(folder), "--steps", "8"]) == NUMBERS[number]
    last = folder / "checkpoints/step-00000006.pt"
    assert told(capsys) == (
        f"fusegen resume: stopped by {number.name} before it went on; {last} is the last checkpoint, of "
        f"step 6; fusegen resume {folder} goes on"
    )


LEFT = [("text", number, place) for number in NUMBERS for place in ((2, 3), (3, 6))] + [
    pytest.param(name, signal.SIGINT, (2, 3), marks=() if name == "gan" else pytest.mark.slow)
    for name in TASKS
    if name != "text"
]


@pytest.mark.parametrize(("name", "number", "place"), LEFT)
def test_a_measure_that_is_left_is_taken_when_the_run_goes_on(
    tmp_path, story, capsys, sends, monkeypatch, name, number, place
):
    call, step = place
    never, stopped = tmp_path / "never", tmp_path / "stopped"
    assert main(arguments_of(name, never, story, "--ema", "0.9")) == 0
    capsys.readouterr()
    sends(find_task(name), "evaluate", number, at=call)
    assert main(arguments_of(name, stopped, story, "--ema", "0.9")) == NUMBERS[number]
    monkeypatch.undo()
    assert told(capsys) == (
        f"fusegen train: stopped by {number.name} at step {step}, while it was measured; saved in "
        f"{stopped}/checkpoints/step-{step:08d}.pt; fusegen resume {stopped} goes on"
    )
    assert main(["resume", str(stopped)]) == 0
    (a, log_a), (b, log_b) = states_of(never, stopped)
    assert a["measured"] and all(equal(a[key], b[key]) for key in a) and log_a == log_b
    assert [path.name for path in sorted((never / "samples").iterdir())] == [
        path.name for path in sorted((stopped / "samples").iterdir())
    ]


@EACH
def test_a_sample_that_is_left_leaves_its_measure(tmp_path, story, capsys, sends, monkeypatch, number):
    folder = tmp_path / "run"
    sends(TextTask, "sample", number)
    assert main(arguments_of("text", folder, story)) == NUMBERS[number]
    monkeypatch.undo()
    assert told(capsys).endswith(
        f"stopped by {number.name} at step 3; saved in {folder}/checkpoints/step-00000003.pt; "
        f"fusegen resume {folder} goes on"
    )
    assert Run.open(folder).load("best")["step"] == 3 and not (folder / "samples").exists()
    assert main(["resume", str(folder)]) == 0 and Run.open(folder).load("last")["step"] == 6


def test_a_signal_that_was_swallowed_or_came_before_is_heard():
    with collected() as signals:
        with pytest.raises(Asked) as asked, signals.at_once(), contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        assert asked.value.number == signal.SIGTERM
        with pytest.raises(Asked), signals.at_once():
            raise AssertionError("it began after the signal")
        with collected() as inner:
            assert inner is signals
        os.kill(os.getpid(), signal.SIGINT)  # outside of it: kept
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signals.received == [signal.SIGTERM, signal.SIGINT, signal.SIGINT]
    assert Signals().received == []


def test_a_closed_terminal_stops_nothing_under_nohup(tmp_path, story, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        own = TextTask.evaluate
        monkeypatch.setattr(
            TextTask,
            "evaluate",
            lambda self, model=None: (os.kill(os.getpid(), signal.SIGHUP), own(self, model))[1],
        )
        assert main(arguments_of("text", tmp_path / "run", story)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
