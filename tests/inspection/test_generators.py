"""Dimensions of z, overlaps, ways, units of generators, gradients of discriminators, nearest neighbours."""

import math

import pytest
import torch
from fusegen import inspect, models
from fusegen.data import Vocabulary
from tolerances import TOLERANCE

EXACT = TOLERANCE[torch.float64, "value"]
CLOSE = TOLERANCE[torch.float32, "value"]


class Known(torch.nn.Module):
    """Encodes a row [mean, log variance] as what it says."""

    def encode(self, x):
        return x.chunk(2, 1)


# ---- dimensions of z ----------------------------------------------------------------------------------


def test_dimensions_that_differ_from_example_to_example_are_active():
    mean = torch.tensor([[1.0, 0.0, 0.3], [-1.0, 0.0, 0.3], [3.0, 0.0, 0.3]], dtype=torch.float64)
    log_variance = torch.tensor([-2.0, 0.0, -1.0], dtype=torch.float64).expand(3, 3)
    batches = [torch.cat([mean, log_variance], 1)[:2], torch.cat([mean, log_variance], 1)[2:]]
    found = inspect.latent_dimensions(Known(), batches)
    assert found.active.tolist() == [True, False, False]
    assert found.variance[0] == pytest.approx(8 / 3) and found.noise[2] == pytest.approx(math.exp(-1))
    assert found.means.tolist() == pytest.approx([1, 0, 0.3])
    # KL of normal distributions by torch's own.
    own = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    assert (found.kl - own.mean(0)).abs().max() <= EXACT
    assert found.by_kl() == [0] and found.by_kl(active=False) == [0, 2, 1]
    assert not inspect.latent_dimensions(Known(), batches, threshold=3.0).active.any()


@pytest.mark.parametrize("kind", ["VAE", "ConvVAE", "of classes", "SequenceVAE"])
def test_dimensions_of_the_models(kind):
    x, labels, tokens = torch.rand(6, 1, 4, 4), torch.arange(6) % 3, torch.randint(9, (5, 6))
    model, batches = {
        "VAE": (lambda: models.VAE(16, 3, (8,)), [x.flatten(1)]),
        "ConvVAE": (lambda: models.ConvVAE((1, 4, 4), 3, (4,)), [x]),
        "of classes": (lambda: models.VAE(16, 3, (8,), num_classes=3), [(x.flatten(1), labels)]),
        "SequenceVAE": (lambda: models.SequenceVAE(9, 4, 5, 3, dropout=0.5), [(tokens, [5, 4, 3, 2, 1, 0])]),
    }[kind]
    model = model().train()
    found = inspect.latent_dimensions(model, batches)
    overlap = inspect.posterior_overlap(model, batches, most=4)
    assert model.training and found.kl.shape == (3,) and overlap.matrix.shape == (4, 4)
    with torch.no_grad():
        mean = model.eval().encode(*(batches[0] if isinstance(batches[0], tuple) else batches))[0].double()
    assert (found.variance - mean.var(0, correction=0)).abs().max() < CLOSE
    assert int(found.active.sum()) == model.active_units(batches)


def test_overlap_is_that_of_densities():
    """Bhattacharyya's coefficient, the integral of sqrt(p q), on a fine grid."""
    rows = torch.tensor([[0.0, 0.0], [1.5, -1.0], [0.2, 1.0]], dtype=torch.float64)
    found = inspect.posterior_overlap(Known(), [rows])
    grid = torch.linspace(-20, 20, 40001, dtype=torch.float64)
    p = [torch.distributions.Normal(m, math.exp(v / 2)).log_prob(grid).exp() for m, v in rows.tolist()]
    for i in range(3):
        for j in range(3):
            want = torch.trapezoid((p[i] * p[j]).sqrt(), grid)
            assert found.matrix[i, j] == pytest.approx(want.item(), abs=1e-6)
    assert found.mean == pytest.approx((found.matrix.sum() - 3).item() / 6)
    assert found.by_dimension[0] == pytest.approx(found.mean)


