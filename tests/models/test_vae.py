"""VAE and ConvVAE: closed forms by hand and by Monte Carlo, the exact bounds of a linear model, labels."""

import copy
import math

import pytest
import torch
from fusegen.models import VAE, ConvVAE, Elbo
from fusegen.models.latent import (
    kl_to_standard_normal,
    log_normal,
    posterior_mean_variance,
    reparameterise,
)
from tolerances import close
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence

MODELS = {
    "dense": lambda **o: VAE(12, 3, (8,), **o),
    "image": lambda **o: ConvVAE((2, 9, 6), 3, (4, 5), (8,), **o),
}
LIKELIHOODS = ("bernoulli", "gaussian")


def make(kind, **options):
    return MODELS[kind](**options)


def data(model, n=5):
    return torch.rand(n, *model.data_shape, dtype=next(model.parameters()).dtype)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=MODELS)
def kind(request):
    return request.param


# The mathematics


def test_kl_and_log_normal_by_hand_and_against_torch_distributions():
    # KL(N(2, 4) || N(0, 1)) = (4 + 4 - 1 - ln 4) / 2; log N(1; 0, 1) = -1/2 - ln(2 pi) / 2
    kl = kl_to_standard_normal(torch.tensor(2.0), torch.tensor(4.0).log())
    assert kl.item() == pytest.approx((7 - math.log(4)) / 2)
    assert log_normal(torch.tensor(1.0), 0, 0).item() == pytest.approx(-0.5 - math.log(2 * math.pi) / 2)
    mean, log_variance, x = torch.randn(3, 6, 4, dtype=torch.float64)
    q = Normal(mean, (log_variance / 2).exp())
    prior = Normal(torch.zeros_like(mean), 1)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), kl_divergence(q, prior))
    torch.testing.assert_close(log_normal(x, mean, log_variance), q.log_prob(x))


def test_kl_keeps_its_digits():
    """Near the prior, where e^v - 1 - v cancels, and in bfloat16, which is computed in float32."""
    assert kl_to_standard_normal(torch.tensor(0.0), torch.tensor(1e-3)).item() == pytest.approx(
        2.5e-7, rel=1e-2
    )
    mean, log_variance = torch.randn(2, 50).bfloat16()
    kl = kl_to_standard_normal(mean, log_variance)
    assert kl.dtype == torch.float32
    torch.testing.assert_close(kl, kl_to_standard_normal(mean.float(), log_variance.float()))


def test_reparameterise_has_the_moments_and_the_gradient():
    mean = torch.tensor([0.5, -2.0], requires_grad=True)
    log_variance = torch.tensor([0.0, math.log(9.0)], requires_grad=True)
    z = reparameterise(mean.expand(40000, 2), log_variance.expand(40000, 2), generator())
    # four standard errors: 4 * 3 / sqrt(40000)
    torch.testing.assert_close(z.mean(0), mean, atol=0.06, rtol=0)
    torch.testing.assert_close(z.std(0), torch.tensor([1.0, 3.0]), atol=0.06, rtol=0)
    one = reparameterise(mean, log_variance, generator(1))
    one.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(2))
    torch.testing.assert_close(log_variance.grad, (one - mean).detach() / 2)  # dz/dv = e^(v/2) noise / 2


def test_posterior_mean_variance_over_batches_is_that_of_all():
    means = 100 + torch.randn(50, 3)
    expected = means.double().var(0, correction=0)
    for sizes in ([50], [1, 30, 19], [0, 49, 0, 1]):
        torch.testing.assert_close(posterior_mean_variance(means.split(sizes)), expected)
    with pytest.raises(ValueError, match=r"^loader: expected at least one"):
        posterior_mean_variance([means[:0]])


