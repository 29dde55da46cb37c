"""Penalties by finite differences, by the formula and on every route; conditions that no penalty counts."""

import copy

import fusegen
import pytest
import torch
from fusegen import losses
from fusegen.gan import (
    DiscriminatorStep,
    GanOptions,
    HeldLabels,
    Optimizers,
    Projection,
    discriminator_step,
    gan_step,
)
from fusegen.models import DCGAN, MLPGAN, RecurrentGAN
from gan_networks import PATHS, batch_norm, conv, dense, samples
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import same
from torch import nn


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def by_hand(D, real, fake, loss, draw, dim=0, counted=None, r1=0.0, r2=0.0, gp=0.0, s1=None, s2=None):
    """Each pass of D by itself, in the order in which a step draws."""

    def z(x):
        return D(x).flatten(1).mean(1) if D(x).dim() > 1 else D(x)

    def near(x, weight, s):
        e = torch.randn(x.shape, dtype=x.dtype, generator=draw)
        if counted is not None:
            e.narrow(counted[0], counted[1], e.shape[counted[0]] - counted[1]).zero_()
        return weight / 2 * ((z(x + s * e) - z(x)) / s).square().mean()

    def exact(x):
        x = x if x.requires_grad else x.detach().requires_grad_()
        (v,) = torch.autograd.grad(z(x).sum(), x, create_graph=True)
        v = v if counted is None else v.narrow(counted[0], 0, counted[1])
        return v.movedim(dim, 0).flatten(1)

    total = losses.discriminator_loss(loss, z(real), z(fake))
    for x, weight, s in ((real, r1, s1), (fake, r2, s2)):
        if weight:
            total = total + (near(x, weight, s) if s else weight / 2 * exact(x).square().sum(1).mean())
    if gp:
        shape = [1] * real.dim()
        shape[dim] = real.shape[dim]
        mixed = torch.lerp(real.detach(), fake.detach(), torch.rand(shape, dtype=real.dtype, generator=draw))
        total = total + gp * (exact(mixed).norm(dim=1) - 1).square().mean()
    return total


def compare(
    D, shape, dim=0, nr=5, nf=4, loss="non_saturating", counted=None, paths=None, plain=None, **options
):
    """plain: the network by hand, where it is another than D."""
    twin = copy.deepcopy(D if plain is None else plain)
    real, fake = (samples(shape, n, dim).requires_grad_() for n in (nr, nf))
    s1, s2 = options.get("approximate_r1"), options.get("approximate_r2")
    weights = {name: w for name, w in options.items() if name in ("r1", "r2", "gp")}
    out = discriminator_step(D, real, fake, loss, generator=seeded(), **options)
    assert paths is None or out.path in paths, (out.path, out.reason)
    want = by_hand(twin, real, fake, loss, seeded(), dim, counted, s1=s1, s2=s2, **weights)
    same(out.loss, want, "loss")
    assert out.real_logits.shape == (nr,) and out.fake_logits.shape == (nf,)
    plain_loss = losses.discriminator_loss(loss, out.real_logits, out.fake_logits)
    same(out.penalty, want - plain_loss, "penalty")
    assert out.stats["mean_real"] == pytest.approx(out.real_logits.mean().item())
    got = torch.autograd.grad(
        out.loss, [*D.parameters(), real, fake], allow_unused=True, materialize_grads=True
    )
    expected = torch.autograd.grad(
        want, [*twin.parameters(), real, fake], allow_unused=True, materialize_grads=True
    )
    if counted is not None:
        last = [g.narrow(counted[0], 0, counted[1]) for g in expected[-2:]]
        beyond = [g.narrow(counted[0], counted[1], g.shape[counted[0]] - counted[1]) for g in got[-2:]]
        assert all((g == 0).all() for g in beyond)
        got = [*got[:-2], *(g.narrow(counted[0], 0, counted[1]) for g in got[-2:])]
        expected = [*expected[:-2], *last]
    for k, (g, w) in enumerate(zip(got, expected, strict=True)):
        same(g, w, f"gradient {k}")
    return out


