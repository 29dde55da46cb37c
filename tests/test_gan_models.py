"""The GANs and their step: shapes, labels, lengths, averages, lazy penalties, and NaN that stops it."""

import copy
import itertools

import numpy as np
import pytest
import torch
from fusegen import losses
from fusegen.gan import GanOptions, Optimizers, gan_step
from fusegen.gan.training import _finite
from fusegen.models import DCGAN, MLPGAN, RecurrentGAN
from fusegen.models.gan.recurrent import gumbel_noise, straight_through
from tolerances import close
from torch import nn

N, T = 6, 5


def mlp(**options):
    return MLPGAN((1, 6, 6), 8, (16, 12), (16, 10), **options)


def dcgan(size=28, channels=1, **options):
    return DCGAN(size, channels, 8, 4, **options)


def series(**options):
    return RecurrentGAN(3, steps=T, noise_size=4, hidden_size=8, **options)


def text(**options):
    return RecurrentGAN(vocab_size=7, steps=T, noise_size=4, hidden_size=8, cell="gru", **options)


MODELS = {"mlp": mlp, "dcgan": dcgan, "series": series, "text": text}


def real_of(model, n=N):
    """Samples as a user has them."""
    if not isinstance(model, RecurrentGAN):
        return torch.rand(n, *model.shape) * 2 - 1
    if model.vocab_size:
        return torch.randint(model.vocab_size, (T, n))
    return torch.rand(T, n, model.features) * 2 - 1


def labels_of(model, n=N):
    return torch.arange(n) % model.num_classes if model.num_classes else None


def state(net):
    return {name: t.clone() for name, t in net.state_dict().items()}


def same_state(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- models -----------------------------------------------------------------------------------------


def test_the_sizes_of_mlpgan():
    def linear(net):
        return [(m.in_features, m.out_features) for m in net.modules() if isinstance(m, nn.Linear)]

    model = MLPGAN()
    assert linear(model.generator) == [(100, 256), (256, 512), (512, 784)]
    assert linear(model.discriminator) == [(784, 256), (256, 256), (256, 1)]
    assert isinstance(model.generator[-2], nn.Tanh)


@pytest.mark.parametrize(("size", "channels"), list(itertools.product((28, 32, 64), (1, 3))))
def test_dcgan_makes_and_judges_images_of_its_size(size, channels):
    model = dcgan(size, channels, num_classes=3)
    x = model.sample(4, labels=2)
    assert x.shape == (4, channels, size, size) and x.abs().max() <= 1
    assert model.discriminator(model.critic_input(x, torch.tensor([0, 1, 2, 0]))).shape == (4, 1)
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.generator.modules())


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("classes", [0, 3])
def test_sampling_is_repeatable_and_leaves_the_model_alone(make, classes):
    model = make(num_classes=classes, ema=0.9)
    model.train()
    before, random = state(model), torch.get_rng_state()
    draw = lambda seed, **kw: model.sample(N, generator=torch.Generator().manual_seed(seed), **kw)
    x = draw(1)
    assert torch.equal(x, draw(1)) and not torch.equal(x, draw(2))
    assert torch.equal(random, torch.get_rng_state())
    assert same_state(before, state(model)) and all(m.training for m in model.modules())
    assert not x.requires_grad
    if make is text:
        assert x.shape == (T, N) and x.dtype == torch.int64
    elif make is series:
        assert x.shape == (T, N, 3)
    if classes:
        assert torch.equal(draw(1, labels=2), draw(1, labels=[2] * N))
        if make is not text:  # a token may come out the same
            assert not torch.equal(draw(1, labels=2), draw(1, labels=1))


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_truncation_bounds_the_noise(make):
    model, random = make(), torch.Generator().manual_seed(3)
    z = model.noise(4000, truncation=0.5, generator=random)
    assert 0.45 < z.abs().max() <= 0.5 and abs(z.mean()) < 0.02
    assert model.noise(4000, generator=random).abs().max() > 2.5
    assert model.sample(2, truncation=0.5, generator=random).numel()


def test_shared_noise_is_the_same_at_all_steps():
    z = RecurrentGAN(2, noise_size=6, shared=4).noise(3, 5)
    assert z.shape == (5, 3, 6)
    assert torch.equal(z[..., :4], z[:1, :, :4].expand(5, -1, -1))
    assert not torch.equal(z[0, :, 4:], z[1, :, 4:])


