"""The GAN step on convolutions and batch norms in blocks of samples, against torch."""

import copy

import pytest
import torch
from fusegen import losses
from fusegen.gan import discriminator_step, generator_step
from fusegen.ops import convolution
from gan_networks import PENALTIES, eager
from tolerances import agree, same
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

THREADS = 2  # a call's work is divided
LANES = convolution.lanes(torch.float64)
ENOUGH = 4 * LANES  # samples that fill a block


def dcgan():
    return nn.Sequential(
        nn.Conv2d(2, 4, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(4, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6), nn.LeakyReLU(0.2), nn.Conv2d(6, 1, 2),
    )  # fmt: skip


def plain():
    return nn.Sequential(
        nn.Identity(), nn.Conv2d(2, 5, 3, stride=2, padding=1), nn.ReLU(), nn.Sequential(nn.Conv2d(5, 7, 3)),
        nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(28, 9, bias=False), nn.ReLU(), nn.Linear(9, 1),
    )  # fmt: skip


def patch():
    return nn.Sequential(
        nn.Conv2d(2, 16, 3, stride=2), nn.LeakyReLU(0.2), nn.Conv2d(16, 16, 2, groups=2), nn.ReLU(),
        nn.Conv2d(16, 1, 1),
    )  # fmt: skip


def one_dim():
    return nn.Sequential(
        nn.Conv1d(3, 6, 3, padding=2, dilation=2), nn.BatchNorm1d(6, affine=False), nn.ReLU(),
        nn.Conv1d(6, 4, 2), nn.BatchNorm1d(4, momentum=None), nn.Conv1d(4, 1, 10),
    )  # fmt: skip


def dense_norm():
    return nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.Flatten(), nn.Linear(36, 20), nn.BatchNorm1d(20, track_running_stats=False),
        nn.ReLU(), nn.Linear(20, 1),
    )  # fmt: skip


NETWORKS = {
    "dcgan": (dcgan, (2, 8, 8)),
    "plain": (plain, (2, 8, 8)),
    "patch": (patch, (2, 8, 8)),
    "1d": (one_dim, (3, 11)),
    "dense norm": (dense_norm, (3, 11)),
}


def cases():
    for network in NETWORKS:
        for penalty in PENALTIES:
            if penalty == "none" or network in ("plain", "patch"):
                for loss in losses.LOSSES:
                    yield network, loss, penalty


@pytest.mark.parametrize(("network", "loss", "penalty"), list(cases()))
def test_step_equals_autograd(network, loss, penalty):
    make, shape = NETWORKS[network]
    D, weights = make().double(), PENALTIES[penalty]
    paired = loss == "relativistic" or "gp" in weights
    for nr, nf in ((ENOUGH, ENOUGH),) if paired else ((ENOUGH, ENOUGH - 2), (LANES, 5 * LANES - 1)):
        real, fake = (torch.randn(n, *shape, dtype=torch.float64).requires_grad_() for n in (nr, nf))
        twin = copy.deepcopy(D)
        out = discriminator_step(D, real, fake, loss, generator=torch.Generator().manual_seed(1), **weights)
        assert out.path == "fused_conv" and "blocks of samples" in out.reason
        want, r, f = eager(twin, real, fake, loss, 0, torch.Generator().manual_seed(1), **weights)
        same(out.loss, want, "loss")
        same(out.real_logits, r, "real logits")
        same(out.fake_logits, f, "fake logits")
        got = torch.autograd.grad(out.loss, [*D.parameters(), real, fake])
        expected = torch.autograd.grad(want, [*twin.parameters(), real, fake], materialize_grads=True)
        names = [*(name for name, _ in D.named_parameters()), "real", "fake"]
        for name, g, w in zip(names, got, expected, strict=True):
            same(g, w, f"gradient of {name}, {nr} and {nf} samples")
        for name, buffer in D.named_buffers():
            same(buffer, twin.get_buffer(name), name)


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("network", NETWORKS)
def test_generator_step(network, loss):
    make, shape = NETWORKS[network]
    D = make().double()
    fake, real = (torch.randn(ENOUGH, *shape, dtype=torch.float64).requires_grad_() for _ in range(2))
    twin = copy.deepcopy(D)
    out = generator_step(D, fake, loss, real=real)
    assert out.path == "fused_conv" and (out.real_logits is None) == (loss != "relativistic")
    out.loss.backward()
    assert real.grad is None and all(p.grad is None and p.requires_grad for p in D.parameters())
    r = twin(real).flatten(1).mean(1) if loss == "relativistic" else None
    want = losses.generator_loss(loss, twin(fake).flatten(1).mean(1), r)
    same(out.loss, want, "loss")
    same(fake.grad, torch.autograd.grad(want, fake)[0], "gradient of fake")
    for name, buffer in D.named_buffers():
        same(buffer, twin.get_buffer(name), name)