APPROXIMATE = {
    "r1": {"r1": 3.0, "approximate_r1": 0.1},
    "r2": {"r2": 2.0, "approximate_r2": 0.2},
    "both": {"r1": 3.0, "approximate_r1": 0.1, "r2": 2.0, "approximate_r2": 0.2},
    "beside exact ones": {"r1": 3.0, "approximate_r1": 0.1, "r2": 2.0, "gp": 1.0},
}


@pytest.mark.parametrize("penalty", APPROXIMATE)
@pytest.mark.parametrize("path", ["dense", "relu", "images", "smooth", "conv", "patches", "recurrent"])
def test_equals_the_formula(path, penalty):
    make, shape, dim, _ = PATHS[path]
    options = APPROXIMATE[penalty]
    fused = {"dense", "relu", "images", "smooth"}
    paths = ("fused_mlp",) if path in fused else None
    compare(make().double(), shape, dim, 4, 4, paths=paths, **options)
    if "gp" not in options:
        for loss in ("hinge", "relativistic"):
            compare(make().double(), shape, dim, 5, 5 if loss == "relativistic" else 3, loss, **options)


def test_convolutions_in_blocks_of_samples():
    compare(conv().double(), (2, 8, 8), nr=16, nf=16, paths=("fused_conv",), **APPROXIMATE["both"])
    mixed = APPROXIMATE["beside exact ones"]
    compare(conv().double(), (2, 8, 8), nr=16, nf=16, paths=("fused_conv",), **mixed)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4), nr=st.integers(1, 20), nf=st.integers(1, 20),
    loss=st.sampled_from(losses.LOSSES[:-1]), penalty=st.sampled_from(list(APPROXIMATE)),
    activation=st.sampled_from([nn.ReLU, nn.GELU, nn.Tanh]), threads=st.integers(1, 2),
)  # fmt: skip
def test_any_size(sizes, nr, nf, loss, penalty, activation, threads):
    torch.set_num_threads(threads)
    options = APPROXIMATE[penalty]
    nf = nr if "gp" in options else nf
    D = dense((*sizes, 1), activation).double()
    compare(D, (sizes[0],), nr=nr, nf=nf, loss=loss, paths=("fused_mlp",), **options)


def test_batch_norms_see_samples_with_noise_by_themselves():
    options = {"r1": 3.0, "approximate_r1": 0.1}
    D = batch_norm().double()
    real, fake = samples((2, 8, 8), 6, 0), samples((2, 8, 8), 6, 0)
    out = discriminator_step(D, real, fake, generator=seeded(), **options)
    same(out.loss, by_hand(D, real, fake, "non_saturating", seeded(), r1=3.0, s1=0.1), "loss")


@pytest.mark.parametrize("backend", ["fused", "torch"])
def test_masks_of_dropout_are_those_of_the_sample(backend):
    """Else the difference would be the masks', and grow without limit as s falls."""
    fusegen.set_backend(backend)
    D = nn.Sequential(nn.Linear(13, 50), nn.LeakyReLU(0.2), nn.Dropout(0.5), nn.Linear(50, 1)).double()
    x, y = samples((13,), 8, 0), samples((13,), 6, 0)
    few = discriminator_step(D, x, y, r1=1.0, approximate_r1=1e-5, r2=1.0, approximate_r2=1e-5)
    assert few.path == ("fused_mlp" if backend == "fused" else "autograd")
    assert 0 < few.penalty < 100
    again = [discriminator_step(D, x, y, r1=1.0, approximate_r1=1e-5, generator=seeded()) for _ in range(2)]
    if backend == "fused":
        assert torch.equal(again[0].loss, again[1].loss)