def test_no_batch_is_read_once_there_are_enough_examples():
    def batches():
        yield torch.randn(2, 4)
        yield torch.randn(2, 4)
        raise AssertionError("a third batch was asked for")

    assert inspect.posterior_overlap(Known(), batches(), most=4).matrix.shape == (4, 4)


def test_overlaps_of_dimensions_multiply():
    rows = torch.randn(5, 4, dtype=torch.float64)
    both = inspect.posterior_overlap(Known(), [rows]).matrix
    parts = [inspect.posterior_overlap(Known(), [rows[:, [d, d + 2]]]).matrix for d in (0, 1)]
    assert (both - parts[0] * parts[1]).abs().max() <= EXACT
    same = inspect.posterior_overlap(Known(), [rows[:1].repeat(3, 1)])
    assert same.mean == pytest.approx(1) and same.by_dimension.tolist() == pytest.approx([1, 1])


# ---- ways ---------------------------------------------------------------------------------------------


def test_a_traversal_moves_one_dimension_and_leaves_the_others():
    model, base = models.VAE(6, 3, (8,)), torch.randn(3)
    drawn = inspect.traversals(model, [2, 0], [-1.0, 0.5], base=base)
    assert drawn.shape == (2, 2, 6)
    z = base.clone()
    z[2] = 0.5
    with torch.no_grad():
        want = model.eval().mean(model.decode(z[None]))[0]
    assert (drawn[0, 1] - want).abs().max() < CLOSE
    middle = inspect.traversals(model, [0], [0.0])[0, 0]  # z = 0 whatever the dimension
    assert torch.allclose(middle, inspect.traversals(model, [1], [0.0])[0, 0])


def test_a_traversal_of_a_class():
    model = models.ConvVAE((1, 4, 4), 2, (4,), num_classes=3)
    a, b = (inspect.traversals(model, [1], labels=torch.tensor([k])) for k in (0, 2))
    assert a.shape == (1, 7, 1, 4, 4) and not torch.allclose(a, b)


def test_sentences_along_a_dimension_are_those_of_z():
    model = models.SequenceVAE(5, 4, 8, 2)
    vocabulary = Vocabulary("character", ("\N{REPLACEMENT CHARACTER}", *"abcd"))
    base = torch.randn(2)
    found = inspect.sentences_along(model, vocabulary, [1, 0], [-2.0, 2.0], base=base, max_length=6)
    assert [len(row) for row in found] == [2, 2]
    z = base.clone()
    z[1] = 2.0
    tokens, lengths = model.decode(z[None], 6)
    assert found[0][1] == vocabulary.decode(tokens[: lengths[0], 0])


@pytest.mark.parametrize("kind", ["MLPGAN", "DCGAN", "of classes", "series", "tokens"])
def test_a_way_begins_and_ends_with_what_the_noises_give(kind):
    gan, labels = {
        "MLPGAN": (lambda: models.MLPGAN((1, 4, 4), 6, (8,), (8,)), None),
        "DCGAN": (lambda: models.DCGAN(28, 1, 6, 2), None),
        "of classes": (
            lambda: models.MLPGAN((3,), 6, (8,), (8,), num_classes=3, ema=0.5),
            torch.tensor([2, 0]),
        ),
        "series": (lambda: models.RecurrentGAN(2, steps=4, noise_size=6, hidden_size=5), None),
        "tokens": (lambda: models.RecurrentGAN(vocab_size=7, steps=4, noise_size=6, hidden_size=5), None),
    }[kind]
    gan = gan()
    first, last = gan.noise(2), gan.noise(2)
    ways = inspect.interpolation(gan, first, last, 5, labels=labels, seed=3)
    dim = gan.sample_dim
    shape = (4, 2, 5) if dim else (2, 5)
    assert ways.shape[: len(shape)] == shape
    for at, noise in ((0, first), (-1, last)):
        want = gan.sample_of(noise, labels, generator=torch.Generator().manual_seed(3))
        assert torch.allclose(ways.select(1 + dim, at).float(), want.float(), atol=1e-5)


