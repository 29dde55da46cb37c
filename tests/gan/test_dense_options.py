"""What stands between the dense layers of a fused step, and packed samples: against torch's own layers with
the step's masks and interpolates."""

import copy
import itertools

import pytest
import torch
from fusegen import gan, reference, set_backend
from fusegen.gan import DiscriminatorStep, discriminator_step, dropout_masks, generator_step
from fusegen.models import MLPGAN
from fusegen.ops.discriminator import ACTIVATIONS, MlpOptions, mlp_discriminator_step
from gan_masks import Masked, eager, masks_of
from gan_networks import PENALTIES
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import same
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

ELEMENTS = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "elu": lambda: nn.ELU(0.7),
}
SMOOTH = list(ELEMENTS)[2:]


def chain(sizes, *between, first=()):
    """Linear layers of these sizes, with such modules between each two; ``first``: before them."""
    layers = [make() for make in first]
    for n, m in itertools.pairwise(sizes):
        layers += [nn.Linear(n, m), *(make() for make in between)]
    return nn.Sequential(*layers[: len(layers) - len(between)])


def dropout(p, module=nn.Dropout):
    return lambda: module(p)


CHAINS = {
    "dropout": lambda: chain((13, 40, 70, 1), ELEMENTS["leaky_relu"], dropout(0.5)),
    "dropout of samples": lambda: chain((13, 40, 1), nn.ReLU, dropout(0.3), first=[dropout(0.2)]),
    "dropout before the activation": lambda: chain((13, 90, 1), dropout(0.25), ELEMENTS["leaky_relu"]),
    "dropouts in a row": lambda: chain((13, 40, 1), nn.ReLU, dropout(0.3), dropout(0.4)),
    "dropout alone": lambda: chain((13, 40, 1), dropout(0.5)),
    "one layer": lambda: chain((13, 1), first=[dropout(0.5)]),
    "mixed": lambda: nn.Sequential(
        nn.Dropout(0.1), nn.Linear(13, 40), nn.GELU(), nn.Linear(40, 33), nn.LeakyReLU(0.2), nn.Dropout(0.4),
        nn.Linear(33, 20), nn.Tanh(), nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 1),
    ),
    **{name: lambda name=name: chain((13, 40, 70, 1), ELEMENTS[name]) for name in SMOOTH},
    **{
        f"{name}, dropout": lambda name=name: chain((13, 40, 70, 1), ELEMENTS[name], dropout(0.5))
        for name in SMOOTH
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def samples(n, *shape, dtype=torch.float64):
    return torch.randn(n, *shape, dtype=dtype)


def interpolates(real, fake, seed, pac=1):
    """Those of a step whose generator had this seed: one draw a packed sample."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(len(real) // pac, 1, dtype=real.dtype, generator=generator)
    return torch.lerp(real.detach(), fake.detach(), share.repeat_interleave(pac, 0))


def compare(D, real, fake, loss="non_saturating", pac=1, exact=None, **weights):
    """A fused step against autograd's, the latter of the tensors in ``exact`` where that is another dtype."""
    out = discriminator_step(
        D, real, fake, loss, generator=torch.Generator().manual_seed(1), pac=pac, **weights
    )
    assert out.path == "fused_mlp", out.reason
    exact = exact or real.dtype
    net = Masked(
        copy.deepcopy(D).to(exact), masks_of(D, out, len(real) // pac if weights.get("gp") else 0), pac
    )
    x = [t.detach().to(exact).requires_grad_() for t in (real, fake)]
    mixed = interpolates(real, fake, 1, pac).to(exact) if weights.get("gp") else None
    want, r, f = eager(net, *x, loss, mixed, **weights)
    same(out.loss, want, "loss")
    same(out.real_logits, r, "real logits")
    same(out.fake_logits, f, "fake logits")
    got = torch.autograd.grad(out.loss, [*D.parameters(), real, fake])
    expected = torch.autograd.grad(want, [*net.parameters(), *x])
    names = [*(name for name, _ in D.named_parameters()), "real", "fake"]
    for name, g, w in zip(names, got, expected, strict=True):
        same(g, w, f"gradient of {name}")


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", CHAINS)
def test_equals_autograd(name, penalty):
    for n in (5, 1):
        real, fake = (samples(n, 13).requires_grad_() for _ in range(2))
        compare(CHAINS[name]().double(), real, fake, **PENALTIES[penalty])


@pytest.mark.parametrize("loss", gan.LOSSES)
@pytest.mark.parametrize("name", ["dropout", "gelu, dropout"])
def test_losses(name, loss):
    real, fake = (samples(6, 13).requires_grad_() for _ in range(2))
    compare(CHAINS[name]().double(), real, fake, loss, r1=1.0)


modules = st.sampled_from(sorted(ELEMENTS)).map(lambda name: ELEMENTS[name]())
rates = st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.999])


