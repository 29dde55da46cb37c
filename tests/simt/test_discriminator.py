"""The CUDA kernels of the discriminator step, run lane by lane on the CPU by the emulator of tests/simt:
every loss, penalty, dtype, depth, odd width and size of batch, against autograd in float64."""

import cases
import pytest
import torch
from fusegen import _backend, _precision, gan, losses, reference
from fusegen.ops.discriminator import SCALARS, MlpOptions, mlp_discriminator_step
from simt_cases import ORDERS
from simt_steps import PENALTIES, Case
from tolerances import close, same
from torch import nn

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

DTYPES = ("float32", "tf32", "bfloat16", "float16")
SIZES = (
    (1, 1),
    (13, 1),
    (8, 1, 1),
    (7, 33, 1),
    (40, 64, 1),
    (13, 40, 70, 1),
    (50, 65, 129, 31, 1),
    (5,) * 10 + (1,),  # more layers than one launch takes
)
BATCHES = ((1, 1), (5, 3), (33, 40), (64, 64), (2, 130))
WANTED = ("weights", "samples", "all")

pytestmark = pytest.mark.usefixtures("step_on_gpu")

AXES = (
    SIZES,
    BATCHES,
    DTYPES,
    losses.LOSSES,
    tuple(PENALTIES),
    WANTED,
    (0.0, 0.2, 1.5),
    (True, False),
    (1, 24),
)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    "sizes, batches, dtype, loss, penalty, wanted, slope, bias, sms", list(cases.covering(*AXES))
)
def test_pairs(sizes, batches, dtype, loss, penalty, wanted, slope, bias, sms):
    simt.set_device(sms=sms)  # one multiprocessor: large tiles; many: small ones
    Case(sizes, batches, dtype, loss, penalty, wanted=wanted, slope=slope, bias=bias).check()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_generator(loss, dtype):
    for sizes, batches in (((13, 40, 70, 1), (5, 5)), ((9, 1), (3, 33))):
        Case(sizes, batches, dtype, loss, "none", generator=True).check()


