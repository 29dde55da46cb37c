"""Measures against closed forms, hand-worked figures and torchmetrics."""

import math

import pytest
import torch
from fusegen import metrics
from fusegen.metrics import (
    GaussianFit,
    PostHoc,
    digits_classifier,
    discriminative_score,
    frechet_distance,
    gaussian_frechet,
    image_measures,
    inception_score,
    kernel_distance,
    polynomial_mmd,
    precision_recall,
    predictive_score,
)
from tolerances import agree, near
from torch import nn


def normal(n, d, seed, shift=0.0, scale=1.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale + shift


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- Frechet ----------------------------------------------------------------------------------------


def test_frechet_of_gaussians_in_closed_form():
    # one dimension: (m1 - m2)^2 + (s1 - s2)^2
    one = lambda m, s: (torch.tensor([m]), torch.tensor([[s * s]]))
    assert gaussian_frechet(*one(1.0, 2.0), *one(-2.0, 0.5)) == pytest.approx(9 + 2.25, rel=1e-12)
    # diagonal: the same, dimension by dimension
    s1, s2 = torch.tensor([1.0, 3.0, 0.0]), torch.tensor([2.0, 3.0, 0.5])
    m1, m2 = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 0.0, 4.0])
    got = gaussian_frechet(m1, s1.square().diag(), m2, s2.square().diag())
    assert got == pytest.approx(1 + 4 + 1 + 0.25, rel=1e-7)
    # commuting: C and c C differ by (1 - sqrt c)^2 tr C, under any rotation
    q = torch.linalg.qr(normal(6, 6, 0).double())[0]
    cov = q @ torch.arange(6.0).double().diag() @ q.T
    zero = torch.zeros(6)
    assert gaussian_frechet(zero, cov, zero, 9 * cov) == pytest.approx(4 * 15, rel=1e-9)


def test_frechet_of_matrices_that_do_not_commute():
    # [[2, 0], [0, 1]] and [[1, .5], [.5, 1]]: of a 2 x 2 product tr sqrt = sqrt(tr + 2 sqrt(det))
    a, b = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    want = 3 + 2 - 2 * math.sqrt(3 + 2 * math.sqrt(2 * 0.75))
    zero = torch.zeros(2)
    assert gaussian_frechet(zero, a, zero, b) == pytest.approx(want, rel=1e-12)
    assert gaussian_frechet(zero, b, zero, a) == pytest.approx(want, rel=1e-12)


def test_frechet_of_features_uses_unbiased_covariances():
    # {0, 2}: mean 1, variance 2; {1, 5}: mean 3, variance 8
    real, fake = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    assert frechet_distance(real, fake) == pytest.approx(4 + (math.sqrt(8) - math.sqrt(2)) ** 2, rel=1e-12)


def test_frechet_of_the_same_is_zero_even_where_covariances_are_singular():
    x = normal(5, 40, 0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-5)


def test_gaussian_fit_has_the_mean_and_covariance_of_its_data():
    x = normal(400, 6, 1) @ normal(6, 6, 2) + 3
    fit = GaussianFit(x.view(400, 2, 3))
    assert torch.allclose(fit.mean, x.double().mean(0)) and fit.sample(7).shape == (7, 2, 3)
    agree(fit.root @ fit.root, x.double().T.cov())
    y = fit.sample(200_000, seeded()).flatten(1)
    assert torch.allclose(y.T.cov().double(), x.double().T.cov(), rtol=0.05, atol=0.1)


@pytest.mark.parametrize("count", [2, 5, 6])
def test_gaussian_fit_of_fewer_samples_than_numbers(count):
    x = normal(count, 6, 1) + 3
    fit = GaussianFit(x)
    agree(fit.root.T @ fit.root, x.double().T.cov())
    y = fit.sample(100_000, seeded())
    assert y.shape == (100_000, 6) and torch.allclose(y.mean(0), x.mean(0), atol=0.05)
    assert torch.allclose(y.T.cov().double(), x.double().T.cov(), rtol=0.05, atol=0.1)


def test_gaussian_fit_of_many_numbers_needs_no_matrix_of_their_size():
    """A window of 24 steps of 1,000 features has 24,000: 4.6 GB, and hours of eigenvalues."""
    x = normal(4, 2000, 1)
    fit = GaussianFit(x)
    assert fit.root.numel() == x.numel() and fit.sample(3).isfinite().all()


