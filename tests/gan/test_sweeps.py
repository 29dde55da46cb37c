"""Penalties by sweeps through a program of operators: each operator, and whole steps, against autograd."""

import copy
import itertools

import fusegen
import pytest
import torch
from fusegen.gan import DiscriminatorStep, MinibatchStd, Projection, Residual, discriminator_step
from fusegen.gan.operators import batch, linear, norms, pointwise, program
from fusegen.gan.operators.operator import Point, Second
from fusegen.losses import LOSSES, discriminator_loss
from gan_networks import PENALTIES, samples
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import same
from torch import nn

PENALISED = [name for name in PENALTIES if name != "none"]
ONE_SAMPLE = 1  # of which a batch norm takes no statistics


def dense_norms():
    return nn.Sequential(
        nn.Linear(13, 40), nn.LayerNorm(40), nn.LeakyReLU(0.2), nn.Linear(40, 30), nn.BatchNorm1d(30),
        nn.GELU(), nn.Linear(30, 1),
    )  # fmt: skip


def unscaled_norms():
    return nn.Sequential(
        nn.LayerNorm(13, elementwise_affine=False), nn.Linear(13, 20), nn.BatchNorm1d(20, affine=False),
        nn.SiLU(), nn.LayerNorm(20, bias=False), nn.Linear(20, 1),
    )  # fmt: skip


def residual():
    def block(n, m):
        return nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(n, m), nn.ReLU(), nn.Linear(m, m))

    return nn.Sequential(
        Residual(block(13, 13)), Residual(block(13, 20), nn.Linear(13, 20)), nn.ReLU(), nn.Linear(20, 1)
    )


def residual_maps():
    def block(n, m):
        return nn.Sequential(nn.Softplus(), nn.Conv2d(n, m, 3, padding=1), nn.Tanh(), nn.Conv2d(m, m, 1))

    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), Residual(block(6, 6)), nn.AvgPool2d(2),
        Residual(block(6, 8), nn.Conv2d(6, 8, 1)), nn.BatchNorm2d(8), nn.ELU(0.7), nn.Conv2d(8, 1, 3),
    )  # fmt: skip


def statistics():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.LayerNorm([6, 6, 6]), nn.LeakyReLU(0.2), MinibatchStd(2, 2), nn.Flatten(),
        nn.Linear(8 * 36, 10), nn.GELU("tanh"), MinibatchStd(4), nn.Linear(11, 1),
    )  # fmt: skip


def projection():
    return Projection(nn.Sequential(nn.Linear(13, 20), nn.LeakyReLU(0.2), nn.Linear(20, 7), nn.Tanh()), 7, 5)


def projection_of_maps():
    return Projection(nn.Sequential(nn.Conv2d(2, 6, 3), nn.LeakyReLU(0.2), nn.Conv2d(6, 7, 3)), 7, 5)


NETWORKS = {
    "dense norms": (dense_norms, (13,)),
    "unscaled norms": (unscaled_norms, (13,)),
    "residual": (residual, (13,)),
    "residual maps": (residual_maps, (2, 8, 8)),
    "statistics": (statistics, (2, 8, 8)),
    "projection": (projection, (13,)),
    "projection of maps": (projection_of_maps, (2, 8, 8)),
}


def plain_step(
    D, real, fake, loss="non_saturating", labels=(None, None), shares=None, r1=0.0, r2=0.0, gp=0.0
):
    """A pass of each group, real first, and create_graph for its penalty."""

    def pass_of(x, y, wanted):
        x = x if x.requires_grad or not wanted else x.detach().requires_grad_()
        out = D(x) if y is None else D(x, y)
        z = out.flatten(1).mean(1)
        if not wanted:
            return z, None
        return z, torch.autograd.grad(z.sum(), x, create_graph=True)[0].flatten(1)

    r, v_real = pass_of(real, labels[0], r1)
    f, v_fake = pass_of(fake, labels[1], r2)
    total = discriminator_loss(loss, r, f)
    if r1:
        total = total + r1 / 2 * v_real.square().sum(1).mean()
    if r2:
        total = total + r2 / 2 * v_fake.square().sum(1).mean()
    if gp:
        mixed = torch.lerp(real.detach(), fake.detach(), shares)
        _, v = pass_of(mixed, labels[0], gp)
        total = total + gp * (v.norm(dim=1) - 1).square().mean()
    return total, r, f