@pytest.mark.parametrize("sms, major", [(1, 8), (1, 9), (6, 9), (132, 9)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_sizes_in_every_tile(dtype, sms, major):
    """One multiprocessor takes the largest tiles, six those of 64 x 64, many the small ones."""
    simt.set_device(sms=sms, major=major)
    # of 701 inputs a unit's sum would be 4e-7, which float32 may take for either side of zero
    sizes, batches = (703, 70, 91, 1), (65, 65)
    if dtype in ("bfloat16", "float16"):
        layers = [(130, 70, 703, 0), (130, 91, 70, 1), (130, 70, 91, 2)]
        tile = {(1, 8): "large", (1, 9): "warpgroups", (6, 9): "medium", (132, 9): "small"}[sms, major]
        assert simt.mlp_tile(sms, major, dtype, layers) == tile
    for penalty in ("none", "all"):
        Case(sizes, batches, dtype, "least_squares", penalty).check()


@pytest.mark.parametrize("major", [8, 9, 10, 12])
@pytest.mark.parametrize("sms", [4, 80, 132])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_choice_of_a_tile(dtype, sms, major):
    """Of every generation that is built for: small products spread over many blocks, large ones reuse what
    they load. Only machine code of 9.0 has products of warpgroups; true float32 has no large tile."""
    largest = "medium" if dtype == "float32" else "large"
    if major == 9 and dtype in ("bfloat16", "float16"):
        largest = "warpgroups"
    assert simt.mlp_tile(sms, major, dtype, [(1, 1, 1, 0)]) == "small"
    assert simt.mlp_tile(sms, major, dtype, []) == "small"
    assert simt.mlp_tile(sms, major, dtype, [(4096, 4096, 4096, 0)]) == largest
    assert simt.mlp_tile(sms, major, dtype, [(16, 32 * sms, 1024, 0)]) == "small"
    if sms == 132:  # 784-256-256-1 of 64 + 64 samples
        layers = [(128, 256, 784, 0), (128, 256, 256, 1), (128, 256, 256, 2)]
        assert simt.mlp_tile(sms, major, dtype, layers) == "small"


def test_warpgroups_in_any_order():
    """Stages are refilled while products are under way, which end as late as they may."""
    simt.set_device(sms=2)
    case = Case((450, 70, 1), (65, 65), "bfloat16", "hinge", "r1", "weights")
    assert simt.mlp_tile(2, 9, "bfloat16", [(130, 70, 450, 0), (65, 450, 70, 1)]) == "warpgroups"
    first = None
    for order in ORDERS[:3]:
        simt.set_order(*order)
        loss, scalars, logits, grads = case.run()
        got = [loss, scalars.nan_to_num(), logits, *grads]
        first = first or got
        assert all(torch.equal(a, b) for a, b in zip(got, first, strict=True)), order


def launches_of(run):
    before = simt.launches()
    result = run()
    return simt.launches() - before, result


@pytest.mark.parametrize("penalty", ["none", "all"])
def test_a_pass_is_one_launch(penalty):
    """Forward and backward of a usual network; one whose jobs are too many for a launch takes a few."""
    for sizes, most in (((13, 40, 70, 1), 2), ((13, 1), 2), ((5,) * 10 + (1,), 6)):
        launches, _ = launches_of(Case(sizes, (9, 9), "bfloat16", "hinge", penalty).run)
        assert launches <= most if most > 2 else launches == most


@pytest.mark.parametrize("penalty", ["none", "all"])
def test_blocks_that_do_not_fit_together(penalty):
    """Each phase is a launch of its own then, to the same bits, and the fallback is counted."""
    case = Case((37, 65, 40, 1), (40, 40), "float32", "hinge", penalty)
    together, want = launches_of(case.run)
    assert together == 2
    before = _backend.fallbacks.total()
    simt.leave_free(1)
    apart, got = launches_of(case.run)
    # hidden layers, logits and adjoints, v, norms, totals; tangents beside gradients
    assert apart == (5 + 1 if penalty == "none" else 6 + 3)
    assert _backend.fallbacks.total() == before + (1 if penalty == "none" else 2)
    for a, b in zip(
        (got[0], got[1].nan_to_num(), got[2], *got[3]),
        (want[0], want[1].nan_to_num(), want[2], *want[3]),
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("sms", [1, 132])
def test_a_common_size(sms):
    simt.set_device(sms=sms)
    Case((784, 256, 256, 1), (64, 64), "bfloat16", "non_saturating", "r1").check()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sms", [1, 132])
def test_any_order_gives_the_same_bits(dtype, sms):
    simt.set_device(sms=sms)
    case = Case((37, 65, 40, 1), (9, 9), dtype, "hinge", "all")
    first = None
    for order in ORDERS:
        simt.set_order(*order)
        loss, scalars, logits, grads = case.run()
        got = [loss, scalars.nan_to_num(), logits, *grads]
        first = first or got
        assert all(torch.equal(a, b) for a, b in zip(got, first, strict=True)), order


def test_backward_again_and_scaled():
    torch.manual_seed(1)
    D = nn.Sequential(nn.Linear(13, 40), nn.LeakyReLU(0.2), nn.Linear(40, 1))
    real, fake = torch.randn(5, 13), torch.randn(4, 13, requires_grad=True)
    leaves = [*D.parameters(), fake]
    out = gan.discriminator_step(D, real, fake, r1=2.0)
    assert out.path == "fused_mlp"
    once = torch.autograd.grad(out.loss, leaves, retain_graph=True)
    again = torch.autograd.grad(out.loss, leaves, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    doubled = torch.autograd.grad(out.loss, leaves, torch.tensor(4.0))
    assert all(torch.equal(4 * a, b) for a, b in zip(once, doubled, strict=True))
    with torch.no_grad():
        quiet = gan.discriminator_step(D, real, fake, r1=2.0)
    assert torch.equal(quiet.loss, out.loss) and torch.equal(quiet.penalty, out.penalty)


def test_only_what_is_asked_for():
    D = nn.Sequential(nn.Linear(13, 40), nn.LeakyReLU(0.2), nn.Linear(40, 7), nn.ReLU(), nn.Linear(7, 1))
    real, fake = torch.randn(5, 13), torch.randn(4, 13)
    gan.discriminator_step(D, real, fake, r1=1.0).loss.backward()
    want = [p.grad for p in D.parameters()]
    D.zero_grad()
    D[0].weight.requires_grad_(False)
    D[4].bias.requires_grad_(False)
    gan.discriminator_step(D, real, fake, r1=1.0).loss.backward()
    for p, g in zip(D.parameters(), want, strict=True):
        assert p.grad is None if not p.requires_grad else torch.equal(p.grad, g)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_any_layout(dtype):
    """Rows that begin anywhere and lie any distance apart, single rows of any stride."""
    torch.manual_seed(2)
    D = nn.Sequential(nn.Linear(16, 33), nn.ReLU(), nn.Linear(33, 1)).to(dtype)
    wide = torch.randn(6, 19).to(dtype)
    views = {
        "offset": wide[:, 1:17],
        "spaced": torch.randn(12, 16).to(dtype)[::2],
        "expanded": torch.randn(1, 16).to(dtype).expand(6, 16),
        "strided": torch.randn(6, 32).to(dtype)[:, ::2],
        "single": torch.randn(32).to(dtype).as_strided((1, 16), (3, 1), 1),
    }
    fake = torch.randn(6, 16).to(dtype)
    for name, view in views.items():
        got, want = (
            gan.discriminator_step(D, x, fake[: x.shape[0]], "relativistic", r1=1.0).loss
            for x in (view, view.clone(memory_format=torch.contiguous_format))
        )
        gradients = [torch.autograd.grad(loss, list(D.parameters())) for loss in (got, want)]
        assert torch.equal(got, want), name
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True)), name


def test_small_slopes_in_16_bits():
    """Where D is sure of all samples, s is 4e-7, near float16's least; gradients still come out."""
    case = Case((13, 40, 1), (6, 6), "float16", "non_saturating", "none", "weights", slope=1.0)
    case.weights = [torch.full_like(case.weights[0], 0.25), torch.full_like(case.weights[1], 0.125)]
    case.biases = [torch.zeros_like(b) for b in case.biases]
    case.options = MlpOptions("non_saturating")
    case.real, case.fake = 0.8 + 0.01 * case.real, -0.8 + 0.01 * case.fake
    tensors = [t.clone().requires_grad_() for t in (*case.weights, *case.biases)]
    loss = mlp_discriminator_step(
        case.real,
        case.fake,
        None,
        weights=tensors[:2],
        biases=tensors[2:],
        slopes=case.slopes,
        options=case.options,
    )[0]
    got = torch.autograd.grad(65536.0 * loss, tensors)
    wide = [t.detach().double().requires_grad_() for t in tensors]
    r, f = (
        nn.functional.linear(nn.functional.linear(x.double(), wide[0], wide[2]), wide[1], wide[3]).squeeze(1)
        for x in (case.real, case.fake)
    )
    want = torch.autograd.grad(65536.0 * losses.discriminator_loss("non_saturating", r, f), wide)
    for g, w in zip(got[:2], want[:2], strict=True):  # those of the biases cancel
        same(g, w, "gradient", "norm on tensor cores")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16"])
def test_nan_and_inf_travel(value, dtype):
    case = Case((13, 40, 1), (3, 3), dtype, "non_saturating", "r1")
    want = case.run()
    case.real[1, 2] = value
    got = case.run()
    assert not got[0].isfinite() and not got[2][1].isfinite()
    keep = [0, 2, 3, 4, 5]
    assert torch.equal(got[2][keep], want[2][keep])
    assert torch.equal(got[3][1], want[3][1]) and not got[3][2].isfinite().all()


@pytest.mark.parametrize("penalty", list(PENALTIES))
@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_infinity_stays_in_its_place(dtype, loss, penalty):
    """Rows are read in words of 16 bytes, and no width here fills its last one. What lies past a row's width
    must be zero though the row is infinite: 0 * inf would make the next layer's row NaN."""
    case = Case((13, 13, 27, 3, 1), (5, 5), dtype, loss, penalty)
    case.weights = [w.abs() for w in case.weights]
    before = case.run()[2]
    case.real[1, 2] = torch.inf
    _, _, logits, grads = case.run()
    assert logits[1] == torch.inf
    keep = [i for i in range(10) if i != 1]
    assert torch.equal(logits[keep], before[keep])
    _, _, want = case.oracle()
    for g, w in zip(grads, want, strict=True):
        assert torch.equal(g.isnan(), w.isnan()) and torch.equal(g.isinf(), w.isinf())


@pytest.mark.parametrize("penalty", ["r1", "r2", "gp", "all"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_input_gradients_overflow_to_infinity(dtype, penalty):
    """Adjoints, then tangents, whose rows end inside a word; activations stay finite."""
    case = Case((13, 13, 27, 3, 1), (5, 5), dtype, "wasserstein", penalty)
    large, small = (300.0, 6e-5) if dtype == "float16" else (1e25, 1e-30)
    case.weights = [torch.full_like(w, large if i else 1.0) for i, w in enumerate(case.weights)]
    case.biases = [torch.full_like(b, small) for b in case.biases]
    case.real, case.fake, case.mixed = (
        t if t is None else torch.full_like(t, small) for t in (case.real, case.fake, case.mixed)
    )
    _, scalars, _, grads = case.run()
    assert scalars[SCALARS.index("penalty")] == torch.inf
    if penalty == "r1":  # else inf - inf between real and fake, or inf / inf for WGAN-GP's direction
        assert all(g.isinf().all() for g in grads[2 : 2 + len(case.weights)])


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_gradients_pass_nan_as_in_torch(slope):
    """Where an activation gave NaN, ReLU passes the gradient on as it is and LeakyReLU scales it."""
    case = Case((13, 40, 33, 1), (3, 3), "float32", "wasserstein", "r1", wanted="samples", slope=slope)
    case.real[1, 2] = torch.nan
    *_, got = case.run()
    args = cases.oracle_of(case.real, case.fake, None, case.weights, case.biases)
    want = reference.mlp_discriminator_step(*args, case.slopes, "wasserstein", r1=case.options.r1)
    want = torch.autograd.grad(1.5 * want.loss, args[:2])
    assert want[0].isfinite().all()
    for g, w in zip(got, want, strict=True):
        close(g, w, "grad on tensor cores")


def test_no_gradient_is_no_penalty_direction():
    """At v = 0 WGAN-GP's direction is 0, not NaN."""
    D = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        D[2].weight.zero_()
    out = gan.discriminator_step(D, torch.randn(2, 3), torch.randn(2, 3), gp=10.0)
    out.loss.backward()
    assert out.penalty == 10 and all(p.grad.isfinite().all() for p in D.parameters())


def test_tf32_follows_the_switch_of_torch(monkeypatch):
    monkeypatch.undo()
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for allowed in (True, False):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            assert _precision.products_in_tf32(torch.float32) == allowed
            assert not _precision.products_in_tf32(torch.bfloat16)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def arguments(**change):
    """Of gpu_mlp_forward, right but for ``change``, whose names of the step's tuple begin with "step "."""
    z = torch.zeros
    step = {
        "loss": "hinge", "generator": False, "target": 1.0, "r1": 0.0, "r2": 0.0, "gp": 0.0, "near_real": 0.0,
        "near_fake": 0.0, "counted": 0, "real": z(3, 5), "fake": z(4, 5), "mixed": None,
        "weights": [z(2, 5), z(1, 2)], "biases": [z(2), None], "slopes": [0.2], "activations": [],
        "dropouts": [], "key": None, "weight_gradients": True, "dx_real": False, "dx_fake": False,
        "threads": 1,
    }  # fmt: skip
    size = simt.gpu_mlp_saved_bytes(tuple(step.values()))
    for name, value in change.items():
        if name.startswith("step "):
            step[name.removeprefix("step ")] = value
    given = {
        "loss": z(()), "scalars": z(9, dtype=torch.float64), "logits": z(7),
        "saved": torch.empty(size, dtype=torch.uint8),
    }  # fmt: skip
    given |= {name: value for name, value in change.items() if not name.startswith("step ")}
    return tuple(step.values()), False, 0, *given.values()


@pytest.mark.parametrize(
    "change, error",
    [
        ({"step loss": "softplus"}, "loss: expected non_saturating"),
        ({"step loss": "relativistic"}, "expected equal sizes"),
        ({"step r1": -1.0}, "expected weights of at least 0"),
        ({"step gp": 1.0}, "mixed: expected samples"),
        ({"step real": torch.zeros(3, 6)}, "real: expected shape"),
        ({"step real": torch.zeros(3, 5, dtype=torch.bfloat16)}, "real: expected float32, got bfloat16"),
        ({"step fake": torch.zeros(5)}, "fake: expected shape"),
        ({"step fake": torch.zeros(4, 5, dtype=torch.float64)}, "real: expected float64, got float32"),
        ({"step weights": [torch.zeros(2, 5), torch.zeros(2, 2)]}, "last layer to have one output"),
        ({"step weights": [torch.zeros(2, 5)]}, "weights, biases, slopes"),
        ({"step biases": [torch.zeros(3), None]}, "biases: expected shape"),
        ({"step slopes": [-0.5]}, "slopes: expected values"),
        ({"step activations": ["softsign"]}, "activations: expected piecewise_linear, tanh"),
        ({"step activations": ["tanh", "tanh"]}, "activations: expected none or 1, got 2"),
        ({"step dropouts": [0.5]}, "dropouts: expected none or 2, got 1"),
        ({"step dropouts": [1.0, 0.0]}, "dropouts: expected values of at least 0 and below 1"),
        ({"step dropouts": [0.5, 0.0]}, "key"),
        ({"step counted": 6}, "counted: expected 0 to 5, got 6"),
        ({"step near_real": 1.0}, "expected samples and as many with noise"),
        ({"step near_fake": 1.0, "step r2": 1.0}, "and no exact penalty on them"),
        ({"loss": torch.zeros(1)}, "loss: expected shape"),
        ({"scalars": torch.zeros(9)}, "scalars: expected float64"),
        ({"logits": torch.zeros(8)}, "logits: expected shape"),
        ({"saved": torch.empty(9, dtype=torch.uint8)}, "saved: expected shape"),
    ],
)
def test_bad_arguments(change, error):
    simt.gpu_mlp_forward(*arguments())
    with pytest.raises(ValueError, match=error):
        simt.gpu_mlp_forward(*arguments(**change))


def test_float64_is_refused():
    x, W = torch.zeros(3, 5, dtype=torch.float64), torch.zeros(1, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="expected float32, bfloat16 or float16, got float64"):
        mlp_discriminator_step(x, x, None, weights=[W], biases=[None], slopes=[], options=MlpOptions("hinge"))


def test_backward_refuses_what_does_not_fit():
    step, tf32, stream, *given = arguments()
    simt.gpu_mlp_forward(step, tf32, stream, *given)
    z = torch.zeros

    right = {"dweights": (z(2, 5), z(1, 2)), "dbiases": (z(2), None)}

    def backward(scale=1.0, workspace=0, dx_real=None, **change):
        dweights, dbiases = (right | change).values()
        memory = torch.empty(workspace, dtype=torch.uint8)
        simt.gpu_mlp_backward(
            step,
            tf32,
            stream,
            scale=torch.tensor(scale),
            saved=given[3],
            workspace=memory,
            dweights=list(dweights),
            dbiases=list(dbiases),
            dx_real=dx_real,
            dx_fake=None,
        )

    backward()
    for wrong, error in (
        ({"scale": [1.0]}, "scale: expected shape"),
        ({"workspace": 7}, "workspace: expected shape"),
        ({"dweights": (z(2, 5),)}, "expected 2 tensors or None"),
        ({"dweights": (z(2, 6), z(1, 2))}, "dweights: expected shape"),
        ({"dbiases": (z(3), None)}, "dbiases: expected shape"),
        ({"dx_real": z(3, 5)}, "not what forward was told"),
    ):
        with pytest.raises(ValueError, match=error):
            backward(**wrong)