def test_arcs_keep_the_length_and_straight_lines_are_for_one_direction():
    from fusegen.models.latent import arcs

    a = torch.nn.functional.normalize(torch.randn(4, 30, dtype=torch.float64), dim=1)
    b = torch.nn.functional.normalize(torch.randn(4, 30, dtype=torch.float64), dim=1)
    assert (arcs(a, b, 7).norm(dim=2) - 1).abs().max() <= EXACT
    same = arcs(a, 3 * a, 3)
    assert (same[:, 1] - 2 * a).abs().max() < 1e-6 and same.isfinite().all()
    assert arcs(a, -a, 3).isfinite().all()


# ---- units --------------------------------------------------------------------------------------------


def test_units_are_measured_by_their_absence():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    x = torch.randn(5, 3)
    found = inspect.unit_effects(net, lambda: net(x), "1")
    assert found.units == (0, 1, 2, 3) and found.maps.shape == (4, 2)
    with torch.no_grad():
        hidden, whole = net[:2](x), net(x)
        for u in range(4):
            h = hidden.clone()
            h[:, u] = 0
            moved = net[2](h) - whole
            assert found.change[u] == pytest.approx(moved.abs().mean().item(), rel=1e-4, abs=1e-7)
            assert torch.allclose(found.maps[u].float(), moved.mean(0), atol=1e-6)
        order = found.change.argsort(descending=True).tolist()
    assert found.strongest() == order
    some = inspect.unit_effects(net, lambda: net(x), "1", [3, 1])
    assert some.units == (3, 1) and some.change.tolist() == found.change[[3, 1]].tolist()
    assert not net[1]._forward_hooks


@pytest.mark.parametrize("name", ["generator.1", "generator.2", "generator.3"])
def test_units_of_a_convolutional_generator_are_its_channels(name):
    gan = models.DCGAN(28, 1, 5, 2)
    noise = gan.noise(3)
    found = inspect.unit_effects(gan, lambda: gan.sample_of(noise), name)
    channels = {"generator.1": 4, "generator.2": 4, "generator.3": 4}[name]
    assert len(found.units) == channels and found.maps.shape == (channels, 1, 28, 28) and gan.training


def test_units_of_a_recurrent_generator_are_its_own():
    gan = models.RecurrentGAN(2, steps=4, noise_size=4, hidden_size=5)
    noise = gan.noise(3)
    found = inspect.unit_effects(gan, lambda: gan.sample_of(noise), "generator.rnn", sample_dim=1)
    assert len(found.units) == 5 and found.maps.shape == (5, 4, 2) and (found.change > 0).all()


def test_silent_units_nest_with_those_of_recurrent_layers():
    model = torch.nn.ModuleDict({"rnn": models.RecurrentGAN(2, hidden_size=5).generator.rnn,
                                 "head": torch.nn.Linear(5, 3)})  # fmt: skip
    x = torch.randn(4, 2, model["rnn"].input_size)
    with torch.no_grad(), inspect.ablate(model, range(5), "rnn"), inspect.ablate(model, 1, "head"):
        y = model["head"](model["rnn"](x)[0])
    want = model["head"].bias.detach().clone()
    want[1] = 0
    assert torch.allclose(y, want.expand(4, 2, 3))