@pytest.mark.parametrize("path", ["dense", "conv", "recurrent"])
def test_same_bits_twice(path):
    make, shape, dim, _ = PATHS[path]
    D = make()
    real, fake = (samples(shape, 16, dim, torch.float32) for _ in range(2))

    def run():
        D.zero_grad()
        out = discriminator_step(D, real, fake, generator=seeded(3), **APPROXIMATE["both"])
        out.loss.backward()
        return [out.loss.detach(), *(p.grad.clone() for p in D.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_it_is_r1_on_average():
    """A linear D: ((D(x + s e) - D(x)) / s)^2 = (w e)^2, whose mean over e is ||w||^2 for every s; of
    a smooth D, r1 to order s^2. The weight of Lin et al.'s squared difference is r1 / (2 s^2)."""
    D, x = dense((6, 1)).double(), samples((6,), 20_000, 0)
    exact = discriminator_step(D, x, x[:1], r1=2.0).penalty
    for s in (0.01, 1.0):
        got = discriminator_step(D, x, x[:1], r1=2.0, approximate_r1=s, generator=seeded()).penalty
        assert got == pytest.approx(exact.item(), rel=0.05)  # five deviations of 20,000 squares
    smooth = dense((6, 20, 1), nn.Tanh).double()
    exact = discriminator_step(smooth, x, x[:1], r1=2.0).penalty
    near = discriminator_step(smooth, x, x[:1], r1=2.0, approximate_r1=1e-3, generator=seeded()).penalty
    assert near == pytest.approx(exact.item(), rel=0.05)
    e = torch.randn(x.shape, dtype=x.dtype, generator=seeded())
    theirs = (D(x + 0.1 * e) - D(x)).square().mean() * 2.0 / (2 * 0.1**2)
    ours = discriminator_step(D, x, x[:1], r1=2.0, approximate_r1=0.1, generator=seeded()).penalty
    same(ours, theirs, "penalty")


def test_module_and_lazy_weights():
    step = DiscriminatorStep(dense(), r1=10.0, approximate_r1=0.1)
    assert "approximate_r1=0.1" in repr(step)
    x, y = torch.randn(3, 13), torch.randn(3, 13)
    assert step(x, y).penalty > 0 and step(x, y, r1=0.0).penalty == 0
    state = torch.get_rng_state()
    step(x, y, r1=0.0)
    assert torch.equal(state, torch.get_rng_state())  # nothing is drawn


CONDITIONAL = {
    "mlp": lambda: MLPGAN((5,), hidden=(8,), critic_hidden=(9, 7), num_classes=3, noise_size=4),
    "dcgan": lambda: DCGAN(28, width=4, num_classes=3, noise_size=4),
}


@pytest.mark.parametrize("penalty", ["r1", "all", "approximate", "mixed"])
@pytest.mark.parametrize("arch", CONDITIONAL)
def test_conditional_models_run_fused(arch, penalty):
    options = {
        "r1": {"r1": 3.0},
        "all": {"r1": 2.0, "r2": 1.0, "gp": 5.0},
        "approximate": APPROXIMATE["both"],
        "mixed": APPROXIMATE["beside exact ones"],
    }[penalty]
    model = CONDITIONAL[arch]().double()
    D = model.critic(True)
    assert type(D) is HeldLabels
    shape = (8,) if arch == "mlp" else (4, 28, 28)
    path = "fused_mlp" if arch == "mlp" else "fused_conv"
    n = 16
    counted = (1, 5 if arch == "mlp" else 1)
    compare(D, shape, nr=n, nf=n, counted=counted, paths=(path,), plain=model.discriminator, **options)


@pytest.mark.parametrize("activation", [nn.LeakyReLU, nn.GELU])
def test_conditions_of_images_that_dense_layers_read(activation):
    D = HeldLabels(dense((2 * 6, 9, 1), activation, flatten=True).double(), 1)
    options = {"r1": 2.0, "gp": 5.0}
    compare(D, (2, 3, 2), nr=4, nf=4, counted=(1, 1), paths=("fused_mlp",), plain=D.D, **options)


def test_conditions_are_not_left_to_the_layers_alone(monkeypatch):
    """Where a table would have torch run the layers one by one, which count every input."""

    class Rule:
        source = "a table"

    monkeypatch.setattr("fusegen._backend.cpu_cells", lambda: {"discriminator_step r1"})
    monkeypatch.setattr("fusegen._backend.cpu_rule", lambda *_, **__: Rule)
    fusegen.set_backend("auto")
    D = dense((8, 6, 1)).double()
    x = samples((8,), 4, 0)
    assert discriminator_step(D, x, x, r1=1.0).path == "autograd"
    compare(HeldLabels(D, 5), (8,), nr=4, nf=4, counted=(1, 5), paths=("fused_mlp",), plain=D, r1=2.0)


def test_conditions_in_a_program():
    D = HeldLabels(nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 1)).double(), 5)
    options = {"r1": 2.0, "gp": 5.0}
    compare(D, (8,), nr=4, nf=4, counted=(1, 5), paths=("closed_form",), plain=D.D, **options)


