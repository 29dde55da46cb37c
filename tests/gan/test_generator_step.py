"""The generator's step: gradients to the fake samples, none to D, whatever D does."""

import copy

import fusegen
import pytest
import torch
from fusegen import losses
from fusegen.gan import HeldLabels, discriminator_step, generator_step
from gan_networks import PATHS, Checkpointed, Recurrent, dense, samples, ways
from tolerances import same
from torch import nn


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("path", ["dense", "images", "smooth", "softplus", "recurrent", "batch norm"])
def test_generator_step(path, loss):
    make, shape, dim, _ = PATHS[path]
    D = make().double()
    fake, real = samples(shape, 5, dim).requires_grad_(), samples(shape, 5, dim).requires_grad_()
    twin = copy.deepcopy(D)
    out = generator_step(D, fake, loss, real=real)
    assert out.path in ways(path)
    out.loss.backward()
    assert all(p.grad is None and p.requires_grad for p in D.parameters()) and real.grad is None

    def logits(x):
        out = twin(x)
        return out if out.dim() == 1 else out.flatten(1).mean(1)

    r = logits(real) if loss == "relativistic" else None
    f = logits(fake)
    want = losses.generator_loss(loss, f, r)
    same(out.loss, want, "loss")
    same(fake.grad, torch.autograd.grad(want, fake)[0], "gradient of fake")
    assert (out.real_logits is None) == (loss != "relativistic")


def convolutions():
    return nn.Sequential(nn.Conv2d(5, 8, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 1))


@pytest.mark.parametrize("backend", ["fused", "torch"])
@pytest.mark.parametrize(
    ("make", "shape", "path"),
    [(dense, (13,), "fused_mlp"), (convolutions, (5, 6, 6), "fused_conv")],
    ids=["dense", "convolutions"],
)
def test_conditions_get_no_gradient(make, shape, path, backend):
    """On every way: what HeldLabels holds is held in the generator's turn too."""
    D = HeldLabels(make().double(), 3)
    fake = torch.randn(16, *shape, dtype=torch.float64, requires_grad=True)
    fusegen.set_backend(backend)
    out = generator_step(D, fake)
    assert out.path == (path if backend == "fused" else "autograd"), out.reason
    out.loss.backward()
    want = losses.generator_loss("non_saturating", D(fake).squeeze(1))
    same(fake.grad, torch.autograd.grad(want, fake)[0], "gradient of fake")
    assert fake.grad[:, :3].abs().min() > 0 and not fake.grad[:, 3:].any()


@pytest.mark.parametrize("loss", ["wasserstein", "relativistic"])
@pytest.mark.parametrize("use_reentrant", [True, False], ids=["reentrant", "not reentrant"])
def test_generator_step_of_a_checkpointed_discriminator(use_reentrant, loss):
    D = dense(activation=nn.Softplus).double()
    noise, real = samples((13,), 5, 0).requires_grad_(), samples((13,), 5, 0)
    out = generator_step(Checkpointed(D, use_reentrant), noise.tanh(), loss, real=real)
    for _ in range(2):
        out.loss.backward(retain_graph=True)
    assert all(p.grad is None and p.requires_grad for p in D.parameters())
    (want,) = torch.autograd.grad(generator_step(D, noise.tanh(), loss, real=real).loss, noise)
    same(noise.grad, 2 * want, "gradient")


@pytest.mark.parametrize("kind", ["plain", "reentrant", "not reentrant"])
def test_both_steps_in_one_backward_pass(kind):
    """Each discriminator's parameters get the gradient of its own step, in whatever order the nodes run."""
    grads = []
    noise, real = samples((5,), 4, 0), samples((13,), 4, 0).requires_grad_()
    for joint in (False, True):
        torch.manual_seed(0)
        G, D = nn.Linear(5, 13).double(), dense(activation=nn.Softplus).double()
        net = D if kind == "plain" else Checkpointed(D, kind == "reentrant")
        fake = G(noise)
        terms = [
            generator_step(net, fake).loss,
            discriminator_step(net, real, fake.detach().requires_grad_()).loss,
            generator_step(net, fake, "hinge").loss,
        ]
        for loss in [sum(terms)] if joint else terms:
            loss.backward(retain_graph=True)
        grads.append([p.grad for p in (*G.parameters(), *D.parameters())])
    for one, other in zip(*grads, strict=True):
        same(one, other, "gradient")


