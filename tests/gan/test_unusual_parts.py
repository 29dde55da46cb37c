"""Discriminators whose modules do more than their class says: in place, hooked, parametrised, drawing."""

import copy

import fusegen
import pytest
import torch
from fusegen.gan import (
    HeldLabels,
    MinibatchStd,
    Projection,
    Residual,
    discriminator_loss,
    discriminator_step,
)
from tolerances import same
from torch import nn
from torch.nn.utils import parametrize, spectral_norm


def by_hand(D, real, fake, labels=(), r1=1.0):
    """A pass each, and R1 by a second backward."""
    real = real.detach().requires_grad_()
    r, f = D(real, *labels), D(fake, *labels)
    (v,) = torch.autograd.grad(r.sum(), real, create_graph=True)
    loss = discriminator_loss("non_saturating", r.squeeze(1), f.squeeze(1))
    return loss + r1 / 2 * v.square().flatten(1).sum(1).mean()


def agrees(D, twin, real, fake, labels=None):
    out = discriminator_step(D, real, fake, r1=1.0, labels=labels)
    want = by_hand(twin, real, fake, () if labels is None else (labels,))
    same(out.loss, want, "loss")
    names = [name for name, _ in D.named_parameters()]
    got, wanted = (
        torch.autograd.grad(loss, list(net.parameters()), allow_unused=True, materialize_grads=True)
        for loss, net in ((out.loss, D), (want, twin))
    )
    for name, g, w in zip(names, got, wanted, strict=True):
        same(g, w, f"gradient of {name}")
    return out


def samples(*shape):
    return torch.randn(*shape, dtype=torch.float64)


# ---- in place ---------------------------------------------------------------------------------------

IN_PLACE = {
    "body": lambda: Residual(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 8))),
    "way": lambda: Residual(nn.Linear(8, 8), nn.Sequential(nn.LeakyReLU(0.2, inplace=True), nn.Linear(8, 8))),
    "view": lambda: Residual(nn.Sequential(nn.Flatten(), nn.SiLU(inplace=True), nn.Linear(8, 8))),
    "identity": lambda: Residual(nn.Sequential(nn.Identity(), nn.ELU(inplace=True), nn.Linear(8, 8))),
    "inner": lambda: Residual(
        nn.Sequential(Residual(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 8))), nn.Linear(8, 8))
    ),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_on_what_a_residual_adds(name):
    D = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), IN_PLACE[name](), nn.Linear(8, 1)).double()
    out = agrees(D, copy.deepcopy(D), samples(6, 5), samples(6, 5))
    assert out.path == "autograd" and "changes what the other way of a Residual reads" in out.reason


def test_in_place_on_what_nothing_else_reads():
    """As before in closed form: behind a map in the body, and behind the sum."""
    block = Residual(nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8)))
    D = nn.Sequential(
        nn.Linear(5, 8), nn.LayerNorm(8), block, nn.LeakyReLU(0.2, inplace=True), nn.Linear(8, 1)
    )
    D.double()
    assert agrees(D, copy.deepcopy(D), samples(6, 5), samples(6, 5)).path == "closed_form"


# ---- a projection's own layers ----------------------------------------------------------------------


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def replaced(part, by):
    def change(D):
        setattr(D, part, by().double())

    return change


def hooked(part):
    return lambda D: getattr(D, part).register_forward_hook(lambda m, args, out: 2 * out)


def spectral(part):
    return lambda D: spectral_norm(getattr(D, part))  # the older one, by a hook before forward