@pytest.mark.parametrize("network", ["dcgan", "plain", "patch"])
def test_second_order(network):
    make, shape = NETWORKS[network]
    D = make().double()
    real, fake = (torch.randn(ENOUGH, *shape, dtype=torch.float64).requires_grad_() for _ in range(2))
    inputs = [*D.parameters(), real, fake]

    def second(loss):
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), inputs, materialize_grads=True)

    penalty = {} if network == "dcgan" else {"r1": 2.0}
    got = second(discriminator_step(D, real, fake, "least_squares", **penalty).loss)
    want = second(eager(D, real, fake, "least_squares", 0, None, **penalty)[0])
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        same(g, w, f"second gradient {i}")


@pytest.mark.parametrize("penalty", ["none", "r1"])
def test_float32_is_as_good_as_autograd(penalty):
    make = dcgan if penalty == "none" else plain
    sums = {}
    for seed in range(12):  # a few values cancel now and then
        torch.manual_seed(seed)
        D = make()
        nets = copy.deepcopy(D).double(), D, copy.deepcopy(D)
        samples = torch.randn(2, 64, 2, 8, 8)
        results = []
        for net in nets:
            real, fake = samples.to(next(net.parameters()).dtype)
            if net is D:
                out = discriminator_step(net, real, fake, **PENALTIES[penalty])
                assert out.path == "fused_conv"
                loss = out.loss
            else:
                loss, _, _ = eager(net, real, fake, "non_saturating", 0, None, **PENALTIES[penalty])
            results.append(torch.autograd.grad(loss, list(net.parameters())))
        for i, (e, ours, theirs) in enumerate(zip(*results, strict=True)):
            a, b = sums.get(i, (0.0, 0.0))
            sums[i] = (a + (ours - e).square().sum().item(), b + (theirs - e).square().sum().item())
    for i, (ours, theirs) in sums.items():
        assert ours <= 4 * theirs + 1e-20, f"gradient {i}: {ours**0.5:.2e}, autograd's {theirs**0.5:.2e}"


@pytest.mark.parametrize("frozen", ["first convolution", "all but the head", "norms", "everything"])
def test_frozen_parameters(frozen):
    D = dcgan().double()
    for name, p in D.named_parameters():
        kept = {
            "first convolution": name[0] != "0",
            "all but the head": name[0] == "5",
            "norms": name[0] != "3",
        }
        p.requires_grad_(kept.get(frozen, False))
    twin = copy.deepcopy(D)
    real, fake = torch.randn(2, ENOUGH, 2, 8, 8, dtype=torch.float64)
    out = discriminator_step(D, real, fake)
    assert out.path == "fused_conv" and out.loss.requires_grad == (frozen != "everything")
    if frozen == "everything":
        return
    out.loss.backward()
    eager(twin, real, fake, "non_saturating", 0, None)[0].backward()
    for (name, p), q in zip(D.named_parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if q.grad is not None:
            same(p.grad, q.grad, name)


def test_spectral_norm_iterates_once_a_step():
    D = plain()
    D[1] = parametrizations.spectral_norm(D[1])
    twin = copy.deepcopy(D)
    real, fake = torch.randn(2, 64, 2, 8, 8)
    for penalty in ({}, {"r1": 1.0}):
        out = discriminator_step(D, real, fake, **penalty)
        assert out.path == "fused_conv"
        twin(real)
        for name, buffer in D.named_buffers():
            same(buffer, twin.get_buffer(name), name, "pass")


def test_gradients_add_up_and_the_graph_can_be_kept():
    D, (real, fake) = dcgan(), torch.randn(2, 64, 2, 8, 8)
    loss = discriminator_step(D, real, fake).loss
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in D.parameters()]
    loss.backward()
    for p, g in zip(D.parameters(), once, strict=True):
        torch.testing.assert_close(p.grad, 2 * g)