def test_a_backward_that_raises_leaves_the_weights_trainable():
    D = dense(activation=nn.Softplus)

    def fail(_):
        raise ArithmeticError("in backward")

    D[1].register_forward_hook(lambda module, given, out: out.register_hook(fail) and None)
    with pytest.raises(ArithmeticError, match="in backward"):
        generator_step(D, torch.randn(3, 13, requires_grad=True)).loss.backward()
    assert all(p.requires_grad and p.grad is None for p in D.parameters())


def test_what_a_discriminator_saved_is_freed_with_the_graph():
    x = samples((13,), 3, 0).requires_grad_()
    loss = generator_step(dense(activation=nn.Softplus).double(), x, "wasserstein").loss
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the discriminator a second time"):
        loss.backward()


@pytest.mark.parametrize("checkpointed", [False, True])
def test_second_order_of_the_generator_step(checkpointed):
    D = dense((4, 6, 1), nn.Softplus).double()
    D = Checkpointed(D, use_reentrant=False) if checkpointed else D

    def step(fake):
        return generator_step(D, fake).loss

    x = samples((4,), 3, 0).requires_grad_()
    assert torch.autograd.gradcheck(step, x) and torch.autograd.gradgradcheck(step, x)
    by_gradient = torch.autograd.grad(step(x), x, create_graph=True)[0].square().sum()
    (second,) = torch.autograd.grad(by_gradient, x, create_graph=True)
    assert second.requires_grad and all(p.grad is None and p.requires_grad for p in D.parameters())
    dual = torch.autograd.forward_ad
    with dual.dual_level():
        tangent = dual.unpack_dual(step(dual.make_dual(x.detach(), torch.ones_like(x)))).tangent
    same(tangent, torch.autograd.grad(step(x), x)[0].sum(), "directional derivative")


class Judged(nn.Module):
    def __init__(self, D):
        super().__init__()
        self.D = D

    def forward(self, fake):
        return generator_step(self.D, fake).loss


@pytest.mark.parametrize("path", ["dense", "softplus", "patches", "recurrent", "torch's LSTM"])
def test_generator_step_of_parameters_that_are_no_leaves(path):
    if path == "torch's LSTM":
        make, shape, dim = lambda: Recurrent(nn.LSTM), (4, 3), 1
    else:
        make, shape, dim, _ = PATHS[path]
    module = Judged(make().double())
    before = dict(module.named_parameters())
    given = {name: 2 * p for name, p in before.items()}
    fake = samples(shape, 5, dim).requires_grad_()
    loss = torch.func.functional_call(module, given, (fake,))
    got = torch.autograd.grad(loss, [fake, *given.values(), *before.values()], allow_unused=True)
    assert all(g is None for g in got[1:]) and all(p.requires_grad for p in given.values())
    assert all(p is before[name] and p.requires_grad for name, p in module.named_parameters())
    with torch.no_grad():
        for p in module.parameters():
            p *= 2
    same(got[0], torch.autograd.grad(module(fake), fake)[0], "gradient")


@pytest.mark.parametrize("path", ["dense", "smooth", "softplus", "conv", "conv 1d", "patches", "recurrent"])
def test_generator_step_inside_torch_func(path):
    make, shape, dim, _ = PATHS[path]
    D, fake = make().double(), samples(shape, 5, dim)
    x = fake.clone().requires_grad_()
    (want,) = torch.autograd.grad(generator_step(D, x).loss, x)
    same(torch.func.grad(lambda x: generator_step(D, x).loss)(fake), want, "gradient of fake")
    assert all(p.requires_grad for p in D.parameters())


def test_a_penalty_through_autograd_inside_torch_func_is_refused():
    D, fake = dense(activation=nn.Softplus), torch.randn(3, 13)
    with pytest.raises(RuntimeError, match=r"r1: a penalty .* inside a torch\.func transform"):
        torch.func.grad(lambda x: discriminator_step(D, fake, x, r1=1.0).loss)(fake)