@pytest.mark.parametrize("make", [series, text], ids=["series", "text"])
def test_what_lies_past_a_sequences_end_changes_nothing(make):
    model = make(num_classes=2).double()
    lengths, labels = torch.tensor([1, 5, 3, 2, 4, 5]), torch.arange(N) % 2
    past = torch.arange(T).unsqueeze(1) >= lengths
    real = real_of(model)
    other = real.clone()
    if make is series:
        real, other = real.double(), other.double()
        other[past] = float("nan")
    else:
        other[past] = 6 - other[past]
    judge = lambda x, **kw: model.discriminator(model.critic_input(x, labels, **kw))
    assert torch.equal(judge(real, lengths=lengths), judge(other, lengths=lengths))
    # and equals the sequence cut there, alone
    for i, n in enumerate(lengths.tolist()):
        alone = model.discriminator(model.critic_input(real[:n, i : i + 1], labels[i : i + 1]))
        assert torch.allclose(judge(real, lengths=lengths)[i], alone[0], rtol=1e-12)
    assert not torch.allclose(judge(real, lengths=lengths), judge(real))
    fake = model.fakes(real, labels, lengths)
    assert (fake[past] == 0).all() and (fake[~past].abs().sum(-1) > 0).all()


def test_straight_through_is_one_hot_with_the_gradient_of_softmax():
    scores = torch.tensor([[1.0, 3.0, 2.0], [0.2, 0.1, -4.0]], dtype=torch.float64, requires_grad=True)
    out = straight_through(scores, 0.7)
    assert out.tolist() == [[0, 1, 0], [1, 0, 0]]
    weight = torch.randn(2, 3, dtype=torch.float64)
    (got,) = torch.autograd.grad((out * weight).sum(), scores)
    (want,) = torch.autograd.grad(((scores / 0.7).softmax(-1) * weight).sum(), scores)
    assert torch.allclose(got, want, rtol=1e-12)


def test_gumbel_noise_makes_argmax_a_draw_from_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0])
    g = gumbel_noise((50_000, 3), logits, torch.Generator().manual_seed(0))
    share = torch.bincount((logits + g).argmax(1), minlength=3) / 50_000
    assert torch.allclose(share, logits.softmax(0), atol=0.01)  # a deviation is 0.002