def compare(D, shape, nr, nf, loss, weights, labelled=False):
    twin = copy.deepcopy(D)
    real, fake = (samples(shape, n, 0).requires_grad_() for n in (nr, nf))
    labels, given = (None, None), {}
    if labelled:
        labels = torch.randint(5, (nr,)), torch.randint(5, (nf,))
        labels = (labels[0],) * 2 if weights.get("gp") else labels
        given = {"real_labels": labels[0], "fake_labels": labels[1]}
    shares = torch.rand(nr, *[1] * len(shape), dtype=real.dtype, generator=torch.Generator().manual_seed(7))
    draw = torch.Generator().manual_seed(7)
    out = discriminator_step(D, real, fake, loss, generator=draw, **weights, **given)
    assert out.path == "closed_form", out.reason
    want, r, f = plain_step(twin, real, fake, loss, labels, shares, **weights)
    same(out.loss, want, "loss")
    same(out.real_logits, r, "real logits")
    same(out.fake_logits, f, "fake logits")
    same(out.penalty, want - discriminator_loss(loss, r, f), "penalty")
    got = torch.autograd.grad(out.loss, [*D.parameters(), real, fake], allow_unused=True)
    expected = torch.autograd.grad(
        want, [*twin.parameters(), real, fake], allow_unused=True, materialize_grads=True
    )
    scale = max(1.0, *(g.norm().item() for g in expected))
    for name, g, w in zip(
        [*(n for n, _ in D.named_parameters()), "real", "fake"], got, expected, strict=True
    ):
        # In units of the longest, of 1 at least: before a batch norm some have nothing but rounding.
        same(
            torch.cat((g.flatten() / scale, g.new_ones(1))),
            torch.cat((w.flatten() / scale, w.new_ones(1))),
            name,
        )
    for name, buffer in D.named_buffers():
        same(buffer.double(), twin.get_buffer(name).double(), name)


@pytest.mark.parametrize("penalty", PENALISED)
@pytest.mark.parametrize("network", NETWORKS)
def test_equals_autograd(network, penalty):
    make, shape = NETWORKS[network]
    weights = PENALTIES[penalty]
    for nr, nf in ((4, 4),) if "gp" in weights else ((4, 4), (4, 8), (8, 2)):
        compare(make().double(), shape, nr, nf, "non_saturating", weights, "projection" in network)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss):
    compare(dense_norms().double(), (13,), 6, 6, loss, PENALTIES["all"])


@st.composite
def networks(draw):
    """A chain of dense parts, residual ones among them, that ends in one logit."""
    width = draw(st.integers(1, 9))
    first, parts = width, []

    def plain(n, m):
        return nn.Linear(n, m, bias=draw(st.booleans()))

    def activation():
        kinds = (nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus, nn.Sigmoid, nn.ReLU)
        return draw(st.sampled_from(kinds))()

    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["dense", "activation", "layer", "batch", "residual", "std", "identity"]))
        if kind == "dense":
            after = draw(st.integers(1, 9))
            parts.append(plain(width, after))
            width = after
        elif kind == "activation":
            parts.append(activation())
        elif kind == "layer":
            parts.append(nn.LayerNorm(width, eps=0.1, elementwise_affine=draw(st.booleans())))
        elif kind == "batch":
            parts.append(nn.BatchNorm1d(width, eps=0.1, affine=draw(st.booleans())))
        elif kind == "residual":
            after = draw(st.integers(1, 9))
            shortcut = None if after == width else plain(width, after)
            parts.append(Residual(nn.Sequential(plain(width, after), activation()), shortcut))
            width = after
        elif kind == "std":
            parts.append(MinibatchStd(2))
            width += 1
        else:
            parts.append(nn.Identity())
    # What a dense route takes is no program's.
    return nn.Sequential(
        Residual(nn.Sequential(nn.Linear(first, first), activation())), *parts, plain(width, 1)
    )


@settings(deadline=None, max_examples=40)
@given(
    D=networks(), halves=st.integers(1, 4), more=st.integers(1, 4), penalty=st.sampled_from(PENALISED),
    loss=st.sampled_from(LOSSES[:-1]), seed=st.integers(0, 9),
)  # fmt: skip
def test_any_network(D, halves, more, penalty, loss, seed):
    torch.manual_seed(seed)
    weights = PENALTIES[penalty]
    nr, nf = 2 * halves, 2 * (halves if "gp" in weights else more)
    with torch.no_grad():
        for p in D.parameters():
            p.copy_(torch.randn_like(p))
    compare(D.double(), (D[0].body[0].in_features,), nr, nf, loss, weights)