@pytest.mark.parametrize("penalty", ["none", "r1"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode, penalty):
    D, (real, fake) = plain(), torch.randn(2, 64, 2, 8, 8)
    want = discriminator_step(D, real, fake, **PENALTIES[penalty])
    with mode():
        out = discriminator_step(D, real, fake, **PENALTIES[penalty])
    assert not out.loss.requires_grad and out.path == "fused_conv"
    torch.testing.assert_close(out.loss, want.loss.detach())
    torch.testing.assert_close(out.penalty, want.penalty)


@pytest.mark.parametrize("layout", ["strided", "expanded", "channels last", "weights channels last"])
def test_any_layout(layout):
    D, x = plain(), torch.randn(64, 2, 8, 8)
    want = discriminator_step(D, x, x)
    y = {
        "strided": torch.stack((x, x), -1)[..., 0],
        "expanded": x[:1].expand(64, -1, -1, -1),
        "channels last": x.contiguous(memory_format=torch.channels_last),
    }.get(layout, x)
    if layout == "expanded":
        want = discriminator_step(D, y.contiguous(), x)
    if layout == "weights channels last":
        D = D.to(memory_format=torch.channels_last)
    out = discriminator_step(D, y, x)
    assert out.path == "fused_conv"
    torch.testing.assert_close(out.loss, want.loss)
    out.loss.backward()


def test_threads_share_evenly_sized_and_odd_work():
    D, (real, fake) = dcgan(), torch.randn(2, 64, 2, 8, 8)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        loss = discriminator_step(copy.deepcopy(D), real, fake).loss
        results.append(loss)
    assert all(torch.equal(r, results[0]) for r in results)


WAYS = {
    "too few samples": (plain, lambda: torch.randn(2, 3, 2, 8, 8), "too much empty"),
    "evaluation": (lambda: dcgan().eval(), lambda: torch.randn(2, 64, 2, 8, 8), "evaluation mode"),
    "half precision": (
        lambda: plain().bfloat16(),
        lambda: torch.randn(2, 64, 2, 8, 8).bfloat16(),
        "bfloat16",
    ),
    "smooth": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 8), nn.Tanh(), nn.Conv2d(3, 1, 1)),
        lambda: torch.randn(2, 64, 2, 8, 8),
        "Tanh",
    ),
    "padding mode": (
        lambda: nn.Sequential(nn.Conv2d(2, 1, 3, padding=1, padding_mode="reflect")),
        lambda: torch.randn(2, 64, 2, 8, 8),
        "pads",
    ),
    "three dims": (
        lambda: nn.Sequential(nn.Conv3d(2, 1, 3), nn.Flatten()),
        lambda: torch.randn(2, 64, 2, 3, 3, 3),
        "three spatial dims",
    ),
    "depthwise": (
        lambda: nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 1, 6)),
        lambda: torch.randn(2, 64, 2, 8, 8),
        "channels a group",
    ),
    "dense layers alone": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 1)),
        lambda: torch.randn(2, 64, 2, 8, 8),
        "BatchNorm1d",
    ),
    "activation before a norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 6)),
        lambda: torch.randn(2, 64, 2, 8, 8),
        "BatchNorm2d",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_goes_through_autograd(way):
    make, data, reason = WAYS[way]
    D, (real, fake) = make(), data()
    out = discriminator_step(D, real, fake)
    assert out.path == "autograd" and reason in out.reason
    out.loss.backward()


