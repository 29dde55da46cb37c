"""The GAN step against plain autograd: every loss, penalty and path, in float64 to rounding."""

import copy
import itertools

import fusegen
import pytest
import torch
from fusegen import gan, losses, reference
from fusegen.gan import DiscriminatorStep, discriminator_step, generator_step
from fusegen.models import RecurrentGAN
from fusegen.ops.discriminator import MlpOptions, mlp_discriminator_step
from gan_networks import PATHS, PENALTIES, conv, dense, eager, samples, ways
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import agree, same
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parametrizations

THREADS = 2  # a call's work is divided


def cases():
    for path, loss, penalty in itertools.product(PATHS, losses.LOSSES, PENALTIES):
        smooth = path in ("dense", "smooth", "softplus") or loss in ("hinge", "non_saturating")
        if smooth and not (path == "batch norm" and penalty != "none"):
            yield path, loss, penalty


@pytest.mark.parametrize(("path", "loss", "penalty"), list(cases()))
def test_equals_autograd(path, loss, penalty):
    make, shape, dim, _ = PATHS[path]
    D = make().double()
    weights = PENALTIES[penalty]
    paired = loss == "relativistic" or "gp" in weights
    for nr, nf in ((5, 5), (1, 1)) if paired else ((5, 3), (1, 1)):
        if path == "batch norm" and nr == 1:
            continue  # test_bad_input
        real, fake = (samples(shape, n, dim).requires_grad_() for n in (nr, nf))
        twin = copy.deepcopy(D)
        out = discriminator_step(D, real, fake, loss, generator=torch.Generator().manual_seed(1), **weights)
        assert out.path in ways(path, penalty), out.reason
        want, r, f = eager(twin, real, fake, loss, dim, torch.Generator().manual_seed(1), **weights)
        same(out.loss, want, "loss")
        same(out.real_logits, r, "real logits")
        same(out.fake_logits, f, "fake logits")
        assert not out.real_logits.requires_grad and not out.penalty.requires_grad
        got = torch.autograd.grad(
            out.loss, [*D.parameters(), real, fake], allow_unused=True, materialize_grads=True
        )
        expected = torch.autograd.grad(
            want, [*twin.parameters(), real, fake], allow_unused=True, materialize_grads=True
        )
        names = [*(name for name, _ in D.named_parameters()), "real", "fake"]
        for name, g, w in zip(names, got, expected, strict=True):
            same(g, w, f"gradient of {name}, {nr} and {nf} samples")
        for name, buffer in D.named_buffers():
            same(buffer, twin.get_buffer(name), name)


def test_losses_by_hand():
    r, f = torch.tensor([2.0, -0.5]), torch.tensor([0.5, -3.0])
    softplus = [0.126928, 0.974077]  # of -2 and 0.5
    assert losses.discriminator_loss("non_saturating", r, f).item() == pytest.approx(
        sum(softplus) / 2 + (0.974077 + 0.048587) / 2, abs=1e-5
    )
    assert losses.discriminator_loss("hinge", r, f).item() == pytest.approx(1.5 / 2 + 1.5 / 2)
    assert losses.discriminator_loss("least_squares", r, f).item() == pytest.approx(3.25 / 4 + 9.25 / 4)
    assert losses.discriminator_loss("wasserstein", r, f).item() == pytest.approx(-1.25 - 0.75)
    assert losses.discriminator_loss("relativistic", r, f).item() == pytest.approx(
        (0.201413 + 0.078889) / 2, abs=1e-5
    )
    assert losses.generator_loss("minimax", f).item() == pytest.approx(-(0.974077 + 0.048587) / 2, abs=1e-5)
    assert losses.generator_loss("non_saturating", f).item() == pytest.approx(
        (0.474077 + 3.048587) / 2, abs=1e-5
    )


@pytest.mark.parametrize("path", ["dense", "smooth"])
@pytest.mark.parametrize("loss", losses.SMOOTHED)
def test_label_smoothing(path, loss):
    make, shape, dim, _ = PATHS[path]
    D = make().double()
    real, fake = samples(shape, 4, dim), samples(shape, 3, dim)
    out = discriminator_step(D, real, fake, loss, label_smoothing=0.1)
    target = nn.functional.binary_cross_entropy_with_logits
    r, f = D(real), D(fake)
    want = target(r, torch.full_like(r, 0.9)) + target(f, torch.zeros_like(f))
    same(out.loss, want, "loss")


