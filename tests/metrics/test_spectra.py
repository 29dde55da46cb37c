"""Spectra of sounds and autoregressive fits."""

import math

import pytest
import torch
from fusegen.metrics import AutoregressiveFit, GaussianFit, log_spectral_distance


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def resonant(n=4000, T=40, seed=0):
    """x_t = 1.6 x_{t-1} - 0.9 x_{t-2} + noise, from its stationary state on, two channels of it."""
    noise = torch.randn(T + 200, n, 2, generator=seeded(seed), dtype=torch.float64)
    x = [noise[0], noise[1]]
    for each in noise[2:]:
        x.append(1.6 * x[-1] - 0.9 * x[-2] + each)
    return torch.stack(x[-T:]).float() + 3


def test_twice_as_loud_is_six_decibels():
    x = torch.randn(32, 50, 2, generator=seeded())
    assert log_spectral_distance(x, x) == 0
    assert log_spectral_distance(x, 2 * x) == pytest.approx(20 * math.log10(2), rel=1e-6)
    louder = torch.cat((x[..., :1], 2 * x[..., 1:]), 2)  # one channel of two
    assert log_spectral_distance(x, louder) == pytest.approx(20 * math.log10(2) / math.sqrt(2), rel=1e-6)


def test_what_is_80_decibels_down_is_not_looked_at():
    t = torch.arange(64, dtype=torch.float64)[:, None, None]
    tone, quiet = (0.4 * t).sin().float(), 1e-6 * torch.randn(64, 20, 1, generator=seeded())
    real = tone.expand(64, 20, 1)
    assert log_spectral_distance(real, real + quiet) < 0.01 < log_spectral_distance(real, real + 1e4 * quiet)


def test_another_pitch_is_far_away_and_other_draws_are_near():
    x, other = resonant(), resonant(seed=1)
    assert log_spectral_distance(x, other) < 0.5
    assert log_spectral_distance(x, other * torch.linspace(-1, 1, 40).sign()[:, None, None]) > 2
    assert log_spectral_distance(x[:2], other[:2]) < 1  # of two steps a Hann window has nothing


def test_a_fit_finds_the_process_and_draws_from_it():
    x = resonant()
    fit = AutoregressiveFit(x, 2)
    coefficients, root = fit._parts[2]
    wanted = torch.cat((-0.9 * torch.eye(2), 1.6 * torch.eye(2))).double()
    assert (coefficients - wanted).abs().max() < 0.02
    assert (root @ root.T - torch.eye(2)).abs().max() < 0.03
    drawn = fit.sample(4000, seeded(1))
    assert drawn.shape == x.shape and drawn.dtype == torch.float32
    assert torch.equal(drawn, fit.sample(4000, seeded(1)))
    assert log_spectral_distance(x, drawn) < 0.5
    gaussian = GaussianFit(x.movedim(1, 0)).sample(4000, seeded(1)).movedim(0, 1)
    for at in (0, 1, 5, 39):  # from the first step on as wide as the data
        for each in (drawn, gaussian):
            assert each[at].std().item() == pytest.approx(x[at].std().item(), rel=0.1)
    assert fit.sample(7, steps=90).shape == (90, 7, 2)


def test_a_sound_that_begins_loud_is_drawn_so():
    """Its first steps, which have not so many before them, are fitted each by itself."""
    x = (resonant() - 3) * 0.8 ** torch.arange(40.0)[:, None, None]
    drawn = AutoregressiveFit(x, 4).sample(4000, seeded(1))
    for at in range(4):
        assert drawn[at].std().item() == pytest.approx(x[at].std().item(), rel=0.1)


def test_a_fit_knows_no_more_than_it_looks_back():
    """A process of lag 2 alone: AR(1) takes it for noise."""
    x = torch.zeros(60, 3000, 1)
    noise = torch.randn(x.shape, generator=seeded())
    for t in range(60):
        x[t] = noise[t] + (0.9 * x[t - 2] if t > 1 else 0)
    lag = lambda y: (y[40:-2] * y[42:]).mean() / y[40:].square().mean()
    assert lag(x) > 0.85 and lag(AutoregressiveFit(x, 2).sample(3000, seeded(1))) > 0.8
    assert lag(AutoregressiveFit(x, 1).sample(3000, seeded(1))).abs() < 0.1
    assert AutoregressiveFit(x[:3], 16).order == 2 and AutoregressiveFit(x, 0).sample(2).shape == (60, 2, 1)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: log_spectral_distance(x.long(), x), TypeError, "real: expected a floating-point"),
        (lambda x: log_spectral_distance(x, x[:1]), ValueError, r"fake: expected shape \[T, N, C\], T at"),
        (lambda x: log_spectral_distance(x, x[..., 0]), ValueError, r"fake: expected shape \[T, N, C\]"),
        (lambda x: log_spectral_distance(x, x[:4]), ValueError, "expected the same steps and channels"),
        (lambda x: log_spectral_distance(0 * x, x), ValueError, "real: expected a sound, got silence"),
        (lambda x: AutoregressiveFit(x, -1), ValueError, "order: expected an integer at least 0, got -1"),
        (lambda x: AutoregressiveFit(x[..., 0]), ValueError, r"samples: expected shape \[T, N, F\]"),
        (lambda x: AutoregressiveFit(x).sample(0), ValueError, "n: expected an integer at least 1"),
    ],
)  # fmt: skip
def test_wrong_input(call, error, words):
    with pytest.raises(error, match=words):
        call(torch.randn(5, 6, 2, generator=seeded()))