class Forgetful(nn.Module):
    """A recurrent layer that takes no state along."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x, state):
        return self.rnn(x)[0], None


def test_text_reads_back_what_it_drew():
    """Gradient from the last token to the noise of the first, where the draws are the only way."""
    model = text()
    model.generator.rnn = Forgetful(model.generator.rnn)
    noise = model.noise(8).requires_grad_()
    model.generate(noise)[-1, :, 0].sum().backward()
    assert noise.grad[0].abs().sum() > 0


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_spectral_norm_bounds_every_weight_of_the_discriminator(make):
    model = make(spectral_norm=True)
    optimizers = Optimizers.adam(model, 1e-3)
    for step in range(30):
        gan_step(model, real_of(model), optimizers, step=step)
    model.eval()
    weights = [
        getattr(m, name) for m in model.discriminator.modules() for name in getattr(m, "parametrizations", {})
    ]
    layers = [m for m in model.discriminator.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.RNNBase)]
    assert len(weights) >= len(layers)
    for w in weights:
        assert torch.linalg.matrix_norm(w.detach().flatten(1), 2).item() == pytest.approx(1, abs=0.1)


# ---- the average ------------------------------------------------------------------------------------


def test_the_average_follows_parameters_and_buffers():
    model = dcgan(ema=0.5)
    want = state(model.generator)
    optimizers = Optimizers.adam(model, 1e-2)
    for step in range(4):
        gan_step(model, real_of(model), optimizers, step=step)
        # AveragedModel copies at the first update; later the decay is min(ema, (1 + t) / (10 + t))
        decay = 0.0 if step == 0 else min(0.5, (1 + step) / (10 + step))
        for name, now in model.generator.state_dict().items():
            floats = now.is_floating_point()
            want[name] = decay * want[name] + (1 - decay) * now if floats else now.clone()
    got = model.average.module.state_dict()
    assert any(name.endswith("running_var") for name in got)
    for name in want:
        assert torch.allclose(got[name], want[name], rtol=1e-5, atol=1e-6), name
    assert model.drawn_from is model.average.module
    assert not any(p.requires_grad for p in model.average.parameters())


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_state_dict_brings_back_all_of_it(make):
    model, other = make(ema=0.9, num_classes=2), make(ema=0.9, num_classes=2)
    optimizers = Optimizers.adam(model, 1e-2)
    for step in range(3):
        gan_step(model, real_of(model), optimizers, step=step, labels=labels_of(model))
    other.load_state_dict(model.state_dict())
    draw = lambda m: m.sample(3, labels=1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(model), draw(other)) and torch.equal(draw(model), draw(copy.deepcopy(model)))


# ---- the step ---------------------------------------------------------------------------------------


def by_hand(model, real, labels, options, weights, generator, rates=(0.1, 0.1)):
    """The step in plain torch: losses, penalties by double differentiation, gradient descent."""
    dim = model.sample_dim

    def logits(x):
        return model.discriminator(x).flatten()

    def input_gradient(x):
        recurrent = isinstance(model, RecurrentGAN)
        width, at = (model.features, 2) if recurrent else (model._own_width, 1)
        if recurrent or model.num_classes:
            own, extra = x.split((width, x.shape[at] - width), at)
        else:
            own, extra = x, x[:, :0]
        own = own.detach().requires_grad_()
        z = logits(torch.cat((own, extra), at))
        (v,) = torch.autograd.grad(z.sum(), own, create_graph=True)
        return v.movedim(dim, 0).flatten(1).norm(dim=1)

    x = model.critic_input(real, labels)
    fake = model.fakes(x, labels, generator=generator)
    y = model.critic_input(fake, labels)
    d = losses.discriminator_loss(options.loss, logits(x), logits(y.detach()))
    penalty = torch.zeros(())
    if "r1" in weights:
        penalty = penalty + weights["r1"] / 2 * input_gradient(x).square().mean()
    if "r2" in weights:
        penalty = penalty + weights["r2"] / 2 * input_gradient(y.detach()).square().mean()
    if "gp" in weights:
        share = torch.rand([N if i == dim else 1 for i in range(x.dim())], generator=generator)
        mixed = torch.lerp(x, y.detach(), share)
        penalty = penalty + weights["gp"] * (input_gradient(mixed) - 1).square().mean()
    descend(model.discriminator, d + penalty, rates[1])
    y = model.critic_input(fake, labels)
    r = logits(x).detach() if options.loss == "relativistic" else None
    g = losses.generator_loss(options.loss, logits(y), r)
    descend(model.generator, g, rates[0])
    return d.item(), penalty.item(), g.item()


def descend(net, loss, rate):
    parameters = list(net.parameters())
    grads = torch.autograd.grad(loss, parameters, retain_graph=True)
    with torch.no_grad():
        for p, g in zip(parameters, grads, strict=True):
            p -= rate * g


@pytest.mark.parametrize("penalty", ["none", "r1", "r2", "gp"])
@pytest.mark.parametrize("classes", [0, 2])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_equals_the_step_in_plain_torch(make, classes, penalty):
    model = make(num_classes=classes)
    twin = copy.deepcopy(model)
    weights = {} if penalty == "none" else {penalty: 2.0}
    options = GanOptions(loss="relativistic" if penalty == "r1" else "hinge", **weights)
    real, labels = real_of(model), labels_of(model)
    optimizers = [torch.optim.SGD(net.parameters(), 0.1) for net in (model.generator, model.discriminator)]
    report = gan_step(
        model, real, optimizers, options, labels=labels, generator=torch.Generator().manual_seed(1)
    )
    d, p, g = by_hand(twin, real, labels, options, weights, torch.Generator().manual_seed(1))
    assert report.discriminator_loss == pytest.approx(d, rel=1e-4, abs=1e-5)
    assert report.generator_loss == pytest.approx(g, rel=1e-4, abs=1e-5)
    assert (report.penalty or 0) == pytest.approx(p, rel=1e-4, abs=1e-6)
    for name, want in twin.state_dict().items():
        got = model.state_dict()[name]
        assert torch.allclose(got.double(), want.double(), rtol=1e-4, atol=2e-6), name


@pytest.mark.parametrize(
    ("make", "classes", "penalised", "plain"),
    [
        (mlp, 0, "fused_mlp", "fused_mlp"),
        (mlp, 3, "autograd", "fused_mlp"),
        (dcgan, 0, "fused_conv", "autograd"),
        (series, 0, "recurrent", "recurrent"),
        (text, 3, "recurrent", "recurrent"),
    ],
)
def test_the_path_is_reported(make, classes, penalised, plain):
    for norm in (False, True):
        model = make(num_classes=classes, spectral_norm=norm)
        optimizers = Optimizers.adam(model)
        options = GanOptions(r1=1.0, penalty_every=2)
        paths = [
            gan_step(model, real_of(model), optimizers, options, step=i, labels=labels_of(model)).path
            for i in range(2)
        ]
        assert paths == [penalised, plain], f"spectral_norm={norm}"


def test_a_lazy_penalty_is_as_strong_on_average():
    model = mlp()
    optimizers = [torch.optim.SGD(net.parameters(), 0.0) for net in (model.generator, model.discriminator)]
    real = real_of(model)
    run = lambda **kw: [
        gan_step(model, real, optimizers, GanOptions(r1=3.0, **kw), step=i).penalty for i in range(8)
    ]
    always, lazy = run(), run(penalty_every=4)
    assert lazy[1:4] == lazy[5:8] == [None] * 3
    assert lazy[0] == pytest.approx(4 * always[0], rel=1e-5)
    assert sum(p or 0 for p in lazy) == pytest.approx(sum(always), rel=1e-5)


def test_the_generator_may_be_trained_less_often():
    model = mlp(ema=0.9)
    optimizers = Optimizers.adam(model)
    reports = []
    for step in range(6):
        before = state(model.generator)
        reports.append(gan_step(model, real_of(model), optimizers, GanOptions(generator_every=3), step=step))
        assert same_state(before, state(model.generator)) == (step % 3 != 2)
    assert [r.generator_loss is not None for r in reports] == [False, False, True] * 2
    assert model.average.n_averaged == 2


def test_clip_bounds_the_gradient():
    model = mlp()
    before = state(model)
    optimizers = [torch.optim.SGD(net.parameters(), 1.0) for net in (model.generator, model.discriminator)]
    gan_step(model, real_of(model), optimizers, GanOptions(clip=1e-3))
    for name in ("generator", "discriminator"):
        moved = [(t - before[k]).flatten() for k, t in model.state_dict().items() if k.startswith(name)]
        assert torch.cat(moved).norm() == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("make", [mlp, series], ids=["mlp", "series"])
def test_it_learns(make):
    """Samples move to where the data are."""
    model = make(ema=0.9)
    optimizers = Optimizers.adam(model, 3e-3)
    real = (0.6 + 0.05 * torch.randn(real_of(model, 32).shape)).clamp(-1, 1)
    off = lambda: (model.sample(64) - 0.6).abs().mean().item()
    before = off()
    for step in range(120):
        gan_step(model, real, optimizers, GanOptions(r1=0.1, penalty_every=4), step=step)
    assert off() < before / 2


AUTOCAST = {"device_type": "cpu", "dtype": torch.bfloat16}


@pytest.mark.parametrize("penalty", ["none", "r1", "r2", "gp"])
@pytest.mark.parametrize("classes", [0, 2])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_autocast_computes_what_float32_does(make, classes, penalty):
    model = make(num_classes=classes)
    twin, before = copy.deepcopy(model), state(model)
    # of all losses, the one whose gradients by real and by fake samples do not cancel in an untrained network
    options = GanOptions("least_squares", **({} if penalty == "none" else {penalty: 2.0}))
    real, labels = real_of(model), labels_of(model)
    reports = []
    for net, enabled in ((model, True), (twin, False)):
        random = torch.Generator().manual_seed(1)
        sgd = [torch.optim.SGD(part.parameters(), 0.1) for part in (net.generator, net.discriminator)]
        with torch.autocast(**AUTOCAST, enabled=enabled):
            reports.append(gan_step(net, real, sgd, options, labels=labels, generator=random))
    got, want = ([r.discriminator_loss, r.penalty or 0.0, r.generator_loss] for r in reports)
    close(torch.tensor(got, dtype=torch.bfloat16), torch.tensor(want), "value", "losses")
    if make is text:  # whose draws may fall on another token
        return
    for name in ("generator", "discriminator"):
        got, want = (
            torch.cat([(p - before[k]).flatten() for k, p in net.named_parameters() if k.startswith(name)])
            for net in (model, twin)
        )
        close(got.bfloat16(), want, "grad", f"the {name}'s update")


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_one_autocast_around_all_steps_is_one_around_each(make):
    """Autocast keeps the weights that it cast until it ends: those of the step before would be used again."""
    models = [make(ema=0.5)]
    models.append(copy.deepcopy(models[0]))
    real = real_of(models[0])
    for model, contexts in zip(models, ((1, 3), (3, 1)), strict=True):
        random = torch.Generator().manual_seed(1)
        optimizers = Optimizers.adam(model, 1e-2)
        for _ in range(contexts[0]):
            with torch.autocast(**AUTOCAST):
                for _ in range(contexts[1]):
                    gan_step(model, real, optimizers, generator=random)
    assert same_state(*map(state, models))


# ---- what goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [mlp, dcgan, series], ids=["mlp", "dcgan", "series"])
@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_nan_in_the_data_stops_it_before_anything_moves(make, value, word):
    model = make(ema=0.9)
    real = real_of(model)
    real.view(-1)[3] = value
    before = state(model)
    with pytest.raises(FloatingPointError, match=f"step 17: real holds {word}"):
        gan_step(model, real, Optimizers.adam(model), step=17)
    assert same_state(before, state(model))


def test_nan_in_the_logits_stops_it():
    model = mlp()
    model.discriminator[-1].weight.data[0, 0] = float("nan")
    before = state(model.generator)
    with pytest.raises(FloatingPointError, match="step 4: the discriminator's step gives NaN"):
        gan_step(model, real_of(model), Optimizers.adam(model), step=4)
    assert same_state(before, state(model.generator))


def test_an_infinite_gradient_stops_it():
    model = mlp()
    last = model.discriminator[-1]
    last.register_parameter("weight", nn.Parameter(last.weight.detach() * 1e38))
    model.discriminator[1].weight.data *= 1e-38
    before = state(model.discriminator)
    with pytest.raises(FloatingPointError, match="step 0"):
        gan_step(model, real_of(model), Optimizers.adam(model), GanOptions(loss="wasserstein", r1=1.0))
    assert same_state(before, state(model.discriminator))


def test_finite_says_what():
    _finite(0, "x holds", torch.zeros(2))
    with pytest.raises(FloatingPointError, match="step 2: x holds NaN"):
        _finite(2, "x holds", torch.tensor([float("inf"), float("nan")]))


BAD_MODELS = {
    "noise": (lambda: MLPGAN(noise_size=0), ValueError, "noise_size"),
    "one class": (lambda: MLPGAN(num_classes=1), ValueError, "num_classes"),
    "ema": (lambda: DCGAN(ema=1.0), ValueError, "ema"),
    "size": (lambda: DCGAN(size=30), ValueError, "size: expected one of 28, 32, 64, got 30"),
    "channels": (lambda: DCGAN(channels=2), ValueError, "channels"),
    "hidden": (lambda: MLPGAN(hidden=()), ValueError, "hidden"),
    "hidden type": (lambda: MLPGAN(hidden=3), TypeError, "hidden"),
    "neither": (lambda: RecurrentGAN(), ValueError, "features, vocab_size"),
    "both": (lambda: RecurrentGAN(3, vocab_size=3), ValueError, "features, vocab_size"),
    "cell": (lambda: RecurrentGAN(3, cell="rnn"), ValueError, "cell"),
    "output": (lambda: RecurrentGAN(3, output="relu"), ValueError, "output"),
    "temperature": (lambda: RecurrentGAN(vocab_size=3, temperature=0), ValueError, "temperature"),
    "spectral norm": (lambda: MLPGAN(spectral_norm=1), TypeError, "spectral_norm"),
    "loss": (lambda: GanOptions(loss="gan"), ValueError, "loss"),
    "penalty": (lambda: GanOptions(r1=-1), ValueError, "r1"),
    "interval": (lambda: GanOptions(penalty_every=0), ValueError, "penalty_every"),
    "weight beyond floats": (lambda: GanOptions(r1=10**400), ValueError, "r1: expected a number at least 0"),
    "clip beyond floats": (
        lambda: GanOptions(clip=10**400),
        ValueError,
        "clip: expected a number at least 0",
    ),
    "lazy weight beyond floats": (
        lambda: GanOptions(gp=1e308, penalty_every=100),
        ValueError,
        r"gp, penalty_every: .* 1e\+308 and 100",
    ),
    "no features": (lambda: RecurrentGAN(0), ValueError, "features: expected an integer at least 1, got 0"),
    "cells": (lambda: RecurrentGAN(3, cell=["lstm"]), ValueError, r"cell: .* got \['lstm'\]"),
    "outputs": (lambda: RecurrentGAN(3, output=["tanh"]), ValueError, r"output: .* got \['tanh'\]"),
    "size of float": (lambda: DCGAN(28.0), TypeError, "size: expected an integer, got float 28.0"),
    "sizes": (lambda: DCGAN([28]), TypeError, r"size: expected an integer, got list \[28\]"),
    "channels of bool": (lambda: DCGAN(28, True), TypeError, "channels: expected an integer, got bool True"),
    "channels of float": (lambda: DCGAN(28, 1.0), TypeError, "channels: expected an integer, got float 1.0"),
}
BAD_CALLS = {
    "no labels": (lambda: step_of(mlp(num_classes=2)), ValueError, "labels: this model has 2 classes"),
    "labels": (lambda: step_of(mlp(), labels=torch.zeros(N).long()), ValueError, "labels: this model has no"),
    "label range": (
        lambda: step_of(mlp(num_classes=2), labels=torch.arange(N)), ValueError, "from 0 to 1, got 0 to 5"
    ),
    "label count": (
        lambda: step_of(mlp(num_classes=2), labels=torch.zeros(2).long()), ValueError, r"\[6\], got \[2\]"
    ),
    "label type": (lambda: step_of(mlp(num_classes=2), labels=torch.zeros(N)), TypeError, "labels"),
    "shape": (lambda: step_of(mlp(), real=torch.zeros(N, 1, 5, 5)), ValueError, r"expected shape \[N, 1, 6"),
    "dtype": (lambda: step_of(mlp(), real=torch.zeros(N, 1, 6, 6).long()), TypeError, "samples"),
    "lengths of images": (lambda: step_of(dcgan(), lengths=torch.ones(N)), ValueError, "lengths"),
    "lengths": (lambda: step_of(series(), lengths=torch.arange(N)), ValueError, "from 1 to 5, got 0 to 5"),
    "token": (lambda: step_of(text(), real=torch.full((T, N), 7)), ValueError, "tokens from 0 to 6, got 7"),
    "eval": (lambda: step_of(mlp().eval()), RuntimeError, "training mode"),
    "n": (lambda: mlp().sample(0), ValueError, "n: expected"),
    "sample label": (lambda: mlp(num_classes=3).sample(2, labels=3), ValueError, "from 0 to 2, got 3"),
    "unclassed": (lambda: mlp().sample(2, labels=3), ValueError, "no classes"),
    "truncation": (lambda: mlp().sample(2, truncation=0), ValueError, "truncation"),
    "sample lengths": (lambda: series().sample(2, lengths=[1, 9]), ValueError, "from 1 to 5"),
    "options": (lambda: step_of(mlp(), options={}), TypeError, "options: expected GanOptions, got dict"),
    "model": (
        lambda: gan_step(nn.Linear(4, 1), torch.randn(6, 4), None), TypeError, "model: .* got Linear without"
    ),
    "no grad": (lambda: torch.no_grad()(step_of)(mlp()), RuntimeError, "gan_step: expected gradients"),
    "inference": (lambda: torch.inference_mode()(step_of)(mlp()), RuntimeError, "expected gradients"),
    "sparse": (lambda: step_of(mlp(), real_of(mlp()).to_sparse()), TypeError, "samples: .* torch.sparse_coo"),
    "device": (
        lambda: step_of(mlp(), real_of(mlp()).to("meta")), RuntimeError, "same device, got meta and cpu"
    ),
    "complex tokens": (
        lambda: step_of(text(), torch.zeros(T, N).cfloat()), TypeError, "samples: .* torch.complex64"
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", [mlp, dcgan, series], ids=["mlp", "dcgan", "series"])
def test_another_dtype_than_the_models_is_named(make):
    model = make()
    with pytest.raises(RuntimeError, match=r"same dtype, got torch.float64 and torch.float32"):
        step_of(model, real_of(model).double())


def step_of(model, real=None, **kw):
    return gan_step(model, real_of(model) if real is None else real, Optimizers.adam(model), **kw)


@pytest.mark.parametrize(
    ("call", "error", "message"), [*BAD_MODELS.values(), *BAD_CALLS.values()], ids=[*BAD_MODELS, *BAD_CALLS]
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("classes", [0, 2])
def test_no_samples_are_named(make, classes):
    model = make(num_classes=classes)
    real = real_of(model)
    empty = [real.narrow(model.sample_dim, 0, 0)]
    if make in (series, text):
        empty.append(real[:0])
    for x in empty:
        labels = labels_of(model, x.shape[model.sample_dim])
        lengths = torch.ones(x.shape[1], dtype=torch.int64) if make in (series, text) else None
        for call in (model.critic_input, lambda x, **kw: step_of(model, x, **kw)):
            with pytest.raises(
                ValueError, match=rf"samples: expected at least one, got shape \[{x.shape[0]}, "
            ):
                call(x, labels=labels, lengths=lengths)


ANY_FORM = "expected an integer, a sequence of them or an integer tensor, got"
WRONG_INTEGERS = [
    (torch.zeros(N, dtype=torch.complex64), TypeError, "expected an integer tensor, got torch.complex64"),
    (torch.tensor(torch.nan), TypeError, "expected an integer tensor, got torch.float32"),
    (2.5, TypeError, f"{ANY_FORM} float 2.5"),
    (True, TypeError, f"{ANY_FORM} bool True"),
    ("abc", TypeError, f"{ANY_FORM} str 'abc'"),
    (np.array(1), TypeError, f"{ANY_FORM} ndarray"),
    ([1.5] * N, TypeError, "expected an integer, got float 1.5"),
    ([True] * N, TypeError, "expected an integer, got bool True"),
    (np.ones(N), TypeError, "expected an integer, got float64"),
    (2**70, ValueError, f"expected an integer from . to ., got {2**70}"),
    ([1] * (N - 1) + [2**70], ValueError, rf"\[{N - 1}\]: expected .*, got {2**70}"),
    (torch.full((N,), 2**63 + 1, dtype=torch.uint64), ValueError, "expected values from . to ., got -"),
    ([1], ValueError, r"expected shape \[6\], got \[1\]"),
]
INTEGERS = {
    "int": 1,
    "numpy int": np.int64(1),
    "list": [1] * N,
    "tuple": (1,) * N,
    "numpy": np.ones(N, dtype=np.int32),
    "scalar": torch.tensor(1),
    "unsigned": torch.ones(N, dtype=torch.uint16),
    "tensor": torch.ones(N, dtype=torch.int64),
}


def takes_integers(model, name):
    """Every call that takes labels or lengths (``name``), by its own name."""
    besides = {} if name == "labels" else {"labels": labels_of(model)}
    seeded = lambda: torch.Generator().manual_seed(0)
    drawing = {"generator": seeded()} if isinstance(model, RecurrentGAN) else {}
    real, noise = real_of(model), model.noise(N, generator=seeded())
    return {
        "critic_input": lambda x: model.critic_input(real, **besides, **{name: x}),
        "generate": lambda x: model.generate(noise, **besides, **drawing, **{name: x}),
        "sample": lambda x: model.sample(N, generator=seeded(), **besides, **{name: x}),
        "gan_step": lambda x: step_of(model, real, generator=seeded(), **besides, **{name: x}),
    }


TAKERS = [(mlp, "labels"), (dcgan, "labels"), (series, "labels"), (series, "lengths"), (text, "lengths")]


@pytest.mark.parametrize("call", ["critic_input", "generate", "sample", "gan_step"])
@pytest.mark.parametrize(("make", "name"), TAKERS, ids=lambda x: getattr(x, "__name__", x))
def test_labels_and_lengths_are_integers_in_any_form(make, name, call):
    want = None
    for form, given in INTEGERS.items():
        torch.manual_seed(0)
        got = takes_integers(make(num_classes=3), name)[call](given)
        if call == "gan_step":
            got = torch.tensor([got.discriminator_loss, got.generator_loss])
        want = got if want is None else want
        assert torch.equal(got, want), form


@pytest.mark.parametrize("call", ["critic_input", "generate", "sample", "gan_step"])
@pytest.mark.parametrize(("make", "name"), TAKERS, ids=lambda x: getattr(x, "__name__", x))
def test_labels_and_lengths_of_other_types_are_named(make, name, call):
    taker = takes_integers(make(num_classes=3), name)[call]
    for given, error, message in WRONG_INTEGERS:
        with pytest.raises(error, match=rf"^{name}.*{message}"):
            taker(given)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("classes", [0, 2])
def test_noise_that_does_not_fit_is_named(make, classes):
    model = make(num_classes=classes)
    labels, good = labels_of(model), model.noise(N)
    expected = r"\[T, B, 4\]" if make in (series, text) else r"\[N, 8\]"
    for noise in (good[0], good[..., 1:], good[:0], good.unsqueeze(0)):
        with pytest.raises(ValueError, match=rf"^noise: expected shape {expected}.*, got \[{noise.shape[0]}"):
            model.generate(noise, labels)
    for noise, got in (([1.0], "list"), (good.long(), "torch.int64")):
        with pytest.raises(TypeError, match=f"^noise: expected a .*tensor, got {got}"):
            model.generate(noise, labels)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("classes", [0, 2])
def test_a_generator_of_another_type_is_named(make, classes):
    model = make(num_classes=classes)
    takers = [lambda: model.noise(2, generator=0), lambda: model.sample(2, generator=0)]
    takers.append(lambda: step_of(model, labels=labels_of(model), generator=0))
    if make is text:
        takers.append(lambda: model.generate(model.noise(N), labels_of(model), generator=0))
    for call in takers:
        with pytest.raises(TypeError, match=r"^generator: expected a torch.Generator, got int"):
            call()


@pytest.mark.parametrize(
    ("given", "error", "got"),
    [
        (lambda a, b: None, TypeError, "NoneType"),
        (lambda a, b: a, TypeError, "Adam"),
        (lambda a, b: "ab", TypeError, "str"),
        (lambda a, b: (a,), ValueError, "1"),
        (lambda a, b: (a, b, a), ValueError, "3"),
        (lambda a, b: ("a", "b"), TypeError, "str and str"),
        (lambda a, b: (a, None), TypeError, "Adam and NoneType"),
    ],
)
def test_optimizers_are_two(given, error, got):
    model = mlp()
    optimizers = given(*Optimizers.adam(model))
    with pytest.raises(error, match=f"^optimizers: expected two, .*, got {got}$"):
        gan_step(model, real_of(model), optimizers)


@pytest.mark.parametrize("make", [mlp, dcgan, series], ids=["mlp", "dcgan", "series"])
@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
def test_real_samples_receive_no_gradient(make, loss):
    model = make()
    leaf = real_of(model).requires_grad_()
    for real in (leaf, leaf * 1):
        gan_step(model, real, Optimizers.adam(model), GanOptions(loss, r1=1.0))
    assert leaf.grad is None


def test_swapped_optimizers_are_refused():
    model = MLPGAN((4,), 3, (5,), (5,))
    optimizers = [torch.optim.SGD(net.parameters(), 0.1) for net in (model.discriminator, model.generator)]
    with pytest.raises(ValueError, match=r"optimizers: expected the generator's and the discriminator's"):
        gan_step(model, torch.randn(6, 4), tuple(optimizers))


@pytest.mark.parametrize("labels", [torch.tensor(1.7), torch.tensor(True)])
def test_a_single_label_is_an_integer(labels):
    with pytest.raises(TypeError, match="labels: expected an integer tensor"):
        MLPGAN((4,), 3, (5,), (5,), num_classes=3).sample(2, labels=labels)