# ---- kernel -----------------------------------------------------------------------------------------


def test_mmd_by_hand():
    # x {0, 1}, y {2, 3}, k = (xy + 1)^3. Within x: k(0, 1) = 1. Within y: 7^3 = 343.
    # Across: (1 + 1 + 27 + 64) / 4 = 23.25. 1 + 343 - 46.5 = 297.5
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    assert polynomial_mmd(x, y) == pytest.approx(297.5, rel=1e-12)
    # k = (2xy + 1)^1: 1, 13, (1 + 1 + 5 + 7) / 4 = 3.5; 1 + 13 - 7
    assert polynomial_mmd(x, y, degree=1, gamma=2.0) == pytest.approx(7, rel=1e-12)


def test_mmd_is_unbiased():
    """Of one distribution the mean is 0, from both sides; with the diagonal left in it would be 0.9."""
    found = torch.tensor([polynomial_mmd(normal(20, 4, i), normal(20, 4, 1000 + i)) for i in range(400)])
    assert abs(found.mean()) < 4 * found.std() / 20 and (found < 0).any()


def test_kernel_distance_is_over_subsets():
    x, y = normal(300, 4, 0), normal(260, 4, 1, shift=0.3)
    found = kernel_distance(x, y, subsets=40, subset_size=100, generator=seeded())
    assert found == kernel_distance(x, y, subsets=40, subset_size=100, generator=seeded())
    assert found.deviation > 0
    assert found.mean == pytest.approx(polynomial_mmd(x, y), abs=4 * found.deviation / math.sqrt(40))
    assert kernel_distance(x[:50], y[:50], subset_size=50) == (polynomial_mmd(x[:50], y[:50]), 0.0)


# ---- scores -----------------------------------------------------------------------------------------


def test_inception_score_by_hand():
    # sure and even over K classes: K; the same class always: 1; unsure always: 1
    sure = torch.eye(4).repeat(5, 1) * 200 - 100
    assert inception_score(sure, splits=1).mean == pytest.approx(4)
    assert inception_score(sure[:1].repeat(8, 1), splits=1).mean == pytest.approx(1)
    assert inception_score(torch.zeros(8, 4), splits=2) == pytest.approx((1, 0))
    # p = (3/4, 1/4) and (1/4, 3/4): exp(3/4 log(3/2) + 1/4 log(1/2))
    logits = torch.tensor([[3.0, 1.0], [1.0, 3.0]]).log()
    want = math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert inception_score(logits, splits=1).mean == pytest.approx(want, rel=1e-6)
    # two splits of one sample each score 1
    assert inception_score(logits, splits=2).mean == pytest.approx(1)
    # -inf in effect: no NaN
    assert inception_score(torch.tensor([[0.0, -1e4], [0.0, -1e4]]), splits=1).mean == pytest.approx(1)


def test_precision_and_recall_by_hand():
    # on a line, k = 1. Real 0, 1, 3: radii 1, 1, 2, so [-1, 5] is covered. Fake 4, 6, 20: radii 2, 2, 14
    # cover [2, 34].
    real, fake = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[4.0], [6.0], [20.0]])
    assert precision_recall(real, fake, k=1) == pytest.approx((1 / 3, 1 / 3))
    # k = 2: radii 3, 2, 3 cover [-3, 6], the end included
    assert precision_recall(real, fake, k=2) == pytest.approx((2 / 3, 1))


def test_precision_falls_with_noise_and_recall_with_collapse():
    x = normal(500, 3, 0)
    noisy = precision_recall(x, normal(500, 3, 1, scale=3.0))
    collapsed = precision_recall(x, normal(500, 3, 2, scale=0.1))
    assert noisy.precision < 0.5 < noisy.recall
    assert collapsed.recall < 0.5 < collapsed.precision


# ---- images -----------------------------------------------------------------------------------------


def images(n, seed, channels=1, size=28):
    return torch.rand(n, channels, size, size, generator=seeded(seed)) * 2 - 1


class Means(nn.Module):
    """[n, C, H, W] -> the means of quarters, [n, 4 C]."""

    num_features = 4

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x.float(), 2).flatten(1)


def test_a_module_of_ones_own_gives_the_features():
    module = Means()
    real, fake = images(30, 0), images(40, 1)
    found = image_measures(real, fake, module)
    assert set(found) == {
        f"{name} by Means" for name in ("Frechet distance", "kernel distance", "precision", "recall")
    }
    assert found["Frechet distance by Means"] == frechet_distance(module(real), module(fake))
    assert module.training