@pytest.mark.parametrize("penalty", PENALTIES)
def test_float32_is_as_good_as_autograd(penalty):
    sums = {}
    for seed in range(5):
        torch.manual_seed(seed)
        D = dense((200, 300, 130, 1))
        exact, plain = copy.deepcopy(D).double(), copy.deepcopy(D)
        real, fake = torch.randn(64, 200), torch.randn(64, 200)
        share = torch.Generator().manual_seed(seed)
        shares = torch.rand(64, 1, generator=share)
        results = []
        for net, dtype in ((exact, torch.float64), (D, torch.float32), (plain, torch.float32)):
            x = [t.to(dtype).requires_grad_() for t in (real, fake)]
            weights = PENALTIES[penalty]
            if net is D:
                loss = discriminator_step(
                    net, *x, generator=torch.Generator().manual_seed(seed), **weights
                ).loss
            else:
                loss = _eager_with_shares(net, *x, shares.to(dtype), **weights)
            results.append(torch.autograd.grad(loss, [*net.parameters(), *x]))
        for i, (e, ours, theirs) in enumerate(zip(*results, strict=True)):
            a, b = sums.get(i, (0.0, 0.0))
            sums[i] = (a + (ours - e).square().sum().item(), b + (theirs - e).square().sum().item())
    for i, (ours, theirs) in sums.items():
        assert ours <= 4 * theirs + 1e-20, f"gradient {i}: {ours**0.5:.2e}, autograd's {theirs**0.5:.2e}"


def _eager_with_shares(D, real, fake, shares, r1=0.0, r2=0.0, gp=0.0):
    def squared(x):
        (v,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
        return v.square().sum(1)

    loss = losses.discriminator_loss("non_saturating", D(real).squeeze(1), D(fake).squeeze(1))
    if r1:
        loss = loss + r1 / 2 * squared(real).mean()
    if r2:
        loss = loss + r2 / 2 * squared(fake).mean()
    if gp:
        mixed = torch.lerp(real.detach(), fake.detach(), shares).requires_grad_()
        loss = loss + gp * (squared(mixed).sqrt() - 1).square().mean()
    return loss


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(dtype):
    D = dense().to(dtype)
    real, fake = samples((13,), 6, 0, dtype), samples((13,), 6, 0, dtype)
    out = discriminator_step(
        D, real, fake, r1=1.0, r2=1.0, gp=1.0, generator=torch.Generator().manual_seed(0)
    )
    assert out.loss.dtype == torch.float32 and out.real_logits.dtype == dtype
    out.loss.backward()
    exact = copy.deepcopy(D).double()
    share = torch.rand(6, 1, dtype=dtype, generator=torch.Generator().manual_seed(0))
    x = [real.double().requires_grad_(), fake.double().requires_grad_()]
    mixed = torch.lerp(real, fake, share).double().requires_grad_()
    loss = losses.discriminator_loss("non_saturating", exact(x[0]).squeeze(1), exact(x[1]).squeeze(1))
    for t, kind in ((x[0], "r"), (x[1], "r"), (mixed, "gp")):
        (v,) = torch.autograd.grad(exact(t).sum(), t, create_graph=True)
        loss = loss + (v.square().sum(1).mean() / 2 if kind == "r" else (v.norm(dim=1) - 1).square().mean())
    exact.zero_grad()
    loss.backward()
    for (name, p), q in zip(D.named_parameters(), exact.parameters(), strict=True):
        assert p.grad.dtype == dtype
        same(p.grad, q.grad, name)


def test_autocast_runs_in_its_dtype():
    D = dense()
    with torch.autocast("cpu", torch.bfloat16):
        out = discriminator_step(D, torch.randn(4, 13), torch.randn(4, 13), r1=1.0)
    assert out.path == "fused_mlp" and out.real_logits.dtype == torch.bfloat16
    out.loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in D.parameters())