class Labelled(nn.Module):
    """Takes labels, in a forward of its own."""

    def __init__(self):
        super().__init__()
        self.net, self.classes = nn.Linear(4, 1), nn.Embedding(3, 4)

    def forward(self, x, labels):
        return self.net(torch.tanh(x + self.classes(labels)))


def head():
    return Projection(nn.Sequential(nn.Linear(4, 5), nn.Tanh()), 5, 3)


LABELLED = {
    "a forward of its own": (Labelled, "auto", "autograd"),
    "a projection": (head, "torch", "autograd"),
    "in closed form": (head, "fused", "closed_form"),
}


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("penalties", [["r1"], ["r2"], ["r1", "r2"]], ids=" and ".join)
def test_mixed_samples_have_the_labels_of_their_pairs_beside_noise(name, penalties):
    """A D that takes labels, which stand twice where noise stands behind the samples."""
    make, backend, path = LABELLED[name]
    D, labels = make().double(), torch.tensor([2, 0, 1, 1, 2])
    twin, (real, fake) = copy.deepcopy(D), (samples((4,), 5, 0) for _ in range(2))
    weights = {"gp": 3.0, **dict.fromkeys(penalties, 2.0)}
    noise = {f"approximate_{name}": 0.1 for name in penalties}
    fusegen.set_backend(backend)
    out = discriminator_step(D, real, fake, labels=labels, generator=seeded(), **weights, **noise)
    assert out.path == path, out.reason
    s1, s2 = noise.get("approximate_r1"), noise.get("approximate_r2")
    plain = lambda x: twin(x, labels)
    want = by_hand(plain, real, fake, "non_saturating", seeded(), s1=s1, s2=s2, **weights)
    same(out.loss, want, "loss")
    got, expected = (
        torch.autograd.grad(loss, list(net.parameters())) for loss, net in ((out.loss, D), (want, twin))
    )
    for k, (g, w) in enumerate(zip(got, expected, strict=True)):
        same(g, w, f"gradient {k}")


def test_noise_leaves_lengths_and_labels_alone():
    model = RecurrentGAN(2, hidden_size=4, noise_size=4, num_classes=3)
    seen = []
    D = model.critic(True)
    D.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = model.critic_input(torch.randn(6, 4, 2), [0, 1, 2, 0], [6, 3, 1, 2])
    discriminator_step(D, x, x, r1=1.0, approximate_r1=0.5)
    (both,) = seen
    own, noisy = both[:, :4], both[:, 4:8]
    assert torch.equal(own[..., 2:], noisy[..., 2:]) and not torch.equal(own[..., :2], noisy[..., :2])


@pytest.mark.parametrize("arch", [*CONDITIONAL, "recurrent"])
def test_gan_step(arch):
    model = CONDITIONAL[arch]() if arch in CONDITIONAL else RecurrentGAN(2, hidden_size=4, noise_size=4)
    shape = {"mlp": (8, 5), "dcgan": (8, 1, 28, 28), "recurrent": (6, 8, 2)}[arch]
    labels = {} if arch == "recurrent" else {"labels": torch.arange(8) % 3}
    options = GanOptions(r1=1.0, approximate_r1=0.1, penalty_every=2)
    pair, x = Optimizers.adam(model), torch.rand(shape)
    reports = [gan_step(model, x, pair, options, step=k, **labels) for k in range(2)]
    assert reports[0].penalty > 0 and reports[1].penalty is None