def test_inside_torch_func():
    D = plain()
    real, fake = torch.randn(2, 64, 2, 8, 8)
    for penalty in ({}, {"r1": 1.0}):
        weights = dict(D.named_parameters())

        def loss(weights, penalty=penalty):
            step = lambda m, *x: discriminator_step(D, *x, **penalty).loss
            return torch.func.functional_call(
                Call(D, step), {f"D.{k}": w for k, w in weights.items()}, (real, fake)
            )

        got = torch.func.grad(loss)(weights)
        want = torch.autograd.grad(discriminator_step(D, real, fake, **penalty).loss, list(weights.values()))
        for (name, g), w in zip(got.items(), want, strict=True):
            agree(g, w, name)


@pytest.mark.parametrize("penalty", ["none", "r1"])
def test_batched_gradients(penalty):
    D, (real, fake) = plain().double(), torch.randn(2, 64, 2, 8, 8, dtype=torch.float64)
    loss = discriminator_step(D, real, fake, **PENALTIES[penalty]).loss
    want = torch.autograd.grad(loss, list(D.parameters()), retain_graph=True)
    scale = torch.tensor([1.0, -2.0], dtype=torch.float64)
    got = torch.autograd.grad(loss, list(D.parameters()), scale, is_grads_batched=True)
    for g, w in zip(got, want, strict=True):
        same(g, torch.stack((w, -2 * w)), "batch of gradients")


@pytest.mark.parametrize("penalty", ["none", "r1"])
def test_forward_mode(penalty):
    D, (real, fake, along) = plain().double(), torch.randn(3, 64, 2, 8, 8, dtype=torch.float64)
    real.requires_grad_()
    loss = discriminator_step(D, real, fake, **PENALTIES[penalty]).loss
    want = (torch.autograd.grad(loss, real)[0] * along).sum()
    with forward_ad.dual_level():
        out = discriminator_step(D, forward_ad.make_dual(real.detach(), along), fake, **PENALTIES[penalty])
        same(forward_ad.unpack_dual(out.loss).tangent, want, "tangent")


@pytest.mark.parametrize("make", [dcgan, plain])
def test_inside_a_checkpoint(make):
    D, (real, fake) = make(), torch.randn(2, 64, 2, 8, 8)
    want = torch.autograd.grad(discriminator_step(D, real, fake).loss, list(D.parameters()))
    loss = checkpoint(lambda *x: discriminator_step(D, *x).loss, real, fake, use_reentrant=False)
    for g, w in zip(torch.autograd.grad(loss, list(D.parameters())), want, strict=True):
        torch.testing.assert_close(g, w)


@pytest.mark.parametrize("activation", [nn.ReLU, lambda: nn.LeakyReLU(0.2)])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("loss", ["non_saturating", "hinge", "wasserstein"])
def test_nan_and_infinity_travel_as_in_torch(loss, value, activation):
    D = nn.Sequential(
        nn.Conv2d(1, 3, 1),
        nn.BatchNorm2d(3),
        activation(),
        nn.Conv2d(3, 4, 1),
        activation(),
        nn.Conv2d(4, 1, 2),
    )
    twin, (real, fake) = copy.deepcopy(D), torch.randn(2, 64, 1, 2, 2)
    real[0, 0, 0, 0] = value
    discriminator_step(D, real, fake, loss).loss.backward()
    eager(twin, real, fake, loss, 0, None)[0].backward()
    for (name, p), q in zip(D.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.grad.isfinite(), q.grad.isfinite()), name
    for name, buffer in D.named_buffers():
        assert torch.equal(buffer.isfinite(), twin.get_buffer(name).isfinite()), name


