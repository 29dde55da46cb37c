"""Sequences as innovations: there and back, white, causal, logarithms, what others determine left out."""

import json

import pytest
import torch
from fusegen.data import Innovations, sines, tones
from fusegen.data.curved import Curved
from fusegen.metrics import log_spectral_distance, series_errors
from tolerances import agree

T, N = 12, 400


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def wandering(lengths=None):
    """Two prices that wander together, the second less twice the first, a constant."""
    random = seeded()
    steps = torch.randn(T, N, 2, generator=random, dtype=torch.float64)
    first = 0.1 * steps[..., :1].cumsum(0)
    second = first + 0.01 * steps[..., 1:]
    return torch.cat((first, second, second - 2 * first, torch.ones(T, N, 1)), 2)


@pytest.mark.parametrize("lengths", [None, torch.arange(N) % T + 1], ids=["full", "ragged"])
def test_they_come_back_through_json_and_are_zero_past_the_lengths(lengths):
    x = wandering()
    form = Innovations.fit(x, lengths)
    inside = torch.ones(T, N, dtype=bool) if lengths is None else torch.arange(T)[:, None] < lengths
    y = form(x, lengths)
    assert len(form) == 2 == y.shape[2] and (y[~inside] == 0).all()
    kept = Innovations.from_json(json.loads(json.dumps(form.to_json())))
    agree(kept(x, lengths), y)
    back = kept.inverse(y, lengths)
    agree(back[inside], x[inside].float())
    assert (back[~inside] == 0).all()


def test_they_are_white_and_white_noise_has_the_covariances_of_the_data():
    x = wandering()
    form = Innovations.fit(x)
    flat = form(x).movedim(1, 0).flatten(1)
    # The noise floor takes little of the variance of what is large beside it.
    assert (flat.T.cov() - torch.eye(2 * T)).abs().max() < 0.35
    noise = torch.randn(T, 20 * N, 2, generator=seeded(1))
    drawn, wanted = (form.inverse(noise), x.float())
    covariances = [each[..., :2].movedim(1, 0).flatten(1).T.cov() for each in (drawn, wanted)]
    assert (covariances[0] - covariances[1]).norm() < 0.1 * covariances[1].norm()


def test_a_step_is_made_of_it_and_those_before_alone():
    x = wandering()
    form = Innovations.fit(x)
    other = x.clone()
    other[7:] += 1
    assert torch.equal(form(other)[:7], form(x)[:7]) and not torch.equal(form(other)[7], form(x)[7])


def test_levels_are_a_module_with_gradients_of_what_was_before_alone():
    x = wandering()
    form = Innovations.fit(x)
    module, y = form.levels_of(T), form(x)
    assert not module.state_dict()
    agree(module(y), form.levels(y).float())
    agree(module(y[:5]), module(y)[:5])
    with pytest.raises(ValueError, match="levels are known for 5 steps, got 12"):
        form.levels_of(5)(y)
    y.requires_grad_()
    (gradient,) = torch.autograd.grad(module(y)[6].sum(), y)
    assert (gradient[:7].abs().sum((1, 2)) > 0).all() and gradient[7:].abs().max() < 1e-12


def test_channels_are_normal_whatever_the_data_are():
    """Half of them lie about -1 and half about 1, with heavy tails."""
    random = seeded()
    sides = torch.randint(2, (T, 4000, 1), generator=random) * 2 - 1
    x = sides + 0.1 * torch.randn(T, 4000, 1, generator=random) ** 3
    form = Innovations.fit(x)
    quantiles = torch.tensor([-2.0, -1, -0.5, 0, 0.5, 1, 2])
    shares = (form(x).reshape(-1, 1) < quantiles).float().mean(0)
    assert (shares - torch.special.ndtr(quantiles)).abs().max() < 0.02
    drawn = form.inverse(torch.randn(T, 4000, 1, generator=seeded(1)))
    for share in (0.02, 0.25, 0.75, 0.98):
        assert drawn.quantile(share) == pytest.approx(x.quantile(share).item(), abs=0.05)


def test_longer_sequences_than_it_was_fitted_to():
    form = Innovations.fit(wandering())
    longer = form.inverse(torch.randn(3 * T, 5, 2, generator=seeded()))
    assert longer.shape == (3 * T, 5, 4) and longer.isfinite().all()
    assert torch.equal(longer[..., 3], torch.ones(3 * T, 5))


def test_positive_features_of_a_wide_range_are_learnt_as_logarithms():
    """Prices from 1 to 100, and one from -1 to 1."""
    values = torch.stack(
        (10 ** (2 * torch.rand(T, N, generator=seeded())), torch.rand(T, N, generator=seeded(1)) * 2 - 1), 2
    )
    low, high = torch.tensor([1.0, -1]), torch.tensor([100.0, 1])
    scaled = 2 * (values - low) / (high - low) - 1
    form = Innovations.fit(scaled, least=low, most=high)
    assert form.shift.isnan().tolist() == [False, True]
    agree(form.inverse(form(scaled)), scaled)
    far = form.inverse(1e6 * torch.randn(T, 50, 2, generator=seeded()))
    assert far.isfinite().all() and ((far[..., 0] + 1) / 2 * 99 + 1 > -1e-3).all()  # prices stay positive


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (torch.zeros(3, 4), r"values: expected shape \[T, N, F\], got \[3, 4\]"),
        (torch.zeros(3, 0, 2), r"values: expected shape \[T, N, F\]"),
        (torch.ones(3, 4, 2), "values: expected some that differ"),
    ],
)
def test_what_does_not_fit_is_named(values, words):
    with pytest.raises(ValueError, match=words):
        Innovations.fit(values)