# Terms of the bound


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_log_likelihood_is_that_of_the_distribution(kind, likelihood):
    model = make(kind, likelihood=likelihood, **({"scale": 0.3} if likelihood == "gaussian" else {}))
    x, z = data(model).round(), torch.randn(5, 3)
    outputs = model.decode(z)
    assert outputs.shape == x.shape
    p = Bernoulli(logits=outputs) if likelihood == "bernoulli" else Normal(outputs, 0.3)
    torch.testing.assert_close(model.log_likelihood(z, x), p.log_prob(x).flatten(1).sum(1))
    torch.testing.assert_close(model.mean(outputs), p.mean)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_loss_is_its_terms(kind, likelihood):
    model = make(kind, likelihood=likelihood, beta=3.0)
    x = data(model)
    terms = model.elbo(x, generator=generator())
    assert isinstance(terms, Elbo) and terms.log_likelihood.shape == (5,) and terms.kl.shape == (5, 3)
    mean, log_variance = model.encode(x)
    z = reparameterise(mean, log_variance, generator())
    torch.testing.assert_close(terms.log_likelihood, model.log_likelihood(z, x))
    torch.testing.assert_close(terms.kl, kl_to_standard_normal(mean, log_variance))
    torch.testing.assert_close(terms.bound, terms.log_likelihood - terms.kl.sum(1))
    for beta, weight in ((None, 3.0), (0.0, 0.0), (0.5, 0.5), (1, 1.0)):
        loss = model.loss(x, beta=beta, generator=generator())
        torch.testing.assert_close(loss, (weight * terms.kl.sum(1) - terms.log_likelihood).mean())
    torch.testing.assert_close(model.loss(x, beta=1, generator=generator()), -terms.bound.mean())


def linear_model():
    """x = W z + b + 0.5 e with orthogonal columns in W, and the encoder set to the exact posterior.

    Its posterior, N((W'W + s2 I)^-1 W'(x - b), s2 (W'W + s2 I)^-1), is diagonal, and x is N(b, W W' + s2 I).
    """
    model = VAE(4, 2, (), likelihood="gaussian", scale=0.5, dtype=torch.float64)
    W = torch.tensor([[1.0, 2, 0, 1], [2, -1, 1, 0]], dtype=torch.float64).T
    b = torch.tensor([0.3, -1.0, 0.5, 2.0], dtype=torch.float64)
    precision = W.T @ W + 0.25 * torch.eye(2)
    assert precision[0, 1] == 0
    to_mean = precision.inverse() @ W.T
    with torch.no_grad():
        model.decoder[0].weight.copy_(W)
        model.decoder[0].bias.copy_(b)
        model.encoder[0].weight.copy_(torch.cat([to_mean, torch.zeros_like(to_mean)]))
        model.encoder[0].bias.copy_(torch.cat([-to_mean @ b, (0.25 / precision.diagonal()).log()]))
    return model, MultivariateNormal(b, W @ W.T + 0.25 * torch.eye(4))


@pytest.mark.parametrize(("k", "chunk"), [(1, None), (7, None), (7, 3), (7, 100)])
def test_iwae_of_the_exact_posterior_is_the_evidence(k, chunk):
    model, evidence = linear_model()
    x = evidence.sample((6,))
    bound = model.iwae(x, k, chunk=chunk)
    assert bound.shape == (6,)
    torch.testing.assert_close(bound, evidence.log_prob(x))


def test_bounds_of_a_wrong_posterior_rise_to_the_evidence():
    model, evidence = linear_model()
    with torch.no_grad():
        model.encoder[0].bias[2:] += 1.5  # too wide
    x = evidence.sample((200,))
    exact = evidence.log_prob(x).mean()
    elbo = exact - 2 * kl_divergence(Normal(0.0, math.exp(0.75)), Normal(0.0, 1.0)).item()
    bounds = torch.stack([model.iwae(x, k, generator=generator()).mean() for k in (1, 4, 40, 1000)])
    assert (bounds.diff() > 0).all() and bounds[-1].item() == pytest.approx(exact.item(), abs=0.05)
    sampled = model.elbo(x.repeat(50, 1)).bound.mean().item()
    assert sampled == pytest.approx(elbo.item(), abs=0.15)


def test_iwae_of_labels_and_images_matches_its_definition():
    model = make("image", num_classes=4, dtype=torch.float64)
    x, labels = data(model), torch.tensor([0, 3, 1, 2, 2])
    mean, log_variance = model.encode(x, labels)
    draws = generator(3)
    z = [reparameterise(mean, log_variance, draws) for _ in range(6)]
    q, prior = Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros_like(mean), 1)
    each = [model.log_likelihood(zi, x, labels) + (prior.log_prob(zi) - q.log_prob(zi)).sum(1) for zi in z]
    expected = torch.stack(each).exp().mean(0).log()
    for chunk in (None, 6, 1, 4):
        bound = model.iwae(x, 6, labels, chunk=chunk, generator=generator(3))
        torch.testing.assert_close(bound, expected)
    gradients = (torch.autograd.grad(b.sum(), [*model.parameters()]) for b in (bound, expected))
    torch.testing.assert_close(*gradients)


