"""The discriminator step on a GPU beyond plain chains, in the emulator: dropout by the CPU's masks, smooth
activations and what their second derivatives add to a penalty's gradient, approximate penalties, inputs that
do not count; against autograd in float64 and the CPU's kernels."""

import itertools

import cases
import pytest
import torch
from fusegen import _backend, losses
from fusegen.ops import discriminator as ops
from fusegen.ops.discriminator import ACTIVATIONS, MlpOptions, mlp_discriminator_step
from simt_cases import DTYPES, ORDERS
from simt_steps import KEY, NEAR, PENALTIES, Beyond, Case
from tolerances import same
from torch import nn

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

pytestmark = pytest.mark.usefixtures("step_on_gpu")

CPU = ops.OP.direct  # before a fixture puts the emulator in its place
SMOOTH = ACTIVATIONS[1:]
BEYOND = {
    "dropout": Beyond(dropouts=(0.0, 0.5)),
    "dropout of samples": Beyond(dropouts=(0.2, 0.4)),
    "counted": Beyond(counted=9),
    **{name: Beyond((name,)) for name in SMOOTH},
    "smooth below": Beyond(("gelu", "piecewise_linear", "piecewise_linear")),
    "smooth above": Beyond(("piecewise_linear", "tanh")),
    "all": Beyond(("silu", "piecewise_linear", "elu", "gelu_tanh"), (0.1, 0.3, 0.0, 0.5), 11),
}
SIZES = ((13, 1), (8, 1, 1), (13, 40, 70, 1), (20, 65, 9, 31, 1))
BATCHES = ((2, 1), (5, 3), (33, 40))  # of (1, 1) a unit lay within TF32 of the kink of an ELU of scale 0
AXES = (
    SIZES, BATCHES, DTYPES, losses.LOSSES, (*PENALTIES, *NEAR), ("weights", "samples", "all"), tuple(BEYOND),
    (0.0, 0.2), (1, 24),
)  # fmt: skip


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    "sizes, batches, dtype, loss, penalty, wanted, beyond, slope, sms", list(cases.covering(*AXES))
)
def test_pairs(sizes, batches, dtype, loss, penalty, wanted, beyond, slope, sms):
    simt.set_device(sms=sms)  # one multiprocessor: large tiles; many: small ones
    Case(sizes, batches, dtype, loss, penalty, wanted=wanted, slope=slope, beyond=BEYOND[beyond]).check()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("penalty", ["r1", "r1 and gp", "all", "near and gp"])
