"""Residual, MinibatchStd and Projection as modules, by hand, and what they refuse."""

import pytest
import torch
from fusegen.gan import MinibatchStd, Projection, Residual, discriminator_step, generator_step
from tolerances import same
from torch import nn


def test_residual():
    x, body, way = torch.randn(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    assert torch.equal(Residual(body)(x), x + body(x))
    assert torch.equal(Residual(body, way)(x), way(x) + body(x))


def test_minibatch_std_by_hand():
    """Two groups of two, samples 0 and 2, 1 and 3: half a difference is a deviation."""
    x = torch.tensor([[1.0, 5.0], [0.0, 0.0], [3.0, 1.0], [0.0, 4.0]])
    got = MinibatchStd(2)(x)
    assert torch.equal(got[:, :2], x)
    torch.testing.assert_close(got[:, 2], torch.tensor([1.5, 1.0, 1.5, 1.0]), rtol=0, atol=1e-4)
    apart = MinibatchStd(2, 2)(x)[:, 2:]
    want = torch.tensor([[1.0, 2.0], [0.0, 2.0], [1.0, 2.0], [0.0, 2.0]])
    torch.testing.assert_close(apart, want, rtol=0, atol=1e-3)


@pytest.mark.parametrize("n", [1, 3, 4, 8])
def test_minibatch_std_of_maps(n):
    """As in StyleGAN2: groups by stride, channels in parts, the mean over a part and all places."""
    x = torch.randn(n, 4, 3, 2, dtype=torch.float64)
    size = min(4, n)
    got = MinibatchStd(4, 2)(x)
    assert got.shape == (n, 6, 3, 2) and torch.equal(got[:, :4], x)
    for i in range(n):
        members = x[[k for k in range(n) if k % (n // size) == i % (n // size)]]
        for part in range(2):
            of = members[:, 2 * part : 2 * part + 2]
            want = (of.var(0, unbiased=False) + 1e-8).sqrt().mean()
            same(got[i, 4 + part], want.expand(3, 2), "deviation")


def test_projection():
    """Miyato and Koyama 2018, equation 3; maps are summed over places."""
    D = Projection(nn.Identity(), 3, 4).double()
    h, y = torch.randn(2, 3, dtype=torch.float64), torch.tensor([3, 0])
    want = h @ D.linear.weight[0] + D.linear.bias + (D.embedding.weight[y] * h).sum(1)
    same(D(h, y), want.unsqueeze(1), "logits")
    maps = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    same(D(maps, y), D(maps.sum((2, 3)), y), "of maps")


class Conditional(nn.Module):
    """As people write one."""

    def __init__(self):
        super().__init__()
        self.net, self.classes = nn.Linear(13, 1), nn.Embedding(5, 13)

    def forward(self, x, y):
        return self.net(x + self.classes(y))


class Optional(Conditional):
    def forward(self, x, y=None):
        return self.net(x) if y is None else super().forward(x, y)


def head():
    return Projection(nn.Sequential(nn.Linear(13, 4), nn.ReLU()), 4, 5)


@pytest.mark.parametrize("make", [Conditional, Optional, head])
def test_labels_reach_a_forward_that_takes_them(make):
    D = make()
    x, z, y, other = torch.randn(6, 13), torch.randn(6, 13), torch.arange(6) % 5, torch.zeros(6).long()
    out = discriminator_step(D, x, z, real_labels=y, fake_labels=other)
    same(out.real_logits, D(x, y).squeeze(1), "real logits")
    same(out.fake_logits, D(z, other).squeeze(1), "fake logits")
    both = discriminator_step(D, x, z, labels=y, gp=1.0, generator=torch.Generator().manual_seed(1))
    same(both.fake_logits, D(z, y).squeeze(1), "fake logits of the same labels")
    assert both.penalty > 0
    given = generator_step(D, z.requires_grad_(), labels=other)
    same(given.fake_logits, D(z, other).squeeze(1), "fake logits of a generator's step")
    given.loss.backward()
    assert z.grad.abs().sum() > 0 and all(p.grad is None for p in D.parameters())
    pair = generator_step(D, z, "relativistic", real=x, labels=other, real_labels=y)
    same(pair.real_logits, D(x, y).squeeze(1), "real logits of a pair")


def test_an_optional_label_may_be_left_out():
    x = torch.randn(4, 13)
    assert discriminator_step(Optional(), x, x).path == "autograd"


def bad():
    x, y = torch.randn(4, 13), torch.arange(4)
    D, plain = head(), nn.Sequential(nn.Linear(13, 1))
    yield (
        "none",
        ValueError,
        "labels: Projection takes samples and their labels, got None",
        lambda: discriminator_step(D, x, x),
    )
    yield "none, generator", ValueError, "labels: Projection takes", lambda: generator_step(D, x)
    yield (
        "none, one's own",
        ValueError,
        "labels: Conditional takes",
        lambda: discriminator_step(Conditional(), x, x),
    )
    yield "direct", ValueError, "labels: D projects onto classes .* got None", lambda: D(x, None)
    yield (
        "not taken",
        ValueError,
        "labels: Sequential takes samples alone",
        lambda: discriminator_step(plain, x, x, labels=y),
    )
    yield (
        "both kinds",
        ValueError,
        "labels: expected labels alone, or real_labels and fake_labels",
        lambda: discriminator_step(D, x, x, labels=y, real_labels=y),
    )
    yield (
        "half",
        TypeError,
        r"fake_labels: expected a tensor \[4\] of labels, got NoneType",
        lambda: discriminator_step(D, x, x, real_labels=y),
    )
    yield (
        "number",
        ValueError,
        r"labels: expected a label for each of 4 samples, got shape \[3\]",
        lambda: discriminator_step(D, x, x, labels=y[:3]),
    )
    yield (
        "list",
        TypeError,
        "labels: expected a tensor .* got list",
        lambda: discriminator_step(D, x, x, labels=[0, 1, 2, 3]),
    )
    yield (
        "floats",
        ValueError,
        r"labels: expected integers \[4\], got torch.float32",
        lambda: discriminator_step(D, x, x, labels=y.float()),
    )
    yield (
        "classes",
        ValueError,
        "labels: expected classes from 0 to 4, got 2 to 5",
        lambda: discriminator_step(D, x, x, labels=y + 2),
    )
    yield (
        "pairs",
        ValueError,
        "gp: expected pairs of real and fake samples of the same label",
        lambda: discriminator_step(D, x, x, gp=1.0, real_labels=y, fake_labels=y.flip(0)),
    )
    yield (
        "features",
        ValueError,
        "body: expected 4 features a sample",
        lambda: Projection(nn.Linear(13, 3), 4, 5)(x, y),
    )
    yield "classes of a head", ValueError, "num_classes", lambda: Projection(nn.Identity(), 4, 1)
    yield "body of a head", TypeError, "body: expected an nn.Module, got int", lambda: Projection(3, 4, 5)
    yield "no body", TypeError, "body: expected an nn.Module, got function", lambda: Residual(lambda x: x)
    yield (
        "no shortcut",
        TypeError,
        "shortcut: expected an nn.Module, got str",
        lambda: Residual(nn.Identity(), "x"),
    )
    yield (
        "shapes",
        ValueError,
        r"body: expected what the shortcut gives, shape \[4, 13\], got \[4, 1\]",
        lambda: Residual(nn.Linear(13, 1))(x),
    )
    yield (
        "shapes in a step",
        ValueError,
        "body: expected what the shortcut gives",
        lambda: discriminator_step(nn.Sequential(Residual(nn.Linear(13, 1)), nn.Linear(13, 1)), x, x, r1=1.0),
    )
    yield (
        "group",
        ValueError,
        "group: expected a divisor of the number of samples, 4, got 3",
        lambda: MinibatchStd(3)(x),
    )
    yield (
        "group in a step",
        ValueError,
        "group: expected a divisor",
        lambda: discriminator_step(nn.Sequential(MinibatchStd(3), nn.Linear(14, 1)), x, x, r1=1.0),
    )
    yield (
        "channels",
        ValueError,
        "channels: expected a divisor of x's 13, got 2",
        lambda: MinibatchStd(2, 2)(x),
    )
    yield "group of 0", ValueError, "group: expected .* at least 1", lambda: MinibatchStd(0)
    yield "vector", ValueError, r"x: expected \[N, C, ...\], got shape \[13\]", lambda: MinibatchStd()(x[0])


@pytest.mark.parametrize(("error", "text", "call"), [pytest.param(*b[1:], id=b[0]) for b in bad()])
def test_bad_input(error, text, call):
    with pytest.raises(error, match=text):
        call()


def test_real_and_fake_samples_have_statistics_of_their_own():
    """Without a penalty, too, and where real and fake are not as many."""
    D = nn.Sequential(MinibatchStd(4), nn.Linear(6, 1))
    x, z = torch.randn(4, 5), torch.randn(8, 5)
    out = discriminator_step(D, x, z)
    assert torch.equal(out.real_logits, D(x).squeeze(1)) and torch.equal(out.fake_logits, D(z).squeeze(1))