def operators():
    w, E = nn.Linear(6, 4), nn.Embedding(3, 6)
    yield "dense", linear.Dense(w), (5, 6), (5,)
    yield "dense of steps", linear.Dense(w), (5, 3, 6), (5,)
    yield "convolution", linear.Convolve(nn.Conv2d(4, 6, 3, stride=2, groups=2)), (5, 4, 7, 7), (5,)
    yield "pool", linear.AveragePool(nn.AvgPool2d(2, ceil_mode=True)), (5, 2, 5, 5), (5,)
    yield "flatten", linear.Flat(nn.Flatten()), (5, 2, 3), (5,)
    labels = torch.tensor([0, 2, 1, 0, 0])
    head = Projection(nn.Identity(), 6, 3)
    head.embedding = E
    yield "projection", linear.Project(head, labels), (5, 6), (5,)
    yield "projection of maps", linear.Project(head, labels), (5, 6, 2, 2), (5,)
    for m in (
        nn.ReLU(), nn.LeakyReLU(0.3), nn.LeakyReLU(-0.3), nn.Tanh(), nn.Sigmoid(), nn.SiLU(), nn.GELU(),
        nn.GELU("tanh"), nn.Softplus(), nn.Softplus(2.0, 1.0), nn.ELU(), nn.ELU(0.4),
    ):  # fmt: skip
        yield repr(m), pointwise.activation(m, type(m)), (5, 6), (5,)
    yield "layer norm", norms.LayerNorm(nn.LayerNorm(6)), (5, 3, 6), (5,)
    yield "layer norm of maps", norms.LayerNorm(nn.LayerNorm([3, 6], eps=0.1)), (5, 3, 6), (5,)
    yield "layer norm alone", norms.LayerNorm(nn.LayerNorm(6, elementwise_affine=False)), (5, 6), (5,)
    yield "batch norm", norms.BatchNormalised(nn.BatchNorm1d(6)), (5, 6), (2, 3)
    yield "batch norm of maps", norms.BatchNormalised(nn.BatchNorm2d(3, eps=0.1)), (5, 3, 2, 2), (1, 4)
    yield "batch norm alone", norms.BatchNormalised(nn.BatchNorm1d(6, affine=False)), (5, 6), (5,)
    yield "deviation", batch.MinibatchStd(MinibatchStd(2)), (6, 6), (2, 4)
    yield "deviations of maps", batch.MinibatchStd(MinibatchStd(3, 2)), (9, 4, 2, 2), (3, 6)