# Uses


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_sample_reconstruct_interpolate(kind, likelihood):
    model = make(kind, likelihood=likelihood)
    a, b = data(model), data(model)
    drawn = model.sample(7, generator=generator())
    assert drawn.shape == (7, *model.data_shape) and not drawn.requires_grad
    assert torch.equal(drawn, model.sample(7, generator=generator()))
    assert not torch.equal(drawn, model.sample(7, generator=generator(1)))
    z = torch.randn(7, 3, generator=generator())
    torch.testing.assert_close(drawn, model.mean(model.decode(z)))
    if likelihood == "bernoulli":
        assert drawn.min() > 0 and drawn.max() < 1
    way = model.interpolate(a, b, 5)
    assert way.shape == (5, *a.shape) and not way.requires_grad
    torch.testing.assert_close(way[0], model.reconstruct(a))
    torch.testing.assert_close(way[-1], model.reconstruct(b))
    middle = (model.encode(a)[0] + model.encode(b)[0]) / 2
    torch.testing.assert_close(way[2], model.mean(model.decode(middle)))
    assert model.sample(0).shape == (0, *model.data_shape)


def test_active_units_counts_what_the_encoder_moves():
    model = VAE(4, 3, ())
    with torch.no_grad():
        model.encoder[0].weight.zero_()
        model.encoder[0].weight[0, 0] = 1.0
        model.encoder[0].weight[2, 1] = 0.2
    x = torch.zeros(40, 4)
    x[::2, :2] = 1.0  # variance 1/4: of the means 0.25, 0 and 0.01
    torch.testing.assert_close(
        model.posterior_mean_variance([x]), torch.tensor([0.25, 0, 0.01], dtype=torch.float64)
    )
    assert model.active_units([x], 0.009) == 2
    assert model.active_units([x[:20], x[20:]], 0.011) == 1
    labels = torch.zeros(40, dtype=torch.long)
    assert model.active_units([(x, labels)], 0.26) == 0  # labels of a common loader are left alone
    conditional = VAE(4, 3, (), num_classes=2)
    assert conditional.active_units([[x, labels]]) <= 3
    with pytest.raises(ValueError, match=r"^loader"):
        model.active_units([])


def test_labels_reach_encoder_and_decoder(kind):
    model = make(kind, num_classes=3)
    x, z = data(model, 2), torch.randn(2, 3)
    zero, two = torch.tensor([0, 0]), torch.tensor([0, 2])
    for one, other in zip(model.encode(x, zero), model.encode(x, two), strict=True):
        torch.testing.assert_close(one[0], other[0])
        assert (one[1] - other[1]).abs().max() > 1e-3
    one, other = model.decode(z, zero), model.decode(z, two)
    torch.testing.assert_close(one[0], other[0])
    assert (one[1] - other[1]).abs().max() > 1e-3
    drawn = model.sample(2, two.to(torch.uint8), generator=generator())
    assert not torch.allclose(drawn, model.sample(2, zero, generator=generator()))
    assert model.reconstruct(x, two).shape == x.shape
    assert model.interpolate(x, x.flip(0), 3, two).shape == (3, *x.shape)