@pytest.mark.parametrize("layout", ["strided", "expanded", "channels last"])
def test_any_layout(layout):
    D = dense((50, 33, 1), flatten=True)
    x = torch.randn(6, 2, 5, 5)
    views = {
        "strided": torch.randn(12, 2, 5, 10)[::2, :, :, ::2],
        "expanded": torch.randn(1, 2, 5, 5).expand(6, -1, -1, -1),
        "channels last": x.contiguous(memory_format=torch.channels_last),
    }
    view = views[layout]
    out = discriminator_step(D, view, x, r1=1.0).loss
    want = discriminator_step(D, view.clone(memory_format=torch.contiguous_format), x, r1=1.0).loss
    assert torch.equal(out, want)


def test_backward_again_and_accumulation():
    D = dense()
    real, fake = torch.randn(5, 13), torch.randn(4, 13, requires_grad=True)
    out = discriminator_step(D, real, fake, r1=2.0)
    out.loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in (*D.parameters(), fake)]
    out.loss.backward()
    for p, g in zip((*D.parameters(), fake), once, strict=True):
        assert torch.equal(p.grad, g + g)
    again = discriminator_step(D, real, fake, r1=2.0)
    (3 * again.loss).backward()
    for p, g in zip((*D.parameters(), fake), once, strict=True):
        torch.testing.assert_close(p.grad, 5 * g)


def test_only_what_is_asked_for():
    D = dense()
    D[0].weight.requires_grad_(False)
    real, fake = torch.randn(5, 13), torch.randn(4, 13)
    discriminator_step(D, real, fake, gp=0.0, r1=1.0).loss.backward()
    assert D[0].weight.grad is None and D[2].weight.grad is not None
    D.requires_grad_(False)
    assert not discriminator_step(D, real, fake, r1=1.0).loss.requires_grad
    with torch.no_grad():
        assert discriminator_step(D, real, fake, r1=1.0).penalty > 0


