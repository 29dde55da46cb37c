"""Every task on the one loop: killed and resumed, in turns, the best kept, compiled."""

import math
import random

import numpy as np
import pytest
import torch
from fusegen.data import Shuffled
from fusegen.train import FitOptions, RunOptions
from fusegen.train.learner import Learner
from fusegen.train.recorder import Marks, Reporter
from fusegen.train.run import read_log
from fusegen.train.task import Task, Turn
from fusegen.train.tasks.text import TextSampling
from fusegen.train.workers import Workers
from runs import (
    AWD,
    StopAt,
    equal,
    run_of,
    silent,
    text_task,
)
from tolerances import TOLERANCE
from torch import nn

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
            Turn("discriminator", self.model["D"], self.discriminator_turn),
            Turn("generator", self.model["G"], self.generator_turn, every=2, rate=0.5, optimizer=sgd),
        )

    def discriminator_turn(self, D, real, carried):
        self.taken.append("D")
        with torch.no_grad():
            fake = self.model["G"](torch.randn(len(real), 2))
        return {"D": D(fake).mean() - D(real).mean(), "penalty": D(real).square().mean()}, None

    def generator_turn(self, G, real, carried):
        self.taken.append("G")
        fixed = {name: value.detach() for name, value in self.model["D"].named_parameters()}
        fake = G(torch.randn(len(real), 2))
        return -torch.func.functional_call(self.model["D"], fixed, fake).mean(), None


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


def test_the_average_of_the_weights_soon_forgets_the_untrained_ones():
    learner = Learner(
        Autoencoder(),
        FitOptions(steps=20, lr=0.1),
        RunOptions(device="cpu", ema=0.5, ema_warm_up=True),
        Workers("cpu"),
    )
    want = {}
    for step in range(20):
        learner.advance()
        # as of models with an average of their own: min(ema, (1 + t) / (10 + t)), after a copy
        decay = min(0.5, (1 + step) / (10 + step)) if step else 0.0
        for name, now in learner.task.model.state_dict().items():
            floats = now.is_floating_point()
            want[name] = decay * want.get(name, now) + (1 - decay) * now if floats else now.clone()
    for name, got in learner.measured.state_dict().items():
        torch.testing.assert_close(got, want[name], msg=name)


def test_turns_are_taken_in_order_and_each_as_often_as_it_says(tmp_path):
    task = Adversaries()
    run = run_of(tmp_path / "run", log_every=1)
    silent(task, FitOptions(steps=4), setup=run.sections["run"], run=run, evaluations=1)
    assert task.taken == ["D", "G", "D", "D", "G", "D"]
    lines = [line for line in read_log(run.folder) if "D" in line]
    assert ["generator loss" in line for line in lines] == [True, False, True, False]
    assert all("penalty" in line for line in lines)
    assert (run.folder / "samples/step-00000004.png").read_bytes() == b"bytes"


@pytest.mark.parametrize(
    ("setup", "read"),
    [({"log_every": 10}, [10, 14, 20]), ({"log_every": 50, "checkpoint_every": 8}, [8, 14, 16, 20])],
)
def test_losses_are_read_where_something_is_made_of_them(tmp_path, monkeypatch, setup, read):
    """At a line of the log, a checkpoint, a measure and the end: nothing else waits for the device."""
    seen, own = [], Reporter._read
    monkeypatch.setattr(Reporter, "_read", lambda self: (seen.append(self.learner.done), own(self))[1])
    run = run_of(tmp_path / "run", **setup)
    task = Autoencoder()
    monkeypatch.setattr(Marks, "spread", lambda steps, evaluations: Marks(frozenset([14])))
    silent(task, FitOptions(steps=20), setup=run.sections["run"], run=run)
    assert seen == read
    logged = [line["step"] for line in read_log(run.folder) if "elbo" in line]
    assert logged == [step for step in range(1, 21) if step % setup["log_every"] == 0 or step == 20]


def test_the_first_loss_that_is_not_finite_is_named_and_nothing_after_it_is_saved(tmp_path):
    task = Autoencoder()
    at = task.at

    def poison(step, steps):
        at(step, steps)
        if step == 3:
            task.samples.fill_(math.nan)

    task.at = poison
    run = run_of(tmp_path / "run", log_every=50, checkpoint_every=7)
    with pytest.raises(FloatingPointError, match="the elbo is nan at step 4; a lower lr may help"):
        silent(task, FitOptions(steps=20), setup=run.sections["run"], run=run, evaluations=1)
    assert not run.checkpoints.steps()


@pytest.mark.parametrize(
    ("values", "better", "best", "improved"),
    [
        ([5.0, 3.0, 3.0, 4.0], "lower", 2, True),  # of equals the one that learnt more
        ([5.0, 7.0, 7.0, 7.0], "higher", 3, True),
        ([3.0, 4.0, 3.0, 4.0], "lower", 2, False),
        ([7.0, 6.0, 6.0, 5.0], "higher", 2, False),
    ],
)
def test_the_latest_of_equals_is_best_and_no_improvement_is_said(tmp_path, values, better, best, improved):
    task, found = Autoencoder(), iter(values)
    task.better, task.evaluate = better, lambda model=None: {"measure": next(found)}
    run = run_of(tmp_path / "run")
    assert run.not_improved(better) is None  # nothing is known yet
    silent(task, FitOptions(steps=3), setup=run.sections["run"], run=run, evaluations=3)
    assert run.load("best")["step"] == best
    said = run.not_improved(better)
    top = max(values[1:]) if better == "higher" else min(values[1:])
    assert said == (
        None
        if improved
        else f"training has not improved it: the measure was {values[0]:.4g} before the first step, and is "
        f"{top:.4g} at best"
    )


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_the_best_is_that_of_the_first_measure(tmp_path, better):
    task, values = Autoencoder(), iter([0.0, 3.0, 1.0, 2.0, 2.5])
    task.better, task.evaluate = better, lambda model=None: {"measure": next(values)}
    run = run_of(tmp_path / "run", keep=1)
    silent(task, FitOptions(steps=4), setup=run.sections["run"], run=run, evaluations=4)
    assert run.load("best")["step"] == {"lower": 2, "higher": 1}[better]
    assert run.load("last")["step"] == 4 and run.checkpoints.steps() == [4]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"ar": 2.0, "tar": 1.0}])
def test_compiled_steps_give_the_same_losses(options):
    losses = []
    for compiled in (False, True):
        setup = RunOptions(device="cpu", compile=compiled)
        learner = Learner(text_task(dropout=0.0, **options), FitOptions(steps=4), setup, Workers("cpu"))
        losses.append([learner.advance()["loss"].item() for _ in range(4)])
    assert losses[0] == pytest.approx(losses[1], rel=TOLERANCE[torch.float32, "training"])