@pytest.mark.parametrize("beyond", ["silu", "smooth below", "all"])
def test_what_is_wanted(beyond, penalty):
    """Gradients of all, and of samples or weights alone, which need less."""
    given = (13, 40, 33, 1), (6, 5), "float32", "least_squares", penalty
    for wanted in ("all", "weights", "samples"):
        Case(*given, wanted, beyond=BEYOND[beyond]).check()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_generator(loss, dtype):
    for sizes, batches in (((13, 40, 33, 1), (5, 5)), ((9, 1), (3, 33))):
        Case(sizes, batches, dtype, loss, "none", generator=True, beyond=BEYOND["all"]).check()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("sms, major", [(1, 8), (1, 9), (6, 9), (132, 9)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_sizes_in_every_tile(dtype, sms, major):
    """The largest tiles, by warps and by warpgroups, those of 64 x 64, the small ones; penalised rows that do
    not lie on end."""
    simt.set_device(sms=sms, major=major)
    beyond = Beyond(("tanh", "gelu"), (0.1, 0.3, 0.2), 330)
    Case((351, 70, 91, 1), (65, 65), dtype, "least_squares", "r1 and gp", beyond=beyond).check()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("penalty", ["none", "r1", "all", "near and gp"])
def test_bulk_copies(penalty, monkeypatch):
    """They bring the operands of these steps too: samples without what is dropped, R and its weights."""
    runs = []
    monkeypatch.setattr(ops.cuda_discriminator, "_note", runs.append)
    simt.set_device(sms=1)
    beyond = Beyond(("silu",), (0.2,), 100)
    Case((136, 72, 200, 1), (64, 64), "bfloat16", "hinge", penalty, beyond=beyond).check()
    assert [r.tile for r in runs] == ["warpgroups"] * 2
    assert all(r.products == r.bulk >= 2 for r in runs)


# -- Masks --------------------------------------------------------------------------------------------


def on_cpu(monkeypatch, run):
    with monkeypatch.context() as m:
        m.setattr(ops.OP, "direct", CPU)
        return run()


def masked(n, layer, rate, rows, inputs=None):
    """The zeros in the gradients of real and fake samples by a linear D whose layers before the last are the
    identity, dropout standing before layer number `layer`: bits of the masks."""
    weights = [torch.eye(n) for _ in range(layer)] + [torch.ones(1, n)]
    real, fake = (torch.ones(m, n, requires_grad=True) for m in rows)
    rates = [0.0] * layer + [rate]
    loss, *_ = mlp_discriminator_step(
        real, fake, None, weights, [None] * len(weights), [1.0] * layer, MlpOptions("wasserstein"),
        dropouts=rates, key=KEY,
    )  # fmt: skip
    return [g != 0 for g in torch.autograd.grad(loss, (real, fake))]


@pytest.mark.parametrize("rate", [0.001, 0.3, 0.97])
@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_masks_are_the_cpus(monkeypatch, n, layer, rate):
    for rows in ((1, 9), (17, 8)):
        got = masked(n, layer, rate, rows)
        want = on_cpu(monkeypatch, lambda rows=rows: masked(n, layer, rate, rows))
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    kept = torch.cat([*got, *want]).double().mean()
    assert n < 63 or abs(kept - (1 - rate)) < 0.1


@pytest.mark.parametrize("n", [1, 65, 130])
def test_masks_of_interpolates_are_the_cpus(monkeypatch, n):
    """The hinge loss has no gradient at logits of 2 and -2: what W gets is c v of the interpolate alone."""

    def run():
        W = torch.full((1, n), 0.25, requires_grad=True)
        real, fake = (torch.full((1, n), x) for x in (1e3, -1e3))
        loss, _, logits = mlp_discriminator_step(
            real, fake, torch.randn(1, n), [W], [None], [], MlpOptions("hinge", gp=1.0), dropouts=[0.3],
            key=KEY + n,
        )  # fmt: skip
        assert n == 1 or (logits[0] > 1 and logits[1] < -1)
        return torch.autograd.grad(loss, W)[0] != 0

    got = run()
    assert torch.equal(got, on_cpu(monkeypatch, run)) and (n == 1 or 0 < got.double().mean() < 1)


@pytest.mark.parametrize("penalty", ["none", "all", "near and gp"])
@pytest.mark.parametrize("beyond", ["dropout of samples", "counted", "gelu", "all"])
def test_equals_the_cpus_kernels(monkeypatch, beyond, penalty):
    case = Case((70, 130, 33, 1), (7, 7), "float32", "non_saturating", penalty, beyond=BEYOND[beyond])
    got, want = case.run(), on_cpu(monkeypatch, case.run)
    for a, b in zip((*got[:3], *got[3]), (*want[:3], *want[3]), strict=True):
        same(a.float().nan_to_num(), b.nan_to_num(), "what a step gives", "norm on tensor cores")


# -- Runs ---------------------------------------------------------------------------------------------


def bits(case):
    loss, scalars, logits, grads = case.run()
    return [loss, scalars.nan_to_num(), logits, *grads]


def equal(got, want):
    return all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sms", [2, 132])
def test_any_order_gives_the_same_bits(dtype, sms):
    """R is added to in place, second derivatives are multiplied in place: each by one lane."""
    simt.set_device(sms=sms)
    case = Case((37, 65, 40, 1), (9, 9), dtype, "hinge", "r1 and gp", beyond=BEYOND["all"])
    want = bits(case)
    for order in ORDERS[1:4]:
        simt.set_order(*order)
        assert equal(bits(case), want), order


@pytest.mark.parametrize("penalty", ["none", "all"])
def test_blocks_that_do_not_fit_together(penalty):
    """Each phase is a launch of its own then, to the same bits, and the fallback is counted."""
    beyond = Beyond(("tanh",), (0.1, 0.3, 0.0))
    case = Case((37, 65, 40, 1), (40, 40), "float32", "hinge", penalty, beyond=beyond)
    before = simt.launches()
    want = bits(case)
    together, before = simt.launches() - before, simt.launches()
    fell_back = _backend.fallbacks.total()
    simt.leave_free(1)
    assert equal(bits(case), want)
    # forward: masks, two layers, adjoints and logits, v, norms, totals; backward: two layers of tangents and
    # the last layer's gradient, R of the first layer, the gradients that it is for
    assert simt.launches() - before == (6 + 1 if penalty == "none" else 7 + 5)
    assert together == 2
    assert _backend.fallbacks.total() > fell_back


@pytest.mark.parametrize("sizes", [(13, 40, 70, 1), (13, 1)], ids=str)
def test_a_pass_is_one_launch(sizes):
    before = simt.launches()
    Case(sizes, (9, 9), "bfloat16", "hinge", "r1", beyond=Beyond(("gelu",), (0.0, 0.3))).run()
    assert simt.launches() - before == 2


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("penalty", ["none", "r1 and gp"])
def test_a_deep_network(penalty):
    """More jobs than a launch has. In float32: through so many layers 16 bits leave little."""
    before = simt.launches()
    Case((12,) * 9 + (1,), (5, 5), "float32", "hinge", penalty, beyond=BEYOND["all"]).check()
    assert simt.launches() - before > 2


def test_backward_again_and_scaled():
    """Of one forward pass, which backward leaves as it was."""
    case = Case((13, 40, 33, 1), (5, 4), "float32", "hinge", "all", beyond=BEYOND["all"])
    leaves = [t.requires_grad_() for t in (case.real, case.fake, *case.weights, *case.biases)]
    loss, *_ = mlp_discriminator_step(
        case.real, case.fake, case.mixed, case.weights, case.biases, case.slopes, case.options,
        case.activations, case.dropouts, KEY,
    )  # fmt: skip
    once, again = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    assert equal(once, again)
    doubled = torch.autograd.grad(loss, leaves, torch.tensor(4.0))
    assert equal([4 * g for g in once], doubled)


def test_a_step_keeps_what_its_gradients_need():
    """Without a gradient the second derivatives are not kept, nor R; a plain chain keeps neither masks nor
    derivatives."""

    def bytes_of(activations=("tanh",), dropouts=(), weights=True, dx_real=False, r1=1.0):
        z, layers = torch.zeros, (list(activations), list(dropouts), KEY)
        numbers = "hinge", False, 1.0, r1, 0.0, 0.0, 0.0, 0.0, 0
        samples, weights_ = (z(256, 64), z(256, 64), None), ([z(64, 64), z(1, 64)], [None, None], [0.2])
        return simt.gpu_mlp_saved_bytes((*numbers, *samples, *weights_, *layers, weights, dx_real, False, 1))

    rows, half = 2 * 256 * 64 * 4, 256 * 64 * 4
    plain = bytes_of(())
    assert bytes_of() - plain == rows + half
    assert bytes_of(r1=0.0) - bytes_of((), r1=0.0) == rows
    assert bytes_of(weights=False) - bytes_of((), weights=False) == rows
    assert bytes_of(weights=False, dx_real=True) - bytes_of((), weights=False, dx_real=True) == rows + half
    assert bytes_of((), (0.0, 0.5)) - plain == 2 * 256 * 8
    assert bytes_of((), (0.5, 0.0)) - plain == 2 * 256 * 8 + rows


# -- Values -------------------------------------------------------------------------------------------

MODULES = {
    "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "silu": nn.SiLU(), "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"), "elu": nn.ELU(0.7),
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_an_activation_over_all_of_float32(name):
    """Value and first derivative, by a D of one unit: off by a few ulp of what went in; and the limits at
    infinity, NaN through."""
    x = torch.cat([torch.linspace(-100, 100, 4001), *(s * torch.logspace(-30, 4, 300) for s in (1, -1))])
    x = torch.cat([x, torch.tensor([0.0, -0.0, torch.nan, torch.inf])]).view(-1, 1).requires_grad_()
    one = torch.ones(1, 1)
    loss, _, logits = mlp_discriminator_step(
        None, x, None, [one, one], [None, None], [0.7], MlpOptions("wasserstein", generator=True), [name]
    )
    (got,) = torch.autograd.grad(loss, x)
    exact = x.detach().double().requires_grad_()
    y = MODULES[name](exact)
    (want,) = torch.autograd.grad(-y.mean(), exact)
    for ours, theirs, scale in (
        (logits.view(-1, 1), y, exact.abs() + 1e-30),
        (got * len(x), want * len(x), 1.0),
    ):
        assert torch.equal(ours.isnan(), theirs.isnan())
        finite = theirs.isfinite()
        assert torch.equal(ours.isfinite(), finite)
        scale = scale + theirs.abs() if name == "sigmoid" else scale + 0 * theirs
        error = (ours.double() - theirs).abs() / scale
        assert error[finite].max() <= 1e-6, x[finite][error[finite].argmax()].item()


@pytest.mark.parametrize("name", SMOOTH)
def test_a_second_derivative_over_its_range(name):
    """R1 of a D of one unit, x -> g(x): its gradient by x is g' g''."""
    x = torch.linspace(-9, 9, 701).view(-1, 1).requires_grad_()
    one = torch.ones(1, 1)
    fake = torch.zeros(1, 1)
    loss, *_ = mlp_discriminator_step(
        x, fake, None, [one, one], [None, None], [0.7], MlpOptions("wasserstein", r1=1e3), [name]
    )
    (got,) = torch.autograd.grad(loss, x)
    exact = x.detach().double().requires_grad_()
    (v,) = torch.autograd.grad(MODULES[name](exact).sum(), exact, create_graph=True)
    total = 500 * v.square().mean() - MODULES[name](exact).mean()
    (want,) = torch.autograd.grad(total, exact)
    assert (got - want).abs().max() <= 2e-6 * want.abs().max()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("beyond", ["dropout", "all"])
def test_nan_and_inf_stay_in_their_row(beyond, dtype, value):
    case = Case((13, 27, 13, 1), (5, 5), dtype, "non_saturating", "r1", beyond=BEYOND[beyond])
    before = case.run()[2]
    case.real[1] = value
    _, _, logits, grads = case.run()
    keep = [i for i in range(10) if i != 1]
    assert torch.equal(logits[keep], before[keep])
    assert grads[0][[0, 2, 3, 4]].isfinite().all()


def test_a_count_of_inputs_leaves_the_others_alone():
    case = Case(
        (70, 33, 1), (5, 5), "bfloat16", "hinge", "all", "samples", beyond=Beyond(("silu",), (0.2,), 41)
    )
    for g in case.run()[3]:
        assert (g[:, :41] != 0).any() and (g[:, 41:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_any_layout(dtype):
    """Samples whose rows begin anywhere and lie any distance apart, as both products read them."""
    torch.manual_seed(2)
    weights = [torch.randn(33, 16).to(dtype).requires_grad_(), torch.randn(1, 33).to(dtype).requires_grad_()]
    wide = torch.randn(6, 19).to(dtype)
    views = (wide[:, 1:17], torch.randn(12, 16).to(dtype)[::2], torch.randn(1, 16).to(dtype).expand(6, 16))
    fake = torch.randn(6, 16).to(dtype)
    for view, rates in itertools.product(views, ([], [0.3, 0.0])):
        results = []
        for x in (view, view.clone(memory_format=torch.contiguous_format)):
            x = x.detach().requires_grad_()
            loss, *_ = mlp_discriminator_step(
                x, fake, None, weights, [None, None], [0.2], MlpOptions("hinge", r1=1.0), ["gelu"], rates, KEY
            )
            results.append([loss, *torch.autograd.grad(loss, [x, *weights])])
        assert equal(*results)