@st.composite
def chains(draw):
    sizes = draw(st.lists(st.sampled_from([1, 2, 7, 16, 33, 65, 130]), min_size=1, max_size=4))
    layers = [nn.Dropout(p)] if (p := draw(rates)) else []
    for n, m in itertools.pairwise(sizes):
        layers.append(nn.Linear(n, m, bias=draw(st.booleans())))
        if draw(st.booleans()):
            layers.append(draw(modules))
        layers += [nn.Dropout(p) for p in draw(st.lists(rates, max_size=2))]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1)).double(), sizes[0]


@settings(max_examples=60, deadline=None)
@given(chains(), st.integers(1, 20), st.sampled_from([1, 2, 5]), st.sampled_from(sorted(PENALTIES)))
def test_any_chain(drawn, rows, pac, penalty):
    D, inputs = drawn
    pac = pac if inputs % pac == 0 else 1
    real, fake = (samples(rows * pac, inputs // pac).requires_grad_() for _ in range(2))
    compare(D, real, fake, pac=pac, **PENALTIES[penalty])


@pytest.mark.parametrize("penalty", ["none", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["dropout", "mixed", *SMOOTH])
def test_other_dtypes(name, dtype, penalty):
    real, fake = (samples(7, 13, dtype=dtype).requires_grad_() for _ in range(2))
    # of which the last bias's gradient does not cancel
    compare(CHAINS[name]().to(dtype), real, fake, "least_squares", exact=torch.float64, **PENALTIES[penalty])


@pytest.mark.parametrize("name", SMOOTH)
def test_an_element_over_all_of_float32(name):
    """Value and first derivative, by a D of one unit: off by a few ulp of what went in, of which torch's own
    differences are as many; and the limits at infinity, NaN through."""
    x = torch.cat(
        [torch.linspace(-100, 100, 40001), torch.logspace(-30, 4, 2000), -torch.logspace(-30, 4, 2000)]
    )
    x = torch.cat([x, torch.tensor([0.0, -0.0, torch.nan, torch.inf])]).view(-1, 1).requires_grad_()
    D = nn.Sequential(nn.Linear(1, 1, bias=False), ELEMENTS[name](), nn.Linear(1, 1, bias=False))
    for m in D[::2]:
        nn.init.ones_(m.weight)
    out = generator_step(D, x, "wasserstein")
    assert out.path == "fused_mlp"
    (got,) = torch.autograd.grad(out.loss, x)
    exact = x.detach().double().requires_grad_()
    y = ELEMENTS[name]()(exact)
    (want,) = torch.autograd.grad(-y.mean(), exact)
    for ours, theirs, scale in (
        (out.fake_logits.view(-1, 1), y, exact.abs() + 1e-30),
        (got * len(x), want * len(x), 1.0),
    ):
        assert torch.equal(ours.isnan(), theirs.isnan())
        finite = theirs.isfinite()
        assert torch.equal(ours.isfinite(), finite)
        error = (ours.double() - theirs).abs() / (
            scale + theirs.abs() if name == "sigmoid" else scale + 0 * theirs
        )
        assert error[finite].max() <= 5e-7, (name, x[finite][error[finite].argmax()].item())


@pytest.mark.parametrize("name", ["dropout", "mixed"])
def test_threads_and_calls_do_not_change_a_bit(name):
    D, threads = CHAINS[name](), torch.get_num_threads()
    D[-1] = nn.Linear(D[-1].in_features, 1)
    real, fake = (samples(200, 13, dtype=torch.float32).requires_grad_() for _ in range(2))

    def run(count):
        torch.set_num_threads(count)
        out = discriminator_step(
            D, real, fake, r1=1.0, r2=1.0, gp=1.0, generator=torch.Generator().manual_seed(3)
        )
        return [out.loss, *torch.autograd.grad(out.loss, [*D.parameters(), real, fake])]

    try:
        first = run(1)
        for count in (1, 2, 3):
            for a, b in zip(first, run(count), strict=True):
                assert torch.equal(a, b)
    finally:
        torch.set_num_threads(threads)


def test_masks_are_of_each_kind_and_each_layer():
    D = chain((400, 400, 400, 1), nn.ReLU, dropout(0.3), first=[dropout(0.3)])
    out = discriminator_step(
        D, samples(50, 400, dtype=torch.float32), samples(50, 400, dtype=torch.float32), gp=1.0
    )
    kept = dropout_masks(D, out.key, real=50, fake=50, mixed=50)
    assert len(kept) == 3
    each = [m for group in kept for m in group]
    spread = (0.3 * 0.7 / 20000) ** 0.5
    for m in each:
        assert m.shape == (50, 400) and abs(m.float().mean().item() - 0.7) < 5 * spread
    for a, b in itertools.combinations(each, 2):
        agree = (a == b).float().mean().item()
        assert abs(agree - (0.7**2 + 0.3**2)) < 5 * (0.58 * 0.42 / 20000) ** 0.5


def test_the_key_is_torchs_and_each_step_draws():
    D = CHAINS["dropout"]()
    real, fake = samples(4, 13, dtype=torch.float32), samples(4, 13, dtype=torch.float32)
    torch.manual_seed(5)
    first, second = discriminator_step(D, real, fake), discriminator_step(D, real, fake)
    torch.manual_seed(5)
    again = discriminator_step(D, real, fake)
    assert first.key == again.key and torch.equal(first.loss, again.loss)
    assert first.key != second.key and first.loss != second.loss
    state = torch.get_rng_state()
    seeded = [discriminator_step(D, real, fake, generator=torch.Generator().manual_seed(2)).key for _ in "ab"]
    assert seeded[0] == seeded[1] and torch.equal(torch.get_rng_state(), state)


def test_nothing_is_drawn_where_nothing_drops():
    D = CHAINS["dropout"]()
    real, fake = samples(4, 13, dtype=torch.float32), samples(4, 13, dtype=torch.float32)
    nets = D.eval(), chain((13, 8, 1), nn.ReLU, dropout(0.0))
    state = torch.get_rng_state()
    for net in nets:
        out = discriminator_step(net, real, fake, r1=1.0)
        assert out.key is None and out.path == "fused_mlp"
    assert torch.equal(torch.get_rng_state(), state)
    plain = nn.Sequential(*(m for m in D if not isinstance(m, nn.Dropout)))
    assert torch.equal(
        discriminator_step(D, real, fake, r1=1.0).loss, discriminator_step(plain, real, fake, r1=1.0).loss
    )


@pytest.mark.parametrize("loss", ["non_saturating", "relativistic"])
@pytest.mark.parametrize("name", ["dropout", "mixed", "silu"])
def test_generator_step(name, loss):
    D = CHAINS[name]().double()
    real, fake = samples(6, 13), samples(6, 13).requires_grad_()
    out = generator_step(D, fake, loss, real=real, generator=torch.Generator().manual_seed(1))
    assert out.path == "fused_mlp"
    kept = None if out.key is None else dropout_masks(D, out.key, real=6, fake=6)
    net = Masked(D, kept)
    r = net(real)
    net.group = 1
    want = gan.generator_loss(loss, net(fake), r)
    same(out.loss, want, "loss")
    (w,) = torch.autograd.grad(want, fake)
    out.loss.backward()
    same(fake.grad, w, "gradient")
    assert all(p.grad is None for p in D.parameters())


@pytest.mark.parametrize("penalty", ["none", "all"])
def test_second_order(penalty):
    """Gradients of the fused step are derivatives of its loss, and those of the formula theirs."""
    sizes, dtype = (4, 6, 5, 1), torch.float64
    weights = [torch.randn(m, n, dtype=dtype).requires_grad_() for n, m in itertools.pairwise(sizes)]
    biases = [torch.randn(m, dtype=dtype).requires_grad_() for m in sizes[1:]]
    real, fake = (samples(3, 4).requires_grad_() for _ in range(2))
    given = {"r1": 0.0, "r2": 0.0, "gp": 0.0, **PENALTIES[penalty]}
    mixed = torch.lerp(real, fake, 0.3).detach() if given["gp"] else None
    options, key = MlpOptions("non_saturating", False, 1.0, **given), torch.tensor(7)

    for names in itertools.pairwise(ACTIVATIONS):

        def step(real, fake, *p, names=names):
            return mlp_discriminator_step(
                real, fake, mixed, p[:3], p[3:], [0.7, 0.7], options, names, [0.1, 0.3, 0.5], key
            )[0]

        tensors = (real, fake, *weights, *biases)
        assert torch.autograd.gradcheck(step, tensors, fast_mode=True)
        assert torch.autograd.gradgradcheck(step, tensors, fast_mode=True)


def test_an_interpolate_with_a_gradient_is_refused_where_it_would_have_one():
    W, v, x = torch.randn(5, 3), torch.randn(1, 5), torch.randn(2, 3)
    mixed = x.clone().requires_grad_()
    options = MlpOptions("hinge", gp=1.0)
    mlp_discriminator_step(x, x, mixed, [W, v], [None, None], [0.2], options)
    with pytest.raises(RuntimeError, match="mixed: expected samples without gradient"):
        mlp_discriminator_step(x, x, mixed, [W, v], [None, None], [0.2], options, ["tanh"])


def test_opcheck():
    weights = [torch.randn(6, 4, requires_grad=True), torch.randn(1, 6, requires_grad=True)]
    real, fake = torch.randn(3, 4), torch.randn(3, 4, requires_grad=True)
    options = ("relativistic", False, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0)
    torch.library.opcheck(
        torch.ops.fusegen.mlp_discriminator_step.default,
        (
            real,
            fake,
            None,
            weights,
            [None, None],
            [0.2],
            ["gelu"],
            [0.1, 0.5],
            torch.tensor(3),
            *options,
            [True, False, True],
        ),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.parametrize("name", ["dropout", "mixed"])
def test_compiled(name):
    D = CHAINS[name]()
    real, fake = (samples(5, 13, dtype=torch.float32) for _ in range(2))

    def step(real, fake):
        out = discriminator_step(D, real, fake, gp=1.0)
        return out.loss, out.key

    torch.manual_seed(3)
    want, key = step(real, fake)
    expected = torch.autograd.grad(want, list(D.parameters()))
    torch.manual_seed(3)
    loss, compiled_key = torch.compile(step, fullgraph=True, backend="aot_eager")(real, fake)
    assert torch.equal(compiled_key, key) and torch.equal(loss, want)
    for g, w in zip(torch.autograd.grad(loss, list(D.parameters())), expected, strict=True):
        assert torch.equal(g, w)


def test_torch_func_sees_the_same_masks():
    D = CHAINS["mixed"]().double()
    real, fake = samples(4, 13), samples(4, 13)
    module = DiscriminatorStep(D, r1=1.0)
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def loss(parameters):
        draw = {"generator": torch.Generator().manual_seed(1)}
        return torch.func.functional_call(module, parameters, (real, fake), draw).loss

    got = torch.func.grad(loss)(parameters)
    out = module(real, fake, generator=torch.Generator().manual_seed(1))
    for (name, g), w in zip(
        got.items(), torch.autograd.grad(out.loss, list(module.parameters())), strict=True
    ):
        same(g, w, name)


def test_autocast_runs_in_its_dtype():
    D = CHAINS["mixed"]()
    with torch.autocast("cpu", torch.bfloat16):
        out = discriminator_step(D, torch.randn(4, 13), torch.randn(4, 13), r1=1.0)
    assert out.path == "fused_mlp" and out.real_logits.dtype == torch.bfloat16
    out.loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in D.parameters())


def test_shapes_without_data():
    with FakeTensorMode():
        D = CHAINS["mixed"]()
        out = discriminator_step(D, torch.randn(4, 13), torch.randn(4, 13), gp=1.0)
        out.loss.backward()
    assert out.path == "fused_mlp" and out.key.dtype == torch.int64 and out.real_logits.shape == (4,)
    assert all(p.grad.shape == p.shape for p in D.parameters())


OTHERWISE = {
    "all dropped": (lambda: chain((13, 8, 1), nn.ReLU, dropout(1.0)), "Dropout(p=1) drops everything"),
    "alpha": (lambda: chain((13, 8, 1), nn.ReLU, dropout(0.5, nn.AlphaDropout)), "not know AlphaDropout"),
    "of channels": (lambda: chain((13, 8, 1), nn.ReLU, dropout(0.5, nn.Dropout1d)), "not know Dropout1d"),
    "of logits": (lambda: nn.Sequential(nn.Linear(13, 1), nn.Dropout(0.5)), "Dropout stands behind D"),
    "before a smooth one": (lambda: chain((13, 8, 1), dropout(0.5), nn.Tanh), "Tanh stands behind Dropout"),
    "in place": (lambda: nn.Sequential(nn.Dropout(0.5, True), nn.Linear(13, 1)), "would change the samples"),
    "softplus": (lambda: chain((13, 8, 1), nn.Softplus), "does not know Softplus, only Linear"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_goes_through_autograd_says_so(name):
    make, reason = OTHERWISE[name]
    D = make()
    real, fake = samples(4, 13, dtype=torch.float32), samples(4, 13, dtype=torch.float32)
    out = discriminator_step(D, real, fake)
    assert out.path == "autograd" and reason in out.reason and out.key is None
    with pytest.raises(ValueError, match="D: "):
        dropout_masks(D, torch.tensor(1))


def test_dropout_beside_convolutions_goes_through_autograd():
    D = nn.Sequential(nn.Conv1d(2, 4, 2), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 1))
    out = discriminator_step(D, torch.randn(4, 2, 4), torch.randn(4, 2, 4), r1=1.0)
    assert out.path == "autograd" and "Dropout beside convolutions" in out.reason


def test_torchs_backend_draws_torchs_masks():
    D = CHAINS["dropout"]()
    set_backend("torch")
    try:
        out = discriminator_step(D, torch.randn(4, 13), torch.randn(4, 13))
    finally:
        set_backend("auto")
    assert out.path == "autograd" and out.key is None


# ---- packed samples ---------------------------------------------------------------------------------


class Packing(nn.Module):
    """A D that packs by itself, as a user would write one."""

    def __init__(self, D, pac):
        super().__init__()
        self.D, self.pac = D, pac

    def forward(self, x):
        return self.D(x.reshape(len(x) // self.pac, -1, *x.shape[2:]))


PACKED = {
    "dense": (lambda: chain((39, 20, 1), nn.ReLU), (13,), "fused_mlp"),
    "smooth": (lambda: chain((39, 20, 1), nn.SiLU), (13,), "fused_mlp"),
    "autograd": (lambda: chain((39, 20, 1), nn.Mish), (13,), "autograd"),
    "images": (
        lambda: nn.Sequential(nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 1)), (2, 5, 5), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("loss", ["wasserstein", "relativistic"])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", PACKED)
def test_packed(name, penalty, loss):
    make, shape, path = PACKED[name]
    D, weights = make().double(), PENALTIES[penalty]
    real, fake = (samples(12, *shape).requires_grad_() for _ in range(2))
    out = discriminator_step(
        D, real, fake, loss, pac=3, generator=torch.Generator().manual_seed(1), **weights
    )
    assert path in (None, out.path) and out.real_logits.shape == (4,)
    share = torch.rand(4, *[1] * len(shape), dtype=real.dtype, generator=torch.Generator().manual_seed(1))
    mixed = torch.lerp(real.detach(), fake.detach(), share.repeat_interleave(3, 0))
    want, r, f = eager(Masked(copy.deepcopy(D), None, 3), real, fake, loss, mixed, **weights)
    same(out.loss, want, "loss")
    for got, wanted in ((out.real_logits, r), (out.fake_logits, f)):
        same(got, wanted, "logits")
    leaves = [real, fake]
    for g, w in zip(torch.autograd.grad(out.loss, leaves), torch.autograd.grad(want, leaves), strict=True):
        assert g.shape == real.shape
        same(g, w, "gradient")


@pytest.mark.parametrize("path", ["fused_mlp", "autograd"])
def test_packed_generator_step(path):
    D = PACKED["dense" if path == "fused_mlp" else path][0]().double()
    fake = samples(12, 13).requires_grad_()
    out = generator_step(D, fake, "hinge", pac=3)
    assert path in (out.path, "autograd") and out.fake_logits.shape == (4,)
    want = gan.generator_loss("hinge", Packing(D, 3)(fake).squeeze(1))
    same(out.loss, want, "loss")
    same(*(torch.autograd.grad(t, fake)[0] for t in (out.loss, want)), "gradient")


def test_packed_sequences():
    """Along D's sample_dim, features along the next."""
    seen = []

    class Sequences(nn.Module):
        sample_dim = 1

        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 1)

        def forward(self, x):
            seen.append(x.detach())
            return self.head(x).mean(0).squeeze(1)

    real, fake = samples(5, 4, 3), samples(5, 4, 3)
    out = DiscriminatorStep(Sequences().double(), pac=2)(real, fake)
    assert out.real_logits.shape == (2,)
    assert torch.equal(
        seen[0][:, :2] if len(seen) == 1 else seen[0], torch.cat((real[:, ::2], real[:, 1::2]), 2)
    )


def packed_gan(**options):
    model = MLPGAN((6,), 4, (8,), **options)
    model.discriminator = chain((18, 8, 1), ELEMENTS["leaky_relu"], dropout(0.5))
    return model, tuple(
        torch.optim.SGD(net.parameters(), 0.1) for net in (model.generator, model.discriminator)
    )


def test_gan_step_packs():
    """Both turns, and the same generator gives the same step: interpolates and masks are of its draws."""
    updated = []
    for _ in range(2):
        torch.manual_seed(0)
        model, optimizers = packed_gan()
        torch.manual_seed(len(updated) + 1)
        options = gan.GanOptions("wasserstein", gp=10.0, pac=3)
        report = gan.gan_step(
            model, torch.ones(12, 6), optimizers, options, generator=torch.Generator().manual_seed(1)
        )
        assert report.generator_loss is not None
        updated.append([p.detach().clone() for p in model.parameters()])
    for a, b in zip(*updated, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="pac: expected at least 1 that divides 10 real samples, got 3"):
        gan.gan_step(model, torch.ones(10, 6), optimizers, options)
    with pytest.raises(ValueError, match="pac"):
        gan.GanOptions(pac=0)
    model, optimizers = packed_gan(num_classes=2)
    with pytest.raises(
        ValueError, match="pac: expected 1 where a penalty looks at samples with labels, got 3"
    ):
        gan.gan_step(model, torch.ones(12, 6), optimizers, options, labels=0)


@pytest.mark.parametrize(
    ("pac", "error", "said"),
    [
        (5, ValueError, "pac: expected at least 1 that divides 12 real samples, got 5"),
        (24, ValueError, "pac"),
        (0, ValueError, "pac"),
        (2.0, TypeError, "pac"),
        (True, TypeError, "pac"),
    ],
)
def test_bad_pac(pac, error, said):
    D, x = PACKED["dense"][0](), torch.randn(12, 13)
    with pytest.raises(error, match=said):
        discriminator_step(D, x, x, pac=pac)
    with pytest.raises(error, match="pac"):
        generator_step(D, x, pac=pac)


def test_a_pac_that_a_network_is_not_made_for():
    D, x = PACKED["dense"][0](), torch.randn(12, 13)
    with pytest.raises(ValueError, match="expected 39 features of 2 packed samples"):
        discriminator_step(D, x, x, pac=2)
    with pytest.raises(ValueError, match=r"pac=3"):
        discriminator_step(Packing(D, 3), x, x)


def test_masks_of_other_arguments():
    D = CHAINS["dropout"]()
    with pytest.raises(TypeError, match="key: expected an int64"):
        dropout_masks(D, 3)
    with pytest.raises(ValueError, match="real"):
        dropout_masks(D, torch.tensor(3), real=-1)


def test_the_reference_is_the_kernel():
    """Values of both, of one key."""
    D = CHAINS["mixed"]().double()
    real, fake = samples(3, 13), samples(2, 13)
    out = discriminator_step(D, real, fake, r1=1.0)
    layers = [m for m in D if isinstance(m, nn.Linear)]
    want = reference.mlp_discriminator_step(
        real, fake, None, [m.weight for m in layers], [m.bias for m in layers], [1.0, 0.2, 1.0, 0.0],
        loss="non_saturating", r1=1.0, activations=["gelu", "piecewise_linear", "tanh", "piecewise_linear"],
        dropouts=[0.1, 0.0, 0.4, 0.0, 0.0], key=out.key,
    )  # fmt: skip
    same(out.loss, want.loss, "loss")
    same(out.penalty, want.penalty, "penalty")