@pytest.mark.parametrize(
    ("operator", "shape", "groups"), [pytest.param(*c[1:], id=c[0]) for c in operators()]
)
def test_an_operators_derivatives(operator, shape, groups):
    """J^T u, J t, and the gradient of <a, f> + <u, J t> by x and by the parameters."""
    x = samples(shape[1:], shape[0], 0).requires_grad_()
    p = [None if t is None else (t.detach().double() + 0.3 * torch.randn(t.shape)).requires_grad_()
         for t in operator.parameters()]  # fmt: skip
    assert len(p) == operator.count
    assert operator.size() == sum(t.numel() for t in p if t is not None)
    own = [t for t in p if t is not None]
    y, extra = operator.forward(x, p, groups)
    a, u, t = torch.randn_like(y), torch.randn_like(y).requires_grad_(), torch.randn_like(x)
    (down,) = torch.autograd.grad(y, x, u, create_graph=True)
    (along,) = torch.autograd.grad((down * t).sum(), u, retain_graph=True)  # J t, since down is linear in u
    total = (a * y).sum() + (down * t).sum()
    want = torch.autograd.grad(total, [x, *own], allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        at = Point(x.detach(), y.detach(), tuple(e.detach() for e in extra), groups)
        q = [None if w is None else w.detach() for w in p]
        same(operator.adjoint(u, at, q), down, "adjoint")
        same(operator.tangent(t, at, q), along, "tangent")
        second = Second(u.detach(), t, at)
        dx, bent = operator.adjoint(a, at, q), operator.bend(second, q)
        same(dx if bent is None else dx + bent, want[0], "by x")
        assert operator.bends or bent is None
        grads = operator.gradients(a, second, at, q, [w is not None for w in p])
        found = [g for g, w in zip(grads, p, strict=True) if w is not None] if own else []
        for k, (g, w) in enumerate(zip(found, want[1:], strict=True)):
            same(g, w, f"by parameter {k}")


@pytest.mark.parametrize("network", ["dense norms", "residual", "statistics", "projection"])
def test_second_order(network):
    make, shape = NETWORKS[network]
    D = make()
    if network == "dense norms":
        D = nn.Sequential(
            nn.Linear(4, 3), nn.LayerNorm(3), nn.SiLU(), nn.BatchNorm1d(3), nn.GELU(), nn.Linear(3, 1)
        )
        shape = (4,)
    module = DiscriminatorStep(D.double(), r1=2.0, r2=1.0)  # interpolates are held constant
    names = [name for name, _ in module.named_parameters()]
    labels = {"labels": torch.tensor([1, 0, 4, 4])} if network == "projection" else {}

    def step(real, fake, *parameters):
        swapped = dict(zip(names, parameters, strict=True))
        draw = {"generator": torch.Generator().manual_seed(1), **labels}
        out = torch.func.functional_call(module, swapped, (real, fake), draw)
        assert out.path == "closed_form", out.reason
        return out.loss

    tensors = (*(samples(shape, 4, 0).requires_grad_() for _ in range(2)), *module.parameters())
    assert torch.autograd.gradcheck(step, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(step, tensors, fast_mode=True)


@pytest.mark.parametrize("network", NETWORKS)
def test_same_bits_twice(network):
    make, shape = NETWORKS[network]
    D = make()
    before = copy.deepcopy(D.state_dict())
    real, fake = (samples(shape, 8, 0, torch.float32) for _ in range(2))
    labels = {"labels": torch.arange(8) % 5} if "projection" in network else {}

    def run():
        D.load_state_dict(before)
        D.zero_grad()
        draw = torch.Generator().manual_seed(3)
        out = discriminator_step(D, real, fake, r1=1.0, gp=1.0, generator=draw, **labels)
        assert out.path == "closed_form"
        out.loss.backward()
        return [out.loss.detach(), *(p.grad.clone() for p in D.parameters())]

    assert all(torch.equal(a, b) for a, b in itertools.zip_longest(run(), run()))


def test_backward_again_and_by_samples_alone():
    D, x = dense_norms().double(), samples((13,), 4, 0)
    fake = samples((13,), 4, 0).requires_grad_()
    out = discriminator_step(D, x, fake, r1=2.0)
    (once,) = torch.autograd.grad(out.loss, fake, retain_graph=True)
    (thrice,) = torch.autograd.grad(3 * out.loss, fake)
    torch.testing.assert_close(thrice, 3 * once)


def test_frozen_parts_get_no_gradient():
    D = residual()
    D[0].requires_grad_(False)
    discriminator_step(D, torch.randn(4, 13), torch.randn(4, 13), r1=1.0).loss.backward()
    assert all(p.grad is None for p in D[0].parameters())
    assert all(p.grad is not None for p in D[1].parameters())


def test_without_gradients_a_penalty_is_a_number():
    D, x, y = dense_norms(), torch.randn(4, 13), torch.randn(4, 13)
    with torch.no_grad():
        assert discriminator_step(D, x, y, r1=1.0).penalty > 0


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
def test_running_statistics_are_those_of_passes_one_after_another(momentum):
    def make():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=momentum), nn.Tanh(),
            nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 1),
        ).double()  # fmt: skip

    D, twin = make(), make()
    for _ in range(2):
        real, fake = samples((4,), 5, 0), samples((4,), 5, 0)
        out = discriminator_step(D, real, fake, gp=1.0, generator=torch.Generator().manual_seed(2))
        assert out.path == "closed_form"
        shares = torch.rand(5, 1, dtype=real.dtype, generator=torch.Generator().manual_seed(2))
        for x in (real, fake, torch.lerp(real, fake, shares)):
            twin(x)
    for (name, a), b in zip(D.named_buffers(), twin.buffers(), strict=True):
        same(a.double(), b.double(), name)


class Subclass(nn.LayerNorm):
    pass


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda D: D[1].register_forward_hook(lambda *a: None), "hooks"),
        (lambda D: D.insert(1, nn.Dropout(0.5)), "no closed form of a penalty for Dropout"),
        (lambda D: D.__setitem__(1, Subclass(40)), "no closed form of a penalty for Subclass"),
        (lambda D: D[4].eval(), "BatchNorm1d is in evaluation mode"),
    ],
)
def test_what_has_no_closed_form_goes_through_autograd(change, reason):
    D = dense_norms()
    change(D)
    out = discriminator_step(D, torch.randn(4, 13), torch.randn(4, 13), r1=1.0)
    assert out.path == "autograd" and reason in out.reason
    out.loss.backward()


@pytest.mark.parametrize(
    ("make", "width", "n", "weights", "path"),
    [
        (residual, 13, 4, {"r1": 1.0}, "autograd"),
        (residual, 13, 10_000, {"r1": 1.0}, "closed_form"),
        (residual, 13, 10_000, {"r1": 1.0, "r2": 1.0}, "autograd"),
        (residual, 13, 30_000, {"r1": 1.0, "r2": 1.0}, "closed_form"),
        (dense_norms, 13, 10_000, {"r1": 1.0}, "autograd"),
    ],
)
def test_auto_takes_sweeps_where_they_measured_faster(make, width, n, weights, path):
    fusegen.set_backend("auto")
    out = discriminator_step(make(), torch.randn(n, width), torch.randn(n, width), **weights)
    assert out.path == path and ("measured" in out.reason) == (path == "autograd")


def test_a_program_that_nothing_is_in():
    assert "no closed form" in program.parse(nn.Sequential(nn.Linear(3, 3), nn.Bilinear(2, 2, 1)), None)
