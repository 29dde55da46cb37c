"""The GANs and their step: shapes, labels, lengths, averages, lazy penalties, and NaN that stops it."""

import copy
import itertools

import pytest
import torch
from fusegen import losses
from fusegen.gan import GanOptions, Optimizers, gan_step
from fusegen.gan.training import _finite
from fusegen.gan.turns import discriminator_turn
from fusegen.models import MLPGAN, RecurrentGAN
from fusegen.models.gan.recurrent import gumbel_noise, straight_through
from gan_models import MODELS, N, T, dcgan, labels_of, mlp, real_of, residual, same_state, series, state, text
from tolerances import agree, close
from torch import nn

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
        agree(judge(real, lengths=lengths)[i], alone[0])
    assert not torch.allclose(judge(real, lengths=lengths), judge(real))
    fake = model.fakes(real, labels, lengths)
    assert (fake[past] == 0).all() and (fake[~past].abs().sum(-1) > 0).all()


@pytest.mark.parametrize(("dtype", "steps"), [(torch.bfloat16, 301), (torch.float16, 2051)])
def test_steps_are_counted_beyond_what_16_bits_hold(dtype, steps):
    model = RecurrentGAN(vocab_size=2, steps=steps, hidden_size=2, noise_size=2).to(dtype)
    tokens, lengths = torch.randint(2, (steps, 40)), torch.arange(40) % 3 + steps - 2
    seen = []
    model.discriminator.rnn.register_forward_pre_hook(
        lambda m, args, options: seen.append(options["lengths"]), with_kwargs=True
    )
    model.discriminator(model.critic_input(tokens, lengths=lengths))
    assert torch.equal(seen[0], lengths)
    found = model.surprise(tokens, lengths=lengths).item()  # of 12,000 or 82,000 tokens
    want = model.double().surprise(tokens, lengths=lengths).item()
    assert found == pytest.approx(want, rel=1e-2)


def test_a_residual_generator_begins_as_its_noise():
    model = residual(begun=False)
    noise = model.noise(N)
    assert torch.equal(model.generate(noise), noise[..., 2:5])
    model = residual()
    x = model.generate(noise)
    assert not torch.equal(x, noise[..., 2:5])
    # a step is made of what was before it, and of its own noise by its scale alone
    later, own = noise.clone(), noise.clone()
    later[3:] += 1
    own[2, :, 2:5] += 1
    assert torch.equal(model.generate(later)[:3], x[:3])
    assert (model.generate(own)[2] > x[2]).all()


@pytest.mark.parametrize("lengths", [None, [T, 2, 1, T, 3, T]], ids=["full", "ragged"])
def test_the_surprise_is_that_of_the_noise_and_of_how_much_it_is_stretched(lengths):
    """log p(x) = log p(n) - log |dx / dn|, n the noise that gives x, by autograd's Jacobian."""
    model = residual().double()
    noise = model.noise(N)
    x = model.generate(noise, lengths=lengths)
    found = model.generator.surprise(x, noise, None if lengths is None else torch.tensor(lengths))
    total, count = 0.0, 0
    for b, length in enumerate(lengths or [T] * N):
        given = noise[:, b : b + 1]
        made = lambda own, given=given: model.generate(torch.cat((given[..., :2], own, given[..., 5:]), 2))
        jacobian = torch.autograd.functional.jacobian(made, given[..., 2:5]).reshape(3 * T, 3 * T)
        inside = 3 * length
        total += given[:length, :, 2:5].square().sum() / 2 + jacobian[:inside, :inside].logdet()
        count += inside
    agree(found.detach(), (total / count).detach())
    with pytest.raises(ValueError, match="surprise: only a residual generator has a likelihood"):
        series().surprise(torch.zeros(T, N, 3))


def test_the_discriminator_sees_levels_beside_the_values():
    model, x = residual(), torch.randn(T, N, 3)
    seen = []
    model.discriminator.rnn.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.discriminator(model.critic_input(x))
    agree(seen[0], torch.cat((x, model.discriminator.levels(x)), 2))
    assert not any("levels" in name for name in model.state_dict())


def test_straight_through_is_one_hot_with_the_gradient_of_softmax():
    scores = torch.tensor([[1.0, 3.0, 2.0], [0.2, 0.1, -4.0]], dtype=torch.float64, requires_grad=True)
    out = straight_through(scores, 0.7)
    assert out.tolist() == [[0, 1, 0], [1, 0, 0]]
    weight = torch.randn(2, 3, dtype=torch.float64)
    (got,) = torch.autograd.grad((out * weight).sum(), scores)
    (want,) = torch.autograd.grad(((scores / 0.7).softmax(-1) * weight).sum(), scores)
    agree(got, want)


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
        agree(got[name], want[name], name)
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
    found = [report.discriminator_loss, report.generator_loss, report.penalty or 0]
    agree(torch.tensor(found), torch.tensor([d, g, p]), "losses")
    for name, want in twin.state_dict().items():
        agree(model.state_dict()[name], want, name)


@pytest.mark.parametrize(
    ("make", "classes", "penalised", "plain"),
    [
        (mlp, 0, "fused_mlp", "fused_mlp"),
        (mlp, 3, "fused_mlp", "fused_mlp"),
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
    agree(torch.tensor(lazy[0]), torch.tensor(4 * always[0]))
    agree(torch.tensor(sum(p or 0 for p in lazy)), torch.tensor(sum(always)))


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("classes", [0, 3])
def test_approximate_penalties_move_the_samples_alone(make, classes):
    """Labels, lengths and what marks them stay, and what lies past a sequence's end counts for nothing."""
    torch.manual_seed(0)
    model = make(num_classes=classes)
    besides = labels_of(model), [T, 2, 1, T, 3, T] if model.sample_dim else None
    real = model.critic_input(real_of(model), *besides)
    fake = model.critic_input(model.fakes(real, *besides).detach(), *besides)
    options = GanOptions(r1=3.0, r2=0.5, penalty_every=2, approximate_r1=0.1, approximate_r2=0.2)
    out = discriminator_turn(model, real, fake, options, 4, torch.Generator().manual_seed(7))
    again = torch.Generator().manual_seed(7)
    D, at = model.discriminator, 2 if model.sample_dim else 1
    width = model.features if model.sample_dim else real.shape[1] - model.num_classes
    expected = torch.zeros(())
    for x, weight, deviation in ((real, 6.0, 0.1), (fake, 1.0, 0.2)):
        noise = torch.randn(x.shape, generator=again)
        noise.narrow(at, width, x.shape[at] - width).zero_()
        if model.sample_dim:
            noise *= x[..., -1:]  # 1 within a sequence
        both = D(torch.cat((x, x + deviation * noise), model.sample_dim)).flatten()
        plain, moved = both.chunk(2)
        expected = expected + weight / 2 * ((moved - plain) / deviation).square().mean()
    agree(out.penalty, expected.detach())
    assert discriminator_turn(model, real, fake, options, 5).penalty == 0
    out.loss.backward()
    assert all(p.grad is not None for p in D.parameters())


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