# ---- the discriminator's gradient ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["MLPGAN", "vectors of classes", "images of classes", "DCGAN", "DCGAN of classes"]
)
def test_the_gradient_is_that_of_the_samples_alone(kind):
    labels = torch.tensor([0, 2])
    gan, told = {
        "MLPGAN": (lambda: models.MLPGAN((2, 4, 4), 6, (8,), (8,)), None),
        "vectors of classes": (lambda: models.MLPGAN((5,), 6, (8,), (8,), num_classes=3), labels),
        "images of classes": (lambda: models.MLPGAN((2, 4, 4), 6, (8,), (8,), num_classes=3), labels),
        "DCGAN": (lambda: models.DCGAN(28, 1, 6, 2), None),
        "DCGAN of classes": (lambda: models.DCGAN(28, 3, 6, 2, num_classes=3), labels),
    }[kind]
    gan = gan()
    x = torch.randn(2, *gan.shape)
    got = inspect.input_gradient(gan, x, told)
    assert got.shape == x.shape and got.abs().max() > 0
    for place in torch.randint(x[0].numel(), (3,)).tolist():  # by differences, in float64
        net, step = gan.double(), torch.zeros(2, x[0].numel(), dtype=torch.float64)
        step[1, place] = 1e-6
        with torch.no_grad():
            sides = [
                net.discriminator(net.critic_input(x.double() + s * step.view_as(x), told)).sum()
                for s in (1, -1)
            ]
        assert got[1].flatten()[place].item() == pytest.approx(
            (sides[0] - sides[1]).item() / 2e-6, rel=1e-3, abs=1e-5
        )
        gan.float()


def test_the_gradient_of_sequences_is_of_values_and_of_tokens():
    gan = models.RecurrentGAN(2, steps=4, hidden_size=5, num_classes=2)
    x = gan.sample(3, labels=1)
    got = inspect.input_gradient(gan, x, 1, [4, 2, 1])
    assert got.shape == x.shape and (got[2:, 1] == 0).all() and got[:, 0].abs().min() > 0
    words = models.RecurrentGAN(vocab_size=6, steps=4, hidden_size=5)
    tokens = words.sample(3)
    assert inspect.input_gradient(words, tokens).shape == (4, 3, 6)


# ---- neighbours ---------------------------------------------------------------------------------------


def test_the_nearest_of_the_data_and_how_far_it_is():
    data, samples = torch.randn(40, 2, 3), torch.randn(7, 2, 3)
    found = inspect.nearest_neighbours(samples, data, torch.randn(5, 2, 3))
    apart = (samples.double()[:, None] - data.double()[None]).square().sum((2, 3)).sqrt()
    assert found.index.tolist() == apart.argmin(1).tolist() and found.baseline.shape == (5,)
    assert (found.distance - apart.min(1).values).abs().max() < 1e-9


def test_copies_are_told_from_new_samples():
    data, new = torch.randn(300, 5), torch.randn(200, 5)
    fresh = inspect.nearest_neighbours(torch.randn(200, 5), data, new)
    copies = inspect.nearest_neighbours(data[:100] + 1e-3, data, new)
    assert 0.85 < fresh.ratio < 1.15 and 0.4 < fresh.closer < 0.6
    assert copies.ratio < 0.01 and copies.closer == 1
    beside = inspect.nearest_neighbours(torch.randn(50, 5) + 20, data, new)
    assert beside.ratio > 5 and beside.closer == 0


def test_without_data_held_out_it_is_the_data_to_each_other():
    data = torch.arange(6.0).view(6, 1) ** 2
    found = inspect.nearest_neighbours(data[:2], data)
    assert found.baseline.tolist() == [1, 1, 3, 5, 7, 9] and found.distance.tolist() == [0, 0]
    assert found.ratio == 0 and found.closer == 1
    apart = inspect.nearest_neighbours(data[:2], data, overlap=1)  # neighbours in order do not count
    assert apart.baseline.tolist() == [4, 8, 4, 8, 12, 16]


def test_equal_distances_count_half(monkeypatch):
    from fusegen.inspect.generators import neighbours

    data = torch.arange(30.0).view(30, 1)
    found = inspect.nearest_neighbours(torch.tensor([[-1.0], [31.5]]), data)  # 1 and 2.5; the baseline is 1
    assert found.closer == pytest.approx(0.25)
    monkeypatch.setattr(neighbours, "_AT_ONCE", 7)  # in parts
    again = inspect.nearest_neighbours(torch.tensor([[-1.0], [31.5]]), data)
    assert again.index.tolist() == [0, 29] and again.closer == found.closer


