"""Published and wide judges with their spread, and errors that need none."""

import math

import pytest
import torch
from fusegen.metrics import PostHoc, Spread, discriminative_score, judged, predictive_score, series_errors

SWELL = torch.linspace(0, 3, 10).view(-1, 1, 1)


def noise(n, seed, T=10, features=2):
    return torch.randn(T, n, features, generator=torch.Generator().manual_seed(seed)) / 4


def test_spread_by_hand():
    assert Spread.of([1.0, 3.0]) == Spread(2.0, math.sqrt(2)) and Spread.of([5.0]) == Spread(5.0, 0.0)


def test_judges_are_single_networks_of_the_published_sizes():
    real, fake = noise(60, 0, features=5), noise(60, 1, features=5)
    found = judged(real, fake, judges=2, seed=3, steps=4)
    sides = (real + 1) / 2, (fake + 1) / 2
    for name, hidden in (("published judge", 2), ("wide judge", 24)):
        how = PostHoc(steps=4, hidden_size=hidden, num_layers=1)
        scores = [discriminative_score(*sides, options=how, seed=seed) for seed in (3, 4)]
        assert found[f"discriminative score ({name})"] == Spread.of(scores)
    how = PostHoc(steps=10, hidden_size=2, num_layers=1)
    scores = [predictive_score(*sides, target=4, options=how, seed=seed) for seed in (3, 4)]
    assert found["predictive score (published)"] == Spread.of(scores)


def test_a_single_feature_is_judged_too():
    found = judged(noise(20, 0, features=1), noise(20, 1, features=1), judges=1, steps=2)
    assert all(math.isfinite(score.mean) for score in found.values())
    with pytest.raises(ValueError, match="judges: expected an integer at least 1, got 0"):
        judged(noise(20, 0), noise(20, 1), judges=0)


def test_errors_of_the_same_are_zero():
    x = noise(50, 0)
    errors = series_errors(x, x)
    assert len(errors) == 5 and not any(errors.values())


def test_what_lies_past_the_lengths_is_not_looked_at():
    x, y = noise(50, 0), noise(50, 1)
    lengths = torch.arange(50) % 8 + 3
    filled = y.clone()
    filled[torch.arange(10).unsqueeze(1) >= lengths] = 9.0
    found = [series_errors(x, each, real_lengths=lengths, fake_lengths=lengths) for each in (y, filled)]
    assert found[0] == found[1] and all(found[0].values())


@pytest.mark.parametrize(
    ("change", "name", "least"),
    [
        (lambda x: x + 0.25, "marginal error", 0.9),  # a deviation
        (lambda x: torch.where(x.abs() > 0.6, 2 * x, x), "marginal error of changes", 0.02),
        (lambda x: x.cumsum(0), "autocorrelation error", 0.3),
        (lambda x: x * SWELL, "autocorrelation error of sizes of changes", 0.1),
        (lambda x: x + x.flip(2), "cross-correlation error", 0.9),
    ],
    ids=["shifted", "heavy tails", "wandering", "wilder and wilder", "correlated"],
)  # fmt: skip
def test_each_error_sees_what_it_is_for(change, name, least):
    x, y = noise(2000, 0), noise(2000, 1)
    same = series_errors(x, y)
    assert max(same.values()) < 0.03
    assert series_errors(x, change(y))[name] > least > 0.6 * same[name]


def test_one_step_has_neither_changes_nor_autocorrelations():
    x = noise(30, 0, T=1)
    assert set(series_errors(x, x)) == {"marginal error", "cross-correlation error"}
    assert set(series_errors(x[..., :1], x[..., :1])) == {"marginal error"}