def bad():
    D, x = dense(), torch.randn(4, 13)
    for name, weight in (("approximate_r1", "r1"), ("approximate_r2", "r2")):
        for value in (0, 0.0, -0.1, float("nan"), float("inf")):
            yield (
                f"{name} {value}", ValueError, f"{name}: expected a finite deviation above 0 of",
                lambda n=name, w=weight, v=value: discriminator_step(D, x, x, **{w: 1.0, n: v}),
            )  # fmt: skip
        for what, call in {
            "a step": lambda **given: discriminator_step(D, x, x, **given),
            "a module": lambda **given: DiscriminatorStep(D, **given),
            "options": GanOptions,
        }.items():
            other = "r2" if weight == "r1" else "r1"
            yield (
                f"{name} of {what} without {weight}", ValueError,
                f"{name}: expected a weight {weight} above 0 beside it, got {weight}=0.0.* give {weight}=",
                lambda n=name, o=other, call=call: call(**{n: 0.1, o: 1.0}),
            )  # fmt: skip
        yield (
            f"{name} of words", TypeError, f"{name}: expected a number or None, got str",
            lambda n=name: discriminator_step(D, x, x, **{n: "0.1"}),
        )  # fmt: skip
        yield (
            f"{name} of a module", ValueError, f"{name}: expected a finite deviation",
            lambda n=name: DiscriminatorStep(D, **{n: 0.0}),
        )  # fmt: skip
        yield (
            f"{name} of options", ValueError, f"{name}: expected a finite deviation",
            lambda n=name: GanOptions(**{n: 0.0}),
        )  # fmt: skip
    yield (
        "too small", ValueError, r"approximate_r1: expected a finite r1 / approximate_r1\^2 above 0",
        lambda: discriminator_step(D, x, x, r1=1.0, approximate_r1=1e-200),
    )  # fmt: skip
    yield (
        "too large", ValueError, r"approximate_r1: expected a finite r1 / approximate_r1\^2 above 0",
        lambda: discriminator_step(D, x, x, r1=1.0, approximate_r1=1e200),
    )  # fmt: skip
    yield (
        "too small for a lazy penalty", ValueError, r"approximate_r2: .*above 0, got 1e\+303 and 0.001",
        lambda: GanOptions(r2=1e300, approximate_r2=1e-3, penalty_every=1000),
    )  # fmt: skip
    for weights in ({}, {"r1": 1.0}, {"r1": 1.0, "approximate_r1": 0.1}):
        yield (
            f"conditions where samples end, {' '.join(weights)}", ValueError,
            r"width: expected at most what samples have along dim 1, got 14 and real of shape \[4, 13\]",
            lambda w=weights: discriminator_step(HeldLabels(D, 14), x, x, **w),
        )  # fmt: skip
    yield (
        "packed conditions", ValueError, "pac: expected 1 with HeldLabels",
        lambda: discriminator_step(HeldLabels(D, 5), x, x, r1=1.0, pac=2),
    )  # fmt: skip
    model = RecurrentGAN(3, steps=5)
    yield (
        "packed series", ValueError, "pac: expected 1 with SequenceCritic's conditions, .* got 2",
        lambda: gan_step(model, torch.rand(5, 4, 3), Optimizers.adam(model), GanOptions(pac=2)),
    )  # fmt: skip
    yield "width", ValueError, "width: expected .* at least 1", lambda: HeldLabels(D, 0)


@pytest.mark.parametrize(("error", "text", "call"), [pytest.param(*b[1:], id=b[0]) for b in bad()])
def test_bad_input(error, text, call):
    with pytest.raises(error, match=text):
        call()