@pytest.mark.parametrize("options", [{}, {"likelihood": "gaussian"}, {"num_classes": 2}], ids=str)
def test_gradients_reach_every_parameter_and_a_few_samples_are_learnt(kind, options):
    model = make(kind, **options)
    x = data(model).round()
    labels = torch.tensor([0, 1, 0, 1, 1]) if "num_classes" in options else None
    model.loss(x, labels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert ("log_scale" in dict(model.named_parameters())) == ("likelihood" in options)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(150):
        losses.append(model.loss(x, labels))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert sum(losses[-10:]) / 10 < 0.9 * losses[0]


def test_a_decoder_told_the_label_learns_what_it_looks_like():
    model = VAE(4, 1, (), num_classes=2)
    x = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    labels = torch.tensor([0, 1])
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        model.loss(x, labels).backward()
        optimizer.step()
    assert torch.equal(model.sample(2, labels).round(), x)


def test_a_given_scale_is_not_learnt_and_is_saved():
    model = VAE(4, 2, likelihood="gaussian", scale=0.1)
    assert "log_scale" not in dict(model.named_parameters())
    assert model.state_dict()["log_scale"].exp().item() == pytest.approx(0.1)
    learnt = VAE(4, 2, likelihood="gaussian")
    learnt.load_state_dict(model.state_dict())
    assert learnt.log_scale.exp().item() == pytest.approx(0.1)


@pytest.mark.parametrize("size", [(1, 28, 28), (3, 4, 4), (2, 5, 7), (1, 33, 6), (1, 4, 31)], ids=str)
def test_images_of_any_size_come_back_in_it(size):
    model = ConvVAE(size, 2, (3, 4), (5,))
    x = torch.rand(2, *size)
    assert model.reconstruct(x).shape == x.shape


def test_no_hidden_layers_or_three():
    for hidden in ((), (6, 5, 4)):
        model = VAE(7, 2, hidden)
        assert model.reconstruct(torch.rand(3, 7)).shape == (3, 7)
        assert [m.out_features for m in model.encoder if hasattr(m, "out_features")] == [*hidden, 4]
        assert [m.out_features for m in model.decoder if hasattr(m, "out_features")] == [*hidden[::-1], 7]


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_compiles_as_one_graph(kind, likelihood):
    model = make(kind, num_classes=3, likelihood=likelihood)
    x, labels = data(model), torch.tensor([0, 1, 2, 0, 1])
    compiled = torch.compile(model.loss, fullgraph=True, backend="eager")
    torch.manual_seed(0)
    expected = model.loss(x, labels)
    torch.manual_seed(0)
    torch.testing.assert_close(compiled(x, labels), expected)
    compiled(x[:2], None if labels is None else labels[:2])  # with sizes that are symbols


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_bfloat16(kind, likelihood):
    model = make(kind, likelihood=likelihood)
    x = data(model)
    low = copy.deepcopy(model).bfloat16()
    loss = low.loss(x.bfloat16())
    assert loss.dtype == torch.float32
    loss.backward()
    close(low.reconstruct(x.bfloat16()), model.reconstruct(x), "value")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.loss(x).dtype == torch.float32


@pytest.mark.parametrize("kind", MODELS)
def test_encoder_dropout_hides_a_share_in_training_alone(kind):
    model = make(kind, encoder_dropout=0.25)
    plain = make(kind)
    plain.load_state_dict(model.state_dict())
    x = data(model)
    assert torch.equal(model.eval().encode(x)[0], plain.encode(x)[0])
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features = plain._features(x)
    model.train().encode(x.repeat(400, *[1] * (x.dim() - 1)))
    kept = seen[0].view(400, *features.shape)
    positive = features.expand_as(kept) > 0
    assert ((kept == 0) & positive).sum() / positive.sum() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(kept[kept > 0], (features / 0.75).expand_as(kept)[kept > 0])


# Refusals


@pytest.mark.parametrize(
    ("cls", "options", "error", "name"),
    [
        (VAE, {"data_size": 0}, ValueError, "data_size"),
        (VAE, {"data_size": 1.0}, TypeError, "data_size"),
        (VAE, {"latent_size": 0}, ValueError, "latent_size"),
        (VAE, {"hidden_sizes": 256}, TypeError, "hidden_sizes"),
        (VAE, {"hidden_sizes": "256"}, TypeError, "hidden_sizes"),
        (VAE, {"hidden_sizes": (4, 0)}, ValueError, r"hidden_sizes\[1\]"),
        (VAE, {"hidden_sizes": (4, 1.5)}, TypeError, r"hidden_sizes\[1\]"),
        (VAE, {"likelihood": "Bernoulli"}, ValueError, "likelihood"),
        (VAE, {"likelihood": "gaussian", "scale": 0}, ValueError, "scale"),
        (VAE, {"likelihood": "gaussian", "scale": "1"}, TypeError, "scale"),
        (VAE, {"scale": 1.0}, ValueError, "scale"),
        (VAE, {"beta": -1}, ValueError, "beta"),
        (VAE, {"beta": True}, TypeError, "beta"),
        (VAE, {"num_classes": 0}, ValueError, "num_classes"),
        (VAE, {"encoder_dropout": 1}, ValueError, "encoder_dropout"),
        (ConvVAE, {"encoder_dropout": "0.1"}, TypeError, "encoder_dropout"),
        (ConvVAE, {"image_size": 28}, TypeError, "image_size"),
        (ConvVAE, {"image_size": (28, 28)}, ValueError, "image_size"),
        (ConvVAE, {"image_size": (1, 3, 28)}, ValueError, "image_size"),
        (ConvVAE, {"image_size": (1, 28, 0)}, ValueError, r"image_size\[2\]"),
        (ConvVAE, {"channels": ()}, ValueError, "channels"),
        (ConvVAE, {"channels": (8, -1)}, ValueError, r"channels\[1\]"),
        (ConvVAE, {"latent_size": 0}, ValueError, "latent_size"),
    ],
)
def test_wrong_options(cls, options, error, name):
    with pytest.raises(error, match=f"^{name}: expected .*got"):
        cls(**options)


@pytest.mark.parametrize(
    ("x", "error"),
    [
        ([1.0], TypeError),
        (torch.zeros(2, 12, dtype=torch.uint8), TypeError),
        (torch.zeros(12), ValueError),
        (torch.tensor(0.0), ValueError),
        (torch.zeros(2, 13), ValueError),
        (torch.zeros(2, 3, 4), ValueError),
        (torch.full((2, 12), 1.1), ValueError),
        (torch.full((2, 12), -0.1), ValueError),
        (torch.full((2, 12), torch.nan), ValueError),
    ],
)
def test_wrong_x(x, error):
    for call in (lambda m: m.loss(x), lambda m: m.elbo(x), lambda m: m.iwae(x, 2)):
        with pytest.raises(error, match=r"^x: expected .*got"):
            call(make("dense"))


@pytest.mark.parametrize(
    ("classes", "labels", "error"),
    [
        (None, torch.zeros(2, dtype=torch.long), ValueError),
        (3, None, ValueError),
        (3, [0, 1], TypeError),
        (3, torch.zeros(2), TypeError),
        (3, torch.zeros(3, dtype=torch.long), ValueError),
        (3, torch.zeros(2, 1, dtype=torch.long), ValueError),
        (3, torch.tensor([0, 3]), ValueError),
        (3, torch.tensor([-1, 0]), ValueError),
    ],
)
def test_wrong_labels(kind, classes, labels, error):
    model = make(kind, num_classes=classes)
    x = data(model, 2)
    for call in (model.loss, model.encode, lambda _, y: model.sample(2, y), model.reconstruct):
        with pytest.raises(error, match=r"^labels: expected .*got"):
            call(x, labels)


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda m, x: m.sample(-1), ValueError, "n"),
        (lambda m, x: m.sample(2.0), TypeError, "n"),
        (lambda m, x: m.iwae(x, 0), ValueError, "k"),
        (lambda m, x: m.iwae(x, 2, chunk=0), ValueError, "chunk"),
        (lambda m, x: m.interpolate(x, x, 1), ValueError, "steps"),
        (lambda m, x: m.interpolate(x[:, :3], x, 2), ValueError, "a"),
        (lambda m, x: m.interpolate(x, x.long(), 2), TypeError, "b"),
        (lambda m, x: m.interpolate(x, x[:1], 2), ValueError, "b"),
        (lambda m, x: m.decode(torch.zeros(2, 4)), ValueError, "z"),
        (lambda m, x: m.decode(torch.zeros(3)), ValueError, "z"),
        (lambda m, x: m.decode([0.0]), TypeError, "z"),
        (lambda m, x: m.log_likelihood(torch.zeros(2, 3), x[:, :1]), ValueError, "x"),
        (lambda m, x: m.loss(x, beta=-1), ValueError, "beta"),
        (lambda m, x: m.loss(x, beta="1"), TypeError, "beta"),
        (lambda m, x: m.active_units([x], -1), ValueError, "threshold"),
    ],
)
def test_methods_refuse_by_name(call, error, name):
    model = make("dense")
    with pytest.raises(error, match=f"^{name}: expected .*got"):
        call(model, data(model, 2))
