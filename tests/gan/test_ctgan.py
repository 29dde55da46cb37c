"""The critic of the ctgan package on the fused step, against that package's own code with our masks and
interpolation factors."""

import copy

import numpy as np
import pytest
import torch
from fusegen.gan import discriminator_step, generator_step
from fusegen.gan.ctgan import fused_critic
from gan_masks import Masked, masks_of
from tolerances import same
from torch import nn

ctgan = pytest.importorskip("ctgan", reason="ctgan is not installed")
critics = pytest.importorskip("ctgan.synthesizers.ctgan")

SEED = 4


class Given(nn.Module):
    """In place of a Dropout: multiplies by one mask after the other."""

    def __init__(self, masks, p):
        super().__init__()
        self.masks, self.p = list(masks), p

    def forward(self, x):
        return x * self.masks.pop(0) / (1 - self.p)


def with_masks(critic, out, rows):
    """ctgan's critic, its Dropouts dropping what the fused step's did, called fake, real, interpolates."""
    twin = copy.deepcopy(critic)
    kept = masks_of(critic.seq, out, rows)
    maps = 0
    for i, m in enumerate(twin.seq):
        maps += isinstance(m, nn.Linear)
        if isinstance(m, nn.Dropout):
            twin.seq[i] = Given((kept[maps].fake, kept[maps].real, kept[maps].mixed), m.p)
    return twin


@pytest.mark.parametrize(("samples", "features", "pac"), [(500, 83, 10), (20, 7, 10), (12, 5, 3)])
def test_the_packages_own_code_gives_the_same(monkeypatch, samples, features, pac):
    torch.manual_seed(0)
    critic = critics.Discriminator(features, (256, 256), pac=pac).double()
    real, fake = (torch.randn(samples, features, dtype=torch.float64) for _ in range(2))
    draw = torch.Generator().manual_seed(SEED)
    out = discriminator_step(critic.seq, real, fake, "wasserstein", gp=10.0, pac=critic.pac, generator=draw)
    out.loss.backward()
    assert out.path == "fused_mlp"

    rows = samples // pac
    share = torch.rand(rows, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(SEED))
    twin = with_masks(critic, out, rows)
    fake = fake.requires_grad_()
    y_fake, y_real = twin(fake), twin(real)
    with monkeypatch.context() as patched:
        # the package weighs real samples by its factor, the step fake ones
        patched.setattr(torch, "rand", lambda *shape, device=None: (1 - share).view(shape))
        penalty = twin.calc_gradient_penalty(real, fake, "cpu", pac)
    loss = -(y_real.mean() - y_fake.mean())
    penalty.backward(retain_graph=True)
    loss.backward()
    same(out.loss - out.penalty, loss, "loss")
    same(out.penalty, penalty, "penalty")
    same(out.real_logits, y_real.squeeze(1), "real logits")
    same(out.fake_logits, y_fake.squeeze(1), "fake logits")
    for (name, p), q in zip(critic.named_parameters(), twin.parameters(), strict=True):
        same(p.grad, q.grad, name)


def test_the_generators_turn():
    torch.manual_seed(0)
    critic = critics.Discriminator(7, (64, 32), pac=4).double()
    x = torch.randn(20, 7, dtype=torch.float64, requires_grad=True)
    out = generator_step(critic.seq, x, "wasserstein", pac=critic.pac)
    (got,) = torch.autograd.grad(out.loss, x)
    net = Masked(critic.seq, masks_of_fake(critic.seq, out), 4)
    net.group = 1
    want = -net(x).mean()
    same(out.loss, want, "loss")
    same(got, torch.autograd.grad(want, x)[0], "gradient")


def masks_of_fake(D, out):
    from fusegen.gan import dropout_masks

    return dropout_masks(D, out.key, fake=len(out.fake_logits))


def test_a_critic_that_packs_by_itself_names_the_way():
    critic = critics.Discriminator(7, (8,), pac=4)
    x = torch.randn(20, 7)
    with pytest.raises(ValueError, match="give the network inside it, with pac=4"):
        discriminator_step(critic, x, x)


def table(rows):
    draw = np.random.default_rng(0)
    import pandas as pd

    return pd.DataFrame({
        "amount": draw.gamma(2.0, 10.0, rows), "age": draw.normal(40, 12, rows),
        "kind": draw.choice(list("abcd"), rows),
    })  # fmt: skip


@pytest.mark.parametrize("discriminator_steps", [1, 3])
def test_fit_trains_the_packages_generator(discriminator_steps, monkeypatch):
    """By the package's own loop, whose log then has the fused step's logits; and its class is back after."""
    before, ran = critics.Discriminator, []
    import fusegen.gan.ctgan

    def step(*args, **options):
        ran.append(discriminator_step(*args, **options))
        return ran[-1]

    monkeypatch.setattr(fusegen.gan.ctgan, "discriminator_step", step)
    torch.manual_seed(0)
    model = ctgan.CTGAN(
        epochs=2, batch_size=100, discriminator_steps=discriminator_steps, enable_gpu=False, verbose=False
    )
    with fused_critic(discriminator_steps):
        model.fit(table(300), ["kind"])
    assert critics.Discriminator is before
    assert len(ran) == 2 * 3 * discriminator_steps and {out.path for out in ran} == {"fused_mlp"}
    last = ran[-1]
    logged = model.loss_values["Discriminator Loss"].iloc[-1]
    assert logged == pytest.approx((last.loss - last.penalty).item(), rel=1e-4, abs=1e-6)
    assert len(model.sample(10)) == 10
    with pytest.raises(ValueError, match="discriminator_steps"), fused_critic(0):
        pass


@pytest.mark.parametrize(("given", "own"), [(1, 3), (3, 1)])
def test_fit_with_other_discriminator_steps(given, own):
    model = ctgan.CTGAN(epochs=1, batch_size=100, discriminator_steps=own, enable_gpu=False, verbose=False)
    with (
        fused_critic(given),
        pytest.raises(ValueError, match=f"discriminator_steps: expected that of CTGAN's .*, got {given}"),
    ):
        model.fit(table(300), ["kind"])


def test_one_block_in_another():
    """The inner one's number counts."""
    before = critics.Discriminator
    model = ctgan.CTGAN(epochs=1, batch_size=100, discriminator_steps=2, enable_gpu=False, verbose=False)
    with fused_critic(5):
        with fused_critic(2):
            model.fit(table(200), ["kind"])
        assert critics.Discriminator is not before
    assert critics.Discriminator is before


def test_steps_move_the_critic_as_the_packages_do(monkeypatch):
    """Three updates of both networks' turns by either loop from the same weights, without Dropout and with
    the same draws: the generator ends with the same weights."""

    monkeypatch.setattr(critics, "Dropout", lambda p: nn.Dropout(0.0))
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.full(_flat(shape), 0.5))
    drawn = {}
    for fused in (False, True):
        model = ctgan.CTGAN(epochs=1, batch_size=100, enable_gpu=False, verbose=False)
        model.set_random_state(3)
        if fused:
            with fused_critic():
                model.fit(table(300), ["kind"])
        else:
            model.fit(table(300), ["kind"])
        drawn[fused] = [p.detach() for p in model._generator.parameters()]
    for a, b in zip(*drawn.values(), strict=True):
        same(a, b, "weights of the generator", "benchmark of a step")


def _flat(shape):
    """torch.rand takes a shape as one argument, or as several."""
    return shape if isinstance(shape[0], int) else shape[0]