def test_same_bits_twice():
    D = dense((300, 200, 90, 1))
    real, fake = torch.randn(33, 300), torch.randn(33, 300)

    def run():
        D.zero_grad()
        out = discriminator_step(D, real, fake, r1=1.0, gp=1.0, generator=torch.Generator().manual_seed(3))
        out.loss.backward()
        return [out.loss.detach(), *(p.grad.clone() for p in D.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


@pytest.mark.parametrize("penalty", ["none", "r1", "all"])
def test_second_order(penalty):
    D = dense((4, 6, 5, 1)).double()
    weights = [m.weight for m in D if isinstance(m, nn.Linear)]
    biases = [m.bias for m in D if isinstance(m, nn.Linear)]
    real, fake = (samples((4,), 3, 0).requires_grad_() for _ in range(2))
    given = {"r1": 0.0, "r2": 0.0, "gp": 0.0, **PENALTIES[penalty]}
    mixed = torch.lerp(real, fake, 0.3).detach() if given["gp"] else None
    options = MlpOptions("non_saturating", False, 1.0, **given)

    def step(real, fake, *p):
        return mlp_discriminator_step(real, fake, mixed, p[:3], p[3:], [0.2, 0.2], options)[0]

    tensors = (real, fake, *weights, *biases)
    assert torch.autograd.gradcheck(step, tensors)
    assert torch.autograd.gradgradcheck(step, tensors)


@pytest.mark.parametrize("penalty", ["r1", "all"])
def test_second_order_of_convolutions(penalty):
    D = nn.Sequential(
        nn.Conv1d(2, 3, 2), nn.LeakyReLU(0.2), nn.Conv1d(3, 2, 2), nn.Flatten(), nn.Linear(4, 1)
    )
    module = DiscriminatorStep(D.double(), **PENALTIES[penalty])
    names = [name for name, _ in module.named_parameters()]

    def step(real, fake, *parameters):
        swapped = dict(zip(names, parameters, strict=True))
        draw = {"generator": torch.Generator().manual_seed(1)}
        out = torch.func.functional_call(module, swapped, (real, fake), draw)
        assert out.path == "fused_conv"
        return out.loss

    real, fake = (samples((2, 4), 2, 0).requires_grad_() for _ in range(2))
    tensors = (real, fake, *module.parameters())
    assert torch.autograd.gradcheck(step, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(step, tensors, fast_mode=True)


def test_batched_and_dual_gradients():
    """Gradients that kernels cannot see, as under jacobian(vectorize=True), go through the formula."""
    D = dense((4, 6, 1)).double()
    out = discriminator_step(D, samples((4,), 3, 0), samples((4,), 3, 0), r1=1.0)
    assert out.path == "fused_mlp"
    leaves, loss = list(D.parameters()), out.loss
    want = torch.autograd.grad(loss, leaves, retain_graph=True)
    w = torch.tensor([1.0, -2.0], dtype=torch.float64)
    got = torch.autograd.grad(loss, leaves, w, is_grads_batched=True, retain_graph=True)
    for g, one in zip(got, want, strict=True):
        torch.testing.assert_close(g, torch.stack([one, -2 * one]))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(w[0], w[1])
        for g, one in zip(torch.autograd.grad(loss, leaves, dual), want, strict=True):
            torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(g).tangent, -2 * one)


def test_second_order_is_counted():
    from fusegen import _backend

    D = dense((4, 6, 1))
    out = discriminator_step(D, torch.randn(3, 4), torch.randn(3, 4))
    before = sum(_backend.fallbacks.values())
    torch.autograd.grad(out.loss, list(D.parameters()), create_graph=True)
    assert sum(_backend.fallbacks.values()) == before + 1


@pytest.mark.parametrize("generator", [False, True])
def test_opcheck(generator):
    weights = [torch.randn(6, 4, requires_grad=True), torch.randn(1, 6, requires_grad=True)]
    biases = [torch.randn(6, requires_grad=True), None]
    real, fake = torch.randn(3, 4), torch.randn(3, 4, requires_grad=True)
    options = ("relativistic", generator, 1.0, 0.0 if generator else 1.0, 0.0, 0.0, 0.0, 0.0, 0)
    torch.library.opcheck(
        torch.ops.fusegen.mlp_discriminator_step.default,
        (real, fake, None, weights, biases, [0.2], [], [], None, *options, [True, False, True]),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_loss_may_be_changed_in_place(dtype):
    """As a loss of torch's own: the gradients are those of what it has become."""
    D = dense((4, 6, 1)).to(dtype)
    real, fake = torch.randn(2, 3, 4, dtype=dtype)
    plain = discriminator_step(D, real, fake).loss
    want = torch.autograd.grad(plain, list(D.parameters()))
    changed = discriminator_step(D, real, fake).loss
    changed += 1
    changed *= 2
    assert torch.equal(changed, 2 * (plain + 1))
    for g, w in zip(torch.autograd.grad(changed, list(D.parameters())), want, strict=True):
        assert torch.equal(g, 2 * w)


def test_stats():
    D = dense((3, 1), bias=False)
    with torch.no_grad():
        D[0].weight.copy_(torch.tensor([[3.0, 4.0, 0.0]]))
    real = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    stats = discriminator_step(D, real, -real, r1=1.0).stats
    assert stats["mean_real"] == 1.0 and stats["mean_fake"] == -1.0
    assert stats["sign_real"] == 0.25 and stats["sign_fake"] == -0.25
    assert stats["norm_real"] == pytest.approx(5.0) and stats["norm_fake"] != stats["norm_fake"]


def test_no_gradient_is_no_penalty_direction():
    """At v = 0 WGAN-GP's direction is 0, not NaN."""
    D = dense((3, 4, 1))
    with torch.no_grad():
        D[2].weight.zero_()
    out = discriminator_step(D, torch.randn(2, 3), torch.randn(2, 3), gp=10.0)
    out.loss.backward()
    assert out.penalty == 10 and all(p.grad.isfinite().all() for p in D.parameters())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_travels(value):
    D, plain = dense(), dense()
    plain.load_state_dict(D.state_dict())
    real = torch.randn(3, 13)
    real[1, 2] = value
    fake = torch.randn(3, 13)
    out = discriminator_step(D, real, fake, r1=1.0)
    out.loss.backward()
    want, *_ = eager(plain, real, fake, "non_saturating", 0, None, r1=1.0)
    want.backward()
    assert out.loss.isfinite() == want.isfinite()
    for p, q in zip(D.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p.grad.isfinite(), q.grad.isfinite())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_hinge_of_a_nan_logit_has_the_gradient_of_torch(dtype):
    D = nn.Sequential(nn.Linear(2, 1)).to(dtype)
    nn.init.constant_(D[0].bias, torch.nan)
    twin = copy.deepcopy(D)
    real, fake = torch.ones(2, 2, dtype=dtype), torch.zeros(2, 2, dtype=dtype)
    out = discriminator_step(D, real, fake, "hinge")
    assert out.path == "fused_mlp", out.reason
    out.loss.backward()
    eager(twin, real, fake, "hinge", 0, None)[0].backward()
    for p, q in zip(D.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("penalty", ["none", "r1"])
def test_gradients_pass_nan_as_in_torch(penalty, slope):
    """Where an activation gave NaN, ReLU passes the gradient on as it is and LeakyReLU scales it."""
    D = dense(activation=lambda: nn.LeakyReLU(slope) if slope else nn.ReLU()).double()
    twin = copy.deepcopy(D)
    real, fake = samples((13,), 4, 0), samples((13,), 4, 0)
    real[1, 2] = torch.nan
    real.requires_grad_()
    fake.requires_grad_()
    weights = PENALTIES[penalty]
    out = discriminator_step(D, real, fake, "wasserstein", **weights)
    assert out.path == "fused_mlp", out.reason
    want, *_ = eager(twin, real, fake, "wasserstein", 0, None, **weights)
    got = torch.autograd.grad(out.loss, [*D.parameters(), real, fake])
    want = torch.autograd.grad(want, [*twin.parameters(), real, fake])
    assert want[-2].isfinite().all()
    for g, w in zip(got, want, strict=True):
        assert torch.equal(g.isnan(), w.isnan())
        same(g.nan_to_num(), w.nan_to_num(), "gradient")
    second = reference.mlp_discriminator_step(
        real,
        fake,
        None,
        [m.weight for m in D[::2]],
        [m.bias for m in D[::2]],
        [slope] * 2,
        "wasserstein",
        **weights,
    )
    for g, w in zip(torch.autograd.grad(second.loss, [real, fake]), want[-2:], strict=True):
        same(g, w, "gradient of the formula that is differentiated twice")


def test_spectral_norm_iterates_once_a_step():
    def make():
        torch.manual_seed(1)
        D = nn.Sequential(nn.Linear(6, 9), nn.LeakyReLU(0.2), nn.Linear(9, 1)).double()
        return nn.Sequential(
            *(parametrizations.spectral_norm(m) if isinstance(m, nn.Linear) else m for m in D)
        )

    D, plain = make(), make()
    real, fake = samples((6,), 4, 0), samples((6,), 3, 0)
    for _ in range(3):
        out = discriminator_step(D, real, fake)
        assert out.path == "fused_mlp"
        out.loss.backward()
        logits = plain(torch.cat((real, fake))).squeeze(1)
        losses.discriminator_loss("non_saturating", logits[:4], logits[4:]).backward()
    for (name, p), q in zip(D.named_parameters(), plain.parameters(), strict=True):
        same(p.grad, q.grad, name)
    for (name, p), q in zip(D.named_buffers(), plain.buffers(), strict=True):
        same(p, q, name)


class Subclass(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda D: D[0].register_forward_hook(lambda *a: None), "hooks"),
        (lambda D: D.insert(1, nn.AlphaDropout(0.0)), "AlphaDropout"),
        (lambda D: D.insert(1, nn.Softplus()), "Softplus"),
        (lambda D: D.__setitem__(0, Subclass(13, 40)), "Subclass"),
        (lambda D: D.insert(1, nn.LeakyReLU(-0.1)), "negative slope"),
    ],
)
def test_what_is_not_known_goes_through_autograd(change, reason):
    D = dense()
    change(D)
    out = discriminator_step(D, torch.randn(3, 13), torch.randn(3, 13))
    assert out.path == "autograd" and reason in out.reason


def test_other_devices_go_through_autograd():
    D, x = dense().to("meta"), torch.randn(3, 13, device="meta")
    out = discriminator_step(D, x, x)
    assert out.path == "autograd" and "'meta'" in out.reason and out.loss.shape == ()


def shapes_only(name, penalties):
    """The step of tensors without data: its output, after every parameter has got a gradient."""
    make, shape, dim, _ = PATHS[name]
    D = make()
    out = discriminator_step(D, samples(shape, 4, dim).float(), samples(shape, 4, dim).float(), **penalties)
    out.loss.backward()
    assert all(p.grad.shape == p.shape for p in D.parameters())
    assert out.loss.shape == out.penalty.shape == () and out.real_logits.shape == out.fake_logits.shape == (
        4,
    )
    return out


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("path", PATHS)
def test_shapes_without_data(path, penalty):
    penalties = PENALTIES[penalty]
    with torch.device("meta"):
        assert shapes_only(path, penalties).loss.is_meta
    with FakeTensorMode():
        out = shapes_only(path, penalties)
    assert out.path in ways(path, penalty)


@pytest.mark.parametrize("penalty", ["none", "all"])
@pytest.mark.parametrize("path", ["dense", "conv", "smooth", "softplus", "recurrent"])
def test_compiled(path, penalty):
    """A penalty by a second backward breaks the graph; all else is one."""
    penalties = PENALTIES[penalty]
    make, shape, dim, expected = PATHS[path]
    D = make().double()
    twin, (real, fake) = copy.deepcopy(D), (samples(shape, 4, dim), samples(shape, 4, dim))
    torch._dynamo.reset()
    losses_of = []
    for net in (D, twin):

        def step(real, fake, net=net):
            return discriminator_step(net, real, fake, "hinge", **penalties).loss

        torch.manual_seed(1)
        if net is D:
            whole = not penalties or expected == "fused_mlp"
            step = torch.compile(step, fullgraph=whole, backend="aot_eager")
        loss = step(real, fake)
        loss.backward()
        losses_of.append(loss)
    same(*losses_of, "loss")
    for (name, p), q in zip(D.named_parameters(), twin.parameters(), strict=True):
        same(p.grad, q.grad, name)


def test_real_and_fake_samples_pass_apart_with_masks_of_their_own():
    """Through a network that is not known: real before fake, as two calls of D would draw them."""
    calls = []

    class Net(nn.Module):
        def forward(self, x):
            calls.append(nn.functional.dropout(x.new_ones(x.shape)))
            return (x * calls[-1]).sum(1)

    real, fake = torch.randn(3, 50), torch.randn(2, 50)
    torch.manual_seed(1)
    out = discriminator_step(Net(), real.requires_grad_(), fake)
    torch.manual_seed(1)
    want = [nn.functional.dropout(torch.ones(x.shape)) for x in (real, fake)]
    assert len(calls) == 2 and all(torch.equal(a, b) for a, b in zip(calls, want, strict=True))
    assert torch.equal(out.fake_logits, (fake * want[1]).sum(1))


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    nr=st.integers(1, 40),
    nf=st.integers(1, 40),
    loss=st.sampled_from(losses.LOSSES[:-1]),
    r1=st.sampled_from([0.0, 1.5]),
    slope=st.sampled_from([0.0, 0.2, 1.0, 2.0]),
    threads=st.integers(1, 3),
)
def test_any_size(sizes, nr, nf, loss, r1, slope, threads):
    torch.set_num_threads(threads)
    D = dense((*sizes, 1), lambda: nn.LeakyReLU(slope)).double()
    twin = copy.deepcopy(D)
    real, fake = samples((sizes[0],), nr, 0), samples((sizes[0],), nf, 0)
    out = discriminator_step(D, real, fake, loss, r1=r1)
    assert out.path == "fused_mlp"
    out.loss.backward()
    want, *_ = eager(twin, real, fake, loss, 0, None, r1=r1)
    want.backward()
    same(out.loss, want, "loss")
    for (name, p), q in zip(D.named_parameters(), twin.named_parameters(), strict=True):
        same(p.grad, q[1].grad, name)


@pytest.mark.parametrize(("inputs", "units"), [(784, 1024), (1072, 520), (999, 700)])
def test_weights_larger_than_a_cache(inputs, units):
    """Gradients that are written past it: whole panels of columns, a part of one, and no whole vectors."""
    D = dense((inputs, units, 1)).double()
    twin = copy.deepcopy(D)
    real, fake = samples((inputs,), 3, 0), samples((inputs,), 2, 0)
    discriminator_step(D, real, fake, r1=1.5).loss.backward()
    eager(twin, real, fake, "non_saturating", 0, None, r1=1.5)[0].backward()
    for (name, p), q in zip(D.named_parameters(), twin.parameters(), strict=True):
        same(p.grad, q.grad, name)


def test_samples_lie_where_a_wrapper_says():
    """torch.compile's module hands attributes on: R1 is a mean over samples, whoever says where they lie."""
    model = RecurrentGAN(2, hidden_size=4, noise_size=4)
    real, fake = (model.critic_input(samples((6, 2), n, 1, torch.float32)) for n in (3, 3))
    D = model.discriminator
    want = discriminator_step(D, real, fake, r1=3.0)
    got = discriminator_step(torch.compile(D, backend="eager"), real, fake, r1=3.0)
    torch.testing.assert_close(got.penalty, want.penalty)


@pytest.mark.parametrize("penalty", [{}, {"r1": 2.0}])
@pytest.mark.parametrize("make", [dense, conv])
def test_a_forward_put_in_place_is_called(make, penalty):
    D = make().double()
    shape = (13,) if make is dense else (2, 8, 8)
    real, fake = samples(shape, 5, 0), samples(shape, 4, 0)
    layer = next(m for m in D.modules() if isinstance(m, nn.Linear))
    plain = layer.forward
    layer.forward = lambda x: 3 * plain(x)
    out = discriminator_step(D, real, fake, **penalty)
    assert out.path == "autograd"
    assert "a replaced forward" in out.reason or (make is conv and not penalty)
    same(out.loss, eager(D, real, fake, "non_saturating", 0, None, **penalty)[0], "loss")


@pytest.mark.parametrize("trained", ["nothing", "biases", "first"])
def test_frozen_convolutions(trained):
    def make():
        torch.manual_seed(0)
        D = nn.Sequential(
            nn.Conv2d(2, 4, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 2, 3, 1, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(32, 1),
        ).double()  # fmt: skip
        for name, p in D.named_parameters():
            wanted = {"nothing": False, "biases": "bias" in name, "first": name.startswith("0")}
            p.requires_grad_(wanted[trained])
        return D

    D, twin = make(), make()
    real, fake = samples((2, 8, 8), 3, 0), samples((2, 8, 8), 4, 0).requires_grad_()
    other = fake.detach().clone().requires_grad_()
    out = discriminator_step(D, real, fake, r1=3.0)
    assert out.path == "fused_conv"
    out.loss.backward()
    eager(twin, real, other, "non_saturating", 0, None, r1=3.0)[0].backward()
    same(fake.grad, other.grad, "fake")
    for (name, p), q in zip(D.named_parameters(), twin.parameters(), strict=True):
        if p.requires_grad:
            same(p.grad, q.grad, name)


def test_dense_layers_over_more_dims_are_in_closed_form():
    D = nn.Sequential(nn.Conv1d(2, 1, 3), nn.LeakyReLU(0.2), nn.Linear(6, 1)).double()
    real, fake = samples((2, 8), 3, 0), samples((2, 8), 4, 0)
    found = []
    for backend, path in (("fused", "closed_form"), ("torch", "autograd")):
        fusegen.set_backend(backend)
        out = discriminator_step(D, real, fake, r1=3.0)
        assert out.path == path
        found.append(torch.autograd.grad(out.loss, list(D.parameters())))
    for a, b in zip(*found, strict=True):
        agree(a, b)


def test_a_generator_that_is_cut_off_is_noticed():
    with pytest.raises(RuntimeError, match="does not require grad"):
        generator_step(dense().double(), samples((13,), 4, 0)).loss.backward()


def test_module_repr_and_lazy_weights():
    step = gan.DiscriminatorStep(dense(), loss="hinge", r1=10.0)
    assert "r1=10.0" in repr(step)
    x, y = torch.randn(3, 13), torch.randn(3, 13)
    assert step(x, y).penalty > 0 and step(x, y, r1=0.0).penalty == 0