def test_one_norm_in_two_places():
    conv, norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
    D = nn.Sequential(conv, norm, nn.ReLU(), conv, norm, nn.ReLU(), nn.Conv2d(4, 1, 8)).double()
    twin, (real, fake) = copy.deepcopy(D), torch.randn(2, 64, 4, 8, 8, dtype=torch.float64)
    assert discriminator_step(D, real, 3 * fake).path == "fused_conv"
    twin(real), twin(3 * fake)
    for name, buffer in D.named_buffers():
        same(buffer, twin.get_buffer(name), name)


def test_nothing_grows_beside_the_samples():
    """A norm of tiny variance makes the zeros that fill a block large, layer by layer."""
    layers = [nn.Conv1d(3, 16, 1)]
    for _ in range(12):
        layers += [nn.BatchNorm1d(16, eps=1e-12), nn.LeakyReLU(0.2), nn.Conv1d(16, 16, 1)]
    D = nn.Sequential(*layers, nn.Conv1d(16, 1, 2))
    fake = torch.randn(1, 3, 2) + 1e-6 * torch.randn(60, 3, 2)
    discriminator_step(D, torch.randn(60, 3, 2), fake).loss.backward()
    assert all(p.grad.isfinite().all() for p in D.parameters())


def test_a_norm_that_counts_no_batches():
    D = dcgan()
    D[3].num_batches_tracked = None
    twin, (real, fake) = copy.deepcopy(D), torch.randn(2, 64, 2, 8, 8)
    assert discriminator_step(D, real, fake).path == "fused_conv"
    twin(real), twin(fake)
    torch.testing.assert_close(D[3].running_var, twin[3].running_var)


def odd_modules():
    D = plain()
    D[1].padding = 1
    yield "padding that is no tuple", D, None
    D = dcgan()
    D[5].weight = nn.Parameter(torch.randn(2, 6, 2, 2))
    D[5].bias = None
    yield "another weight than the module says", D, ValueError
    D = dcgan()
    D[3].running_var = torch.zeros(5)
    yield "statistics of another shape", D, RuntimeError


@pytest.mark.parametrize("case", list(odd_modules()), ids=lambda case: case[0])
def test_odd_modules_are_torchs(case):
    _, D, error = case
    real, fake = torch.randn(2, 64, 2, 8, 8)
    if error is None:
        assert discriminator_step(D, real, fake).path == "autograd"
        return
    before = D[3].running_mean.clone()
    with pytest.raises(error):
        discriminator_step(D, real, fake)
    assert error is ValueError or torch.equal(D[3].running_mean, before)


class Call(nn.Module):
    def __init__(self, D, step):
        super().__init__()
        self.D, self.step = D, step

    def forward(self, *x):
        return self.step(self.D, *x)


def bad_calls():
    x, y = torch.randn(2, 64, 2, 8, 8)
    yield (
        "norm of one value",
        ValueError,
        "more than 1 value",
        lambda: discriminator_step(
            nn.Sequential(nn.Conv2d(2, 3, 8), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1)), x, y[:1]
        ),
    )
    yield "channels", RuntimeError, "channels", lambda: discriminator_step(dcgan(), x[:, :1], y[:, :1])
    yield (
        "too small a picture",
        RuntimeError,
        "Kernel size",
        lambda: discriminator_step(dcgan(), x[..., :2, :2], y[..., :2, :2]),
    )
    yield (
        "dtype",
        RuntimeError,
        "D: its parameters are torch.float64, the samples are torch.float32",
        lambda: discriminator_step(dcgan().double(), x, y),
    )
    yield "features", RuntimeError, "shapes", lambda: discriminator_step(plain(), x[..., :5], y[..., :5])


@pytest.mark.parametrize("call", list(bad_calls()), ids=lambda call: call[0])
def test_bad_input(call):
    _, kind, text, run = call
    with pytest.raises(kind, match=text):
        run()