@pytest.mark.slow
def test_the_formulas_agree_with_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")
    kid = pytest.importorskip("torchmetrics.image.kid")
    real, fake = images(60, 0, 3), images(60, 1, 3).square()
    module = Means()
    module.num_features = 12
    peer = fid.FrechetInceptionDistance(module, normalize=False).set_dtype(torch.float64)
    other = kid.KernelInceptionDistance(module, subsets=1, subset_size=60)
    for metric in (peer, other):
        metric.used_custom_model = True
        metric.update(real, real=True)
        metric.update(fake, real=False)
    r, f = module(real), module(fake)
    near(frechet_distance(r, f), peer.compute().item(), kind="peer", dtype=torch.float64)
    near(kernel_distance(r, f, subset_size=60).mean, other.compute()[0].item(), kind="peer")


@pytest.mark.slow
def test_inception_weights_by_path_give_fid_kid_and_is(tmp_path):
    """The way through torchmetrics, with random weights of Inception's shapes."""
    pytest.importorskip("torchmetrics")
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path / "inception.pth"
    torch.save(random_inception(fidelity, tmp_path), path)
    found = image_measures(images(6, 0, 3), images(6, 1, 3), path)
    assert set(found) == {"FID", "KID", "IS"} and all(math.isfinite(v) for v in found.values())
    assert found["IS"] >= 1 and found["FID"] >= 0
    # the same by torchmetrics' own use of Inception
    metric = pytest.importorskip("torchmetrics.image.fid").FrechetInceptionDistance(
        2048, feature_extractor_weights_path=str(path)
    )
    for x, is_real in ((images(6, 0, 3), True), (images(6, 1, 3), False)):
        metric.update(((x + 1) * 127.5).round().byte(), real=is_real)
    near(found["FID"], metric.compute().item(), kind="peer")


def random_inception(fidelity, folder):
    """The state dict of torch-fidelity's Inception, without its download."""
    kept = {}

    class Bare(fidelity.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_):
            kept.update(self.state_dict())

    nothing = folder / "nothing.pth"
    torch.save({}, nothing)
    Bare("inception-v3-compat", ["2048"], str(nothing))
    return kept


def test_the_digits_classifier_has_learnt_and_ranks_images():
    pytest.importorskip("sklearn")
    from fusegen.data import digits

    random = torch.get_rng_state()
    classifier = digits_classifier()
    assert torch.equal(random, torch.get_rng_state())
    assert classifier.accuracy > 0.95 and not classifier.training
    x = digits(28).samples()
    a, b = x[::3], x[1::3]  # the first hundreds are of other writers than the last
    good = image_measures(a, b, generator=seeded())
    assert set(good) == {
        f"digits {name}"
        for name in ("Frechet distance", "kernel distance", "precision", "recall", "classifier score")
    }
    noisy = image_measures(a, b + torch.randn(b.shape, generator=seeded()), generator=seeded())
    collapsed = image_measures(a, b[:40].repeat(15, 1, 1, 1), generator=seeded())
    for worse in (noisy, collapsed):
        assert worse["digits Frechet distance"] > 2 * good["digits Frechet distance"]
        assert worse["digits kernel distance"] > 2 * good["digits kernel distance"]
    assert good["digits classifier score"] > 8
    assert collapsed["digits recall"] < 0.7 * good["digits recall"]
    assert noisy["digits precision"] < good["digits precision"]
    # 32 px are seen as 28 px are
    at_32 = metrics.digits_frechet_distance(digits(32).samples()[::3], a)
    assert at_32 < good["digits Frechet distance"] / 10


# ---- sequences --------------------------------------------------------------------------------------

SHORT = PostHoc(steps=150, batch=32, hidden_size=12, lr=1e-2)


def waves(n, seed, noise=0.0, T=12):
    """Two sines of random phase [T, n, 2]."""
    random = seeded(seed)
    phase = torch.rand(n, 2, generator=random) * 2 * math.pi
    x = torch.sin(torch.arange(T).view(-1, 1, 1) * 0.7 + phase)
    return x + noise * torch.randn(x.shape, generator=random)