# ---- bad input ----------------------------------------------------------------------------------------

VAE, GAN = models.VAE(6, 3, (8,)), models.MLPGAN((2,), 3, (4,), (4,))
NET = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
X = torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: inspect.latent_dimensions(NET, []), TypeError, "expected a VAE, a ConvVAE or a SequenceVAE"),
        (lambda: inspect.latent_dimensions(VAE, []), ValueError, "expected at least one example, got none"),
        (lambda: inspect.latent_dimensions(VAE, [], threshold=-1), ValueError, "threshold: expected"),
        (
            lambda: inspect.posterior_overlap(VAE, [torch.rand(1, 6)]),
            ValueError,
            "two examples or more, got 1",
        ),
        (lambda: inspect.traversals(NET, [0]), TypeError, "expected a VAE or a ConvVAE, got Sequential"),
        (lambda: inspect.traversals(VAE, [3]), ValueError, r"dimensions: z has 0\.\.2, got \[3\]"),
        (lambda: inspect.traversals(VAE, []), ValueError, "dimensions: z has"),
        (lambda: inspect.traversals(VAE, [0], []), ValueError, "values: expected at least one"),
        (lambda: inspect.traversals(VAE, [0], base=X), ValueError, r"expected base \[3\], got \[2, 2\]"),
        (
            lambda: inspect.sentences_along(models.SequenceVAE(5, 2, 3, 2), Vocabulary("byte"), [0]),
            ValueError,
            "expected a vocabulary of 5 tokens, got 256",
        ),
        (
            lambda: inspect.sentences_along(models.SequenceVAE(256, 2, 3, 0), Vocabulary("byte"), [0]),
            ValueError,
            "z has none",
        ),
        (lambda: inspect.interpolation(VAE, X, X), TypeError, "expected a GAN, got VAE"),
        (lambda: inspect.interpolation(GAN, X, X), ValueError, r"expected first \[N, 3\], as gan.noise"),
        (
            lambda: inspect.interpolation(GAN, torch.zeros(1, 3), torch.zeros(2, 3)),
            ValueError,
            "first and last of one shape",
        ),
        (
            lambda: inspect.unit_effects(NET, lambda: NET(X), "2"),
            ValueError,
            "no module is named '2'; the nearest is",
        ),
        (
            lambda: inspect.unit_effects(NET, lambda: NET(X), "1", [3]),
            ValueError,
            r"1 has units 0\.\.2, not 3",
        ),
        (
            lambda: inspect.unit_effects(NET, lambda: NET(X), "1", []),
            ValueError,
            "units: expected at least one",
        ),
        (
            lambda: inspect.unit_effects(NET, lambda: None, "1"),
            ValueError,
            "expected make.. to give a Tensor",
        ),
        (
            lambda: inspect.unit_effects(NET, lambda: torch.rand(2), "1"),
            ValueError,
            "the same samples each time",
        ),
        (lambda: inspect.unit_effects(NET, lambda: X, "1"), ValueError, "1 was not called by make"),
        (
            lambda: inspect.ablate(NET, 0, "1", layer=1).__enter__(),
            ValueError,
            "layer, direction: expected 0 of ReLU",
        ),
        (lambda: inspect.input_gradient(NET, X), TypeError, "expected a GAN, got Sequential"),
        (lambda: inspect.input_gradient(GAN, X[:, :1]), ValueError, r"samples: expected shape \[N, 2\]"),
        (lambda: inspect.nearest_neighbours([1], X), TypeError, "expected samples as a real Tensor"),
        (
            lambda: inspect.nearest_neighbours(X[:0], X),
            ValueError,
            r"expected samples \[N, ...\], none of them 0",
        ),
        (
            lambda: inspect.nearest_neighbours(X, X[:, :1]),
            ValueError,
            "points of one size, got samples 2, data 1",
        ),
        (lambda: inspect.nearest_neighbours(X, X, overlap=5), ValueError, "data of which two do not overlap"),
    ],
)
def test_what_does_not_fit_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