HEADS = {
    "hook on linear": hooked("linear"),
    "hook on embedding": hooked("embedding"),
    "older spectral norm of linear": spectral("linear"),
    "older spectral norm of embedding": spectral("embedding"),
    "subclass": replaced("linear", lambda: Doubled(8, 1)),
    "padding_idx": replaced("embedding", lambda: nn.Embedding(4, 8, padding_idx=1)),
    "max_norm": replaced("embedding", lambda: nn.Embedding(4, 8, max_norm=0.5)),
    "scale_grad_by_freq": replaced("embedding", lambda: nn.Embedding(4, 8, scale_grad_by_freq=True)),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_of_a_projection(name):
    def made():
        torch.manual_seed(0)
        D = Projection(nn.Sequential(nn.Linear(5, 8), nn.ReLU()), 8, 4).double()
        HEADS[name](D)
        with torch.no_grad():
            for p in D.parameters():  # an older spectral norm's weight is now that of before
                p.mul_(1.5)
        return D.eval()

    labels = torch.tensor([0, 1, 1, 3, 2, 1])
    out = agrees(made(), made(), samples(6, 5), samples(6, 5), labels)
    assert out.path == "autograd" and "Projection" in out.reason


def test_parametrised_heads_stay_in_closed_form():
    D = Projection(nn.Linear(5, 8), 8, 4).double()
    for m in (D.linear, D.embedding):
        nn.utils.parametrizations.spectral_norm(m)
    D.eval()
    out = agrees(D, copy.deepcopy(D), samples(6, 5), samples(6, 5), torch.tensor([0, 1, 1, 3, 2, 1]))
    assert out.path == "closed_form"


def test_hooks_on_held_labels():
    D = HeldLabels(nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 1)), 3).double()
    D.register_forward_pre_hook(lambda m, args: (2 * args[0],))
    out = discriminator_step(D, *(x := (samples(4, 5), samples(4, 5))), r1=0.5)
    assert out.path == "autograd"
    same(out.real_logits, D.D(2 * x[0]).squeeze(1), "logits")


# ---- parametrisations -------------------------------------------------------------------------------


class Counted(nn.Module):
    """A parametrisation that changes nothing."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, weight):
        self.calls += 1
        return weight * 1.0


PASSES = {
    "samples apart": ((nn.LayerNorm(8),), {"r1": 1.0}, "auto", 1),
    "a batch norm": ((nn.BatchNorm1d(8),), {"r1": 1.0}, "auto", 2),
    "statistics": ((MinibatchStd(2), nn.Linear(9, 8)), {"r1": 1.0}, "auto", 2),
    "a batch norm, noise": ((nn.BatchNorm1d(8),), {"r1": 1.0, "r2": 1.0, "approximate_r1": 0.1}, "fused", 3),
    "unknown": ((nn.LayerNorm(8), nn.Mish()), {"r1": 1.0}, "fused", 2),
    "closed form": ((nn.LayerNorm(8),), {"r1": 1.0}, "fused", 1),
}


@pytest.mark.parametrize("name", PASSES)
def test_a_parametrisation_runs_once_a_pass(name):
    """Not once more for a closed form that then leaves the step to autograd: spectral norm would go one
    power iteration too far."""
    between, options, backend, passes = PASSES[name]
    D = nn.Sequential(nn.Linear(5, 8), *between, nn.LeakyReLU(0.2), nn.Linear(8, 1))
    count = Counted()
    parametrize.register_parametrization(D[0], "weight", count)
    fusegen.set_backend(backend)
    count.calls = 0
    discriminator_step(D, torch.randn(4, 5), torch.randn(4, 5), **options)
    assert count.calls == passes


def test_layers_of_no_features():
    D = nn.Sequential(nn.Linear(5, 0), nn.ReLU(), nn.Linear(0, 1)).double()
    out = agrees(D, copy.deepcopy(D), samples(6, 5), samples(6, 5))
    assert out.path == "autograd" and "a dense layer reads no features" in out.reason


# ---- compiled, scripted -------------------------------------------------------------------------------


class Wrapped(nn.Module):
    """A forward of its own around another network."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


class InForward(Wrapped):
    @torch.compile(backend="aot_eager")
    def forward(self, x):
        return self.inner(x)


def in_place():
    D = Wrapped(smooth())
    D.compile(backend="aot_eager")
    return D


def smooth():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))


COMPILED = {
    "torch.compile(D)": lambda: torch.compile(smooth(), backend="aot_eager"),
    "a part": lambda: Wrapped(torch.compile(smooth(), backend="aot_eager")),
    "D.compile()": in_place,
    "its forward": lambda: InForward(smooth()),
}


@pytest.mark.parametrize("name", COMPILED)
def test_a_penalty_of_a_compiled_discriminator(name):
    """What torch.compile makes has no second derivative."""
    D = COMPILED[name]().double()
    with torch.compiler.set_stance("force_eager"):
        want = by_hand(D, real := samples(6, 5), fake := samples(6, 5))
    out = discriminator_step(D, real, fake, r1=1.0)
    assert out.path == "autograd" and out.reason.endswith("run without torch.compile")
    same(out.loss, want, "loss")
    got, wanted = (torch.autograd.grad(loss, list(D.parameters())) for loss in (out.loss, want))
    for k, (g, w) in enumerate(zip(got, wanted, strict=True)):
        same(g, w, f"gradient {k}")
    plain = discriminator_step(D, real, fake)
    assert "without torch.compile" not in plain.reason