def test_discriminative_score():
    same = discriminative_score(waves(200, 0), waves(200, 1), options=SHORT)
    other = discriminative_score(waves(200, 0), waves(150, 1, noise=0.7), options=SHORT)
    assert same < 0.15 and other > 0.35
    random = torch.get_rng_state()
    again = discriminative_score(waves(200, 0), waves(200, 1), options=SHORT)
    assert again == same and torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("score", [discriminative_score, predictive_score])
def test_scores_read_within_the_lengths_alone(score):
    x, y = waves(60, 0), waves(60, 1)
    lengths = torch.arange(60) % 10 + 3
    past = torch.arange(12).unsqueeze(1) >= lengths
    filled = y.clone()
    filled[past] = 9.0
    brief = PostHoc(steps=20, batch=16, hidden_size=8)
    run = lambda fake: score(x, fake, real_lengths=lengths, fake_lengths=lengths, options=brief)
    assert run(y) == run(filled)


def test_predictive_score():
    test = waves(200, 0)
    good = predictive_score(test, waves(200, 1), options=SHORT)
    bad = predictive_score(test, torch.randn(12, 200, 2, generator=seeded()), options=SHORT)
    assert good < 0.25 < bad
    # a constant that the data do not show: the error is theirs to it. |sin| has mean 2 / pi.
    constant = predictive_score(test, torch.zeros(12, 200, 2), options=SHORT)
    assert constant == pytest.approx(2 / math.pi, abs=0.1)


def test_predictive_score_of_one_feature_from_the_others():
    """Feature 1 is feature 0 one step later: all that is needed is the input."""
    x = torch.randn(13, 300, 1, generator=seeded())
    both = torch.cat((x[1:], x[:-1]), 2)  # at t: (x[t + 1], x[t])
    forward = predictive_score(both, both, target=1, options=SHORT)
    backward = predictive_score(both, both, target=0, options=SHORT)
    assert forward < 0.3 < 0.6 < backward


# ---- bad input --------------------------------------------------------------------------------------

F23, F33 = torch.zeros(2, 3), torch.zeros(3, 3)
NAN = torch.full((4, 3), float("nan"))
S = torch.zeros(4, 6, 2)
BAD = {
    "rank": (lambda: frechet_distance(torch.zeros(3), F23), ValueError, r"real: expected features \[N, D\]"),
    "type": (lambda: frechet_distance([1], F23), TypeError, "real"),
    "features": (lambda: frechet_distance(F23, torch.zeros(2, 4)), ValueError, "got 3 and 4"),
    "one sample": (lambda: frechet_distance(F23, F23[:1]), ValueError, "fake: .* at least 2 samples, got 1"),
    "NaN": (lambda: polynomial_mmd(F23, NAN), ValueError, "fake: the features hold NaN"),
    "subset": (lambda: kernel_distance(F23, F33), ValueError, "subset_size: expected at most the 2"),
    "k": (lambda: precision_recall(F33, F33), ValueError, "at least 4 samples, got 3"),
    "logits": (lambda: inception_score(torch.zeros(4, 1)), ValueError, "logits"),
    "splits": (lambda: inception_score(F33), ValueError, "a split"),
    "image rank": (lambda: image_measures(S, S, Means()), ValueError, r"real: expected shape \[N, C, H, W\]"),
    "image NaN": (
        lambda: image_measures(images(4, 0), images(4, 0) / 0, Means()), ValueError, "fake: the images"
    ),
    "image shape": (lambda: image_measures(images(4, 0), images(4, 0, 3), Means()), ValueError, "one shape"),
    "bytes": (lambda: image_measures(images(4, 0).byte(), images(4, 0), Means()), TypeError, "real"),
    "weights": (lambda: image_measures(images(4, 0), images(4, 0), "no/file"), FileNotFoundError, "no/file"),
    "few": (lambda: discriminative_score(S, S[:, :4]), ValueError, "fake: expected at least 5"),
    "series features": (lambda: predictive_score(S, S[..., :1]), ValueError, "got 2 and 1"),
    "steps": (lambda: predictive_score(S, S[:1]), ValueError, "at least 2 steps"),
    "lengths": (lambda: predictive_score(S, S, fake_lengths=[5] * 6), ValueError, "fake_lengths: .* 1 to 4"),
    "target": (lambda: predictive_score(S, S, target=2), ValueError, "target"),
    "option": (lambda: PostHoc(steps=0), ValueError, "steps"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
