"""Moments that a generator of series is to keep."""

import pytest
import torch
from fusegen.cli import main
from fusegen.data import Innovations
from fusegen.train.run import read_log
from fusegen.train.tasks.gan.moments import LAGS, Moments

pytest.importorskip("matplotlib")

T, N = 12, 4000


def wandering(seed, scale=1.0, n=N):
    noise = torch.randn(T, n, 2, generator=torch.Generator().manual_seed(seed)) * scale
    return 0.5 * noise.cumsum(0) + noise


def distance(moments, x):
    return moments(x).item()


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (lambda x: x + 0.5, 0.2),
        (lambda x: 1.3 * x, 0.2),
        (lambda x: x[:, torch.randperm(N), :1].repeat(1, 1, 2), 0.5),
        (lambda x: x[torch.randperm(T)], 0.2),
    ],
    ids=["shifted", "wider", "correlated", "shuffled"],
)
def test_what_differs_is_seen_and_what_does_not_is_nought(change, least):
    torch.manual_seed(0)
    moments = Moments(wandering(0))
    assert abs(distance(moments, wandering(1))) < 0.05
    assert distance(moments, change(wandering(1))) > least


def test_it_is_right_on_average_for_small_samples():
    """The mean over many small samples of the same process is 0: a squared difference would be above it."""
    moments = Moments(wandering(0, n=200_000))
    found = torch.tensor([distance(moments, wandering(2 + i, n=8)) for i in range(400)])
    assert found.mean().abs() < 4 * found.std() / 20
    assert found.std() > 0.1


def test_by_hand():
    """Two sequences of two steps: means 1 and 2, squares, products at lag 0 and 1."""
    real = torch.tensor([[0.0, 2.0], [1.0, 3.0]])[..., None]
    fake = torch.tensor([[1.0, 4.0], [2.0, 2.0]])[..., None]
    means = ((1 - 1) * (4 - 1) + (2 - 2) * (2 - 2)) / 2
    squares = ((1 - 2) * (16 - 2) + (4 - 5) * (4 - 5)) / 2
    lags = ((2.5 - 3.5) * (10 - 3.5) + (2 - 3) * (8 - 3)) / 2
    assert Moments(real)(fake).item() == pytest.approx(means + squares + lags)


def test_what_lies_past_the_lengths_is_not_looked_at():
    x, lengths = wandering(0, n=40), torch.arange(40) % 9 + 3
    filled = x.clone()
    filled[torch.arange(T)[:, None] >= lengths] = 9.0
    moments, ragged = Moments(x, lengths), Moments(filled, lengths)
    fake = wandering(1, n=40)
    assert moments(fake, lengths) == ragged(torch.where(filled == 9, filled, fake), lengths)
    assert moments(fake, lengths) != moments(fake)
    assert Moments(x[:1])(fake[:1]).isfinite() and len(Moments(x)._of_data[0][2]) == LAGS + 1


def test_levels_count_as_much_and_gradients_reach_the_sample():
    x = 0.1 * wandering(0)
    form = Innovations.fit(x)
    y = form(x)
    moments, levels = Moments(y), Moments(y, levels=form.levels_of(T))
    fake = torch.randn(T, N, 2, generator=torch.Generator().manual_seed(1))
    drifting = fake + 0.2  # little a step, much when added up
    assert levels(drifting) > 3 * moments(drifting) > 0 and levels(fake).abs() < 0.1
    drifting.requires_grad_()
    levels(drifting).backward()
    assert drifting.grad.abs().sum() > 0


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_run_logs_them_and_their_weight_counts(tmp_path, precision):
    losses = {}
    for weight in (0, 2):
        folder = tmp_path / str(weight)
        flags = ["--arch", "recurrent", "--data", "prices", "--length", "6", "--hidden", "4", "--batch", "8"]
        flags += ["--steps", "3", "--warm-up", "2", "--moments", str(weight), "--precision", precision]
        flags += ["--no-tensorboard", "--evaluations", "1", "--log-every", "1", "--score-steps", "2"]
        assert main(["train", "gan", *flags, "--folder", str(folder)]) == 0
        losses[weight] = [line for line in read_log(folder) if "generator loss" in line]
    assert all("moments" not in line for line in losses[0])
    first = losses[2][0]
    assert first["generator loss"] == pytest.approx(first["surprise"] + 2 * first["moments"], abs=1e-4)
    assert losses[0][0]["generator loss"] == losses[0][0]["surprise"]
    assert losses[2][2]["generator loss"] != losses[0][2]["generator loss"]


def test_only_series_have_them(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("some text, and more of it; " * 9)
    flags = ["--arch", "recurrent", "--data", str(tmp_path / "a.txt"), "--moments", "1"]
    assert main(["train", "gan", *flags, "--folder", str(tmp_path / "run")]) == 2
    assert f"--moments: series have them, and {tmp_path / 'a.txt'} has text" in capsys.readouterr().err