def test_what_compile_wraps_is_looked_at():
    compiled = lambda D: torch.compile(D, backend="aot_eager")
    x, labels = torch.randn(4, 5), torch.arange(4)
    assert "D is compiled" in discriminator_step(compiled(smooth()), x, x).reason
    with pytest.raises(ValueError, match="it ends in a Sigmoid"):
        discriminator_step(compiled(nn.Sequential(smooth(), nn.Sigmoid())), x, x)
    with pytest.raises(ValueError, match="labels: Projection takes samples and their labels, got None"):
        discriminator_step(compiled(Projection(nn.Identity(), 5, 3)), x, x)
    with pytest.raises(ValueError, match="labels: expected classes from 0 to 2, got 0 to 3"):
        discriminator_step(compiled(Projection(nn.Identity(), 5, 3)), x, x, labels=labels)


@pytest.mark.parametrize("make", [torch.jit.script, lambda D: torch.jit.trace(D, torch.randn(2, 5).double())])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript(make):
    D = smooth().double()
    twin = copy.deepcopy(D)
    assert agrees(make(D), twin, samples(6, 5), samples(6, 5)).path == "autograd"


class Renamed(Projection):
    """A subclass that projects as ever."""


def test_labels_of_a_subclass_of_projection():
    D, x = Renamed(nn.Identity(), 5, 3), torch.randn(4, 5)
    with pytest.raises(ValueError, match="labels: expected classes from 0 to 2, got -1 to 2"):
        discriminator_step(D, x, x, labels=torch.arange(4) - 1)
    kept = discriminator_step(D, x, x, labels=torch.arange(4, dtype=torch.int32) % 3)
    same(kept.real_logits, D(x, torch.arange(4) % 3).squeeze(1), "logits")


# ---- dropout ----------------------------------------------------------------------------------------


class Promised(nn.Module):
    """Samples along a dim of its own, which pass together."""

    def __init__(self, inner, sample_dim):
        super().__init__()
        self.inner, self.sample_dim = inner, sample_dim
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        y = self.inner(x)
        return self.head(y if self.sample_dim == 0 else y[0][-1])


DRAWING = {
    "dropout": (lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.5)), 0),
    "alpha dropout": (lambda: nn.Sequential(nn.Linear(3, 8), nn.SELU(), nn.AlphaDropout(0.3)), 0),
    "randomised slopes": (lambda: nn.Sequential(nn.Linear(3, 8), nn.RReLU()), 0),
    "between recurrent layers": (lambda: fusegen.nn.GRU(3, 8, 2, dropout=0.5), 1),
    "between torch's": (lambda: nn.LSTM(3, 8, 2, dropout=0.5), 1),
}


@pytest.mark.parametrize("name", DRAWING)
def test_noise_under_the_same_masks(name):
    """A difference quotient over 1e-6: of other masks it would be of the order of 1e10."""
    make, dim = DRAWING[name]
    D = Promised(make(), dim).double()
    shape = (6, 3) if dim == 0 else (4, 6, 3)
    real, fake = samples(*shape), samples(*shape)
    near = discriminator_step(D, real, fake, r1=1.0, r2=1.0, approximate_r1=1e-6, approximate_r2=1e-6)
    assert 0 < near.penalty < 10
    D.eval()
    state = torch.get_rng_state()
    discriminator_step(D, real, fake, r1=1.0, approximate_r1=0.1, generator=torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("backend", ["auto", "fused"])
def test_dropouts_that_together_drop_all(backend):
    """1 - 1e-18 is 1 in float64."""
    fusegen.set_backend(backend)
    D = nn.Sequential(nn.Linear(5, 8), nn.Dropout(1 - 1e-9), nn.Dropout(1 - 1e-9), nn.Linear(8, 1)).double()
    out = discriminator_step(D, samples(4, 5), samples(4, 5))
    assert out.path == "autograd" and "Dropouts in a row drop all there is" in out.reason
    same(out.real_logits, D[-1].bias.expand(4), "logits")


@pytest.mark.parametrize("p", [1.5, -0.5, float("nan")])
def test_a_probability_put_there_later(p):
    """Torch's error, which names what it is about."""
    D = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
    D[2].p = p
    with pytest.raises((ValueError, RuntimeError), match="dropout probability has to be between 0 and 1"):
        discriminator_step(D, torch.randn(4, 5), torch.randn(4, 5))
    D.eval()
    assert discriminator_step(D, torch.randn(4, 5), torch.randn(4, 5)).path == "fused_mlp"