def test_one_step_and_one_window():
    for shape in ((1, 6, 2), (5, 1, 2)):
        x = torch.randn(shape, generator=seeded())
        form = Innovations.fit(x)
        agree(form.inverse(form(x)), x)


# ---- forecasts that are not linear ----------------------------------------------------------------------


def swinging(count=1500, seed=0):
    """Sines of any frequency: they follow from their first two values, but not linearly."""
    return sines(T, count=count, features=2, seed=seed).values * 0.9


def test_products_foretell_sines_and_noise_is_then_almost_as_they_are():
    x = sines(24, count=1500, features=2).values
    forms = [Innovations.fit(x, curved=curved, dither=1e-3) for curved in (False, None)]
    assert not forms[0].curved and len(forms[1].curved) == forms[1].order
    noise = torch.randn(24, 2000, 2, generator=seeded(1))
    linear, curved = (series_errors(x, form.inverse(noise)) for form in forms)
    name = "autocorrelation error of sizes of changes"
    assert curved["marginal error"] < 0.4 * linear["marginal error"]
    assert curved[name] < 0.3 * linear[name]
    assert forms[1].inverse(noise).abs().max() < 1.5  # nothing runs away


@pytest.mark.parametrize("x", [wandering(), torch.randn(T, 60, 3, generator=seeded())], ids=["walk", "noise"])
def test_products_that_help_little_are_left_out(x):
    assert not Innovations.fit(x).curved


def test_forecasts_of_sounds_lean_on_what_is_small_and_noise_then_has_their_spectrum():
    x = tones(64, count=1500).values
    plain, own = (Innovations.fit(x, floor=floor, curved=None, dither=1e-3) for floor in (0.005, None))
    fine = Innovations.fit(x, floor=0.001, curved=False, dither=1e-3)
    assert all(map(torch.equal, own.coefficients, fine.coefficients)) and not own.curved
    noise = torch.randn(64, 1500, 1, generator=seeded(1))
    distances = [log_spectral_distance(x, form.inverse(noise)) for form in (plain, own)]
    assert distances[1] < 0.5 * distances[0]


@pytest.mark.parametrize(
    "x", [wandering(), torch.randn(T, 60, 3, generator=seeded()), swinging()], ids=["walk", "noise", "sines"]
)
def test_forecasts_lean_on_nothing_small_where_that_helps_little_or_products_are_there(x):
    own, usual = (Innovations.fit(x, floor=floor) for floor in (None, 0.005))
    assert all(map(torch.equal, own.coefficients, usual.coefficients))


@pytest.mark.parametrize("lengths", [None, torch.arange(N) % T + 1], ids=["full", "ragged"])
def test_curved_ones_come_back_through_json_too(lengths):
    x = swinging(N)
    form = Innovations.fit(x, lengths, curved=True)
    inside = torch.ones(T, N, dtype=bool) if lengths is None else torch.arange(T)[:, None] < lengths
    kept = Innovations.from_json(json.loads(json.dumps(form.to_json())))
    y = kept(x, lengths)
    agree(y, form(x, lengths))
    assert (kept.inverse(y, lengths) - x)[inside].abs().max() < 1e-5 and kept.order == T - 1


def test_levels_of_curved_ones_are_a_module_too():
    form = Innovations.fit(swinging(), curved=True, dither=1e-3)
    module, y = form.levels_of(T), torch.randn(T, 30, 2, generator=seeded(1))
    assert not module.state_dict()
    assert (module(y) - form.levels(y).float()).abs().max() < 1e-4
    agree(module(y[:5]), module(y)[:5])
    with pytest.raises(ValueError, match="levels are known for 5 steps, got 12"):
        form.levels_of(5)(y)
    y.requires_grad_()
    (gradient,) = torch.autograd.grad(module(y)[6].sum(), y)
    assert (gradient[:7].abs().sum((1, 2)) > 0).all() and gradient[7:].abs().max() == 0


def test_products_of_a_channels_own_past_by_hand():
    past = torch.randn(50, 4, generator=seeded(), dtype=torch.float64)  # 2 steps of 2 channels
    found = Curved.of(past, 2, 1e-6)
    own = (past[:, 1::2] - past[:, 1::2].mean(0)) @ found.ways[1]
    assert torch.allclose(own.T.cov(correction=0), torch.eye(2, dtype=torch.float64), atol=1e-9)
    a, b = own.clamp(-3, 3).T
    wanted = torch.stack((a * a, a * b, b * b, a**3, a * a * b, a * b * b, b**3), 1)
    agree(found.products(past)[:, 7:], wanted)
    # Of two steps that are the same one component is left.
    same = Curved.of(past[:, :2].repeat(1, 2), 2, 1e-6)
    assert (same.ways[..., 1] == 0).all()


def test_dither_is_the_same_each_time_and_is_what_is_lost():
    x = swinging()
    form = Innovations.fit(x, dither=1e-2)
    assert torch.equal(form(x), form(x)) and form.dither == 1e-2
    lost = (form.inverse(form(x)) - x).std() / x.flatten(0, 1).std(0).mean()
    assert lost.item() == pytest.approx(1e-2, rel=0.1)
    with pytest.raises(ValueError, match="dither: expected a number at least 0"):
        Innovations.fit(x, dither=-1.0)
