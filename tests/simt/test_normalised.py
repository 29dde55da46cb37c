"""Cells with layer norms and with recurrent matrices of blocks on the CUDA kernels, in the emulator, against
the float64 formula."""

import contextlib
import itertools
import math
from types import SimpleNamespace

import cases
import fusegen
import pytest
import torch
from fusegen import _backend, _precision
from fusegen.ops import normalised
from fusegen.ops.cuda import normalised as cuda_normalised
from fusegen.ops.cuda.engine import Engine
from fusegen.ops.normalised import formula, stack
from fusegen.ops.normalised.formula import Kind, Resets
from fusegen.ops.normalised.passes import Call
from simt_cases import DTYPES, ORDERS, SPECS
from simt_layers import boundaries
from tolerances import TOLERANCE, close

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

FORMS = [
    *((cell, norm) for cell in ("lstm", "gru") for norm in ("haste", "ba", "dreamer", "none")),
    ("rnn_tanh", "none"),
    ("rnn_relu", "none"),
]
BLOCKS = {7: 7, 12: 3, 36: 6, 66: 2, 130: 2}  # of so many units, where there are several
EPS = {"haste": 1e-5, "ba": 1e-5, "dreamer": 1e-3, "none": 1e-5}


class Case:
    """A layer's inputs in the dtype of the call, and what the float64 formula makes of them."""

    def __init__(
        self,
        form,
        H,
        B,
        T,
        dtype="float32",
        ragged=False,
        D=1,
        *,
        blocks=1,
        I=5,
        bias=True,
        state=True,
        resets=None,
        reset_to=False,
    ):
        torch.manual_seed(H * 1000 + B * 10 + T)
        (cell, norm), self.tf32 = form, dtype == "tf32"
        self.spec, self.kind = SPECS[cell], Kind(cell, norm, blocks, EPS[norm])
        self.passes = cuda_normalised.passes(Engine(simt))
        self.dtype = torch.float32 if self.tf32 else getattr(torch, dtype)
        GH, n = self.spec.gates * H, len(self.spec.states)

        def some(*shape, scale=0.5, around=0.0):
            return (torch.randn(*shape) * scale + around).to(self.dtype)

        # gains below one: gates of the size that those of the plain layers' tests have
        weights, apart = [], norm in ("haste", "ba")
        for _ in range(D):
            weights += [
                some(GH, I, scale=1 / math.sqrt(I)),
                some(GH, H // blocks, scale=2 / math.sqrt(H // blocks)),
            ]
            weights.append(some(GH, scale=0.1, around=0.6) if norm != "none" else None)
            weights.append(some(GH) if bias else None)
            weights.append(some(GH, scale=0.1, around=0.6) if apart else None)
            weights.append(some(GH) if bias and (apart or norm == "none") else None)
            of_state = apart and cell == "lstm"
            weights += [
                some(H, scale=0.1, around=0.6) if of_state else None,
                some(H) if of_state and bias else None,
            ]
        states = [some(D, B, H) if state else None for _ in range(n)]
        starts = [some(D, B, H) if reset_to else None for _ in range(n)]
        lengths = torch.randint(0, T + 1, (B,)) if ragged else None
        at = None if resets is None else boundaries(resets, T, B, lengths)
        self.call = Call(
            self.kind,
            some(T, B, I, scale=1.0),
            *(*states, None)[:2],
            weights,
            lengths,
            at,
            *(*starts, None)[:2],
        )
        self.grads = [some(T, B, D * H), *(some(D, B, H) for _ in range(n))]

    def past(self, t, by):
        lengths = self.call.lengths
        if lengths is None:
            return t
        return t.masked_fill((torch.arange(t.shape[0]).unsqueeze(1) >= lengths).unsqueeze(-1), by)

    def forward(self, train=True):
        _precision.recurrence_in_tf32 = lambda dtype: self.tf32  # the fixture puts it back
        return self.passes.forward(self.spec, self.call, train)

    def backward(self, made, wanted=None):
        grads = [self.past(self.grads[0], torch.nan), *self.grads[1:]]
        wanted = [t is not None for t in self.call.tensors] if wanted is None else wanted
        return self.passes.backward(self.spec, self.call, made, (*grads, None)[:3], wanted)

    def run(self):
        """(outputs, gradients) of the kernels; what lies past a sequence's end is NaN on the way in."""
        call = self.call
        self.call = call._replace(x=self.past(call.x, torch.nan))
        try:
            made = self.forward()
            got = self.backward(made)
        finally:
            self.call = call
        return [t for t in made[:3] if t is not None], got

    def oracle(self):
        call, n = self.call, len(self.spec.states)
        inputs = cases.oracle_of(*call.tensors)
        x, *states = inputs[: 1 + n]
        weights = inputs[3:-2]
        resets = None if call.resets is None else Resets(call.resets, *inputs[-2:])
        want = formula.layer(self.kind, x, states, weights, call.lengths, resets)
        grads = [self.past(self.grads[0], 0).double(), *(g.double() for g in self.grads[1:])]
        leaves = [t for t in inputs if t is not None]
        return list(want), torch.autograd.grad(want, leaves, grads, materialize_grads=True)

    def check(self):
        got, want = self.run(), self.oracle()
        for kind, ours, theirs in zip(("value", "grad"), got, want, strict=True):
            assert len(ours) == len(theirs)
            for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                assert a.dtype == self.dtype and a.shape == b.shape
                if self.tf32:
                    scale = b.abs().max().clamp(min=1e-3 if kind == "grad" else 1)
                    assert (a.double() - b).abs().max() / scale <= TOLERANCE["tf32", kind], f"{kind} {i}"
                else:
                    close(a, b, f"{kind} on tensor cores", f"{kind} {i}")


AXES = (
    FORMS,
    tuple(BLOCKS),
    (1, 5, 33),
    (1, 2, 3),
    DTYPES,
    (False, True),  # ragged
    (1, 2),
    (False, True),  # blocks
    (None, "some", "all"),
    (False, True),  # reset_to
    (True, False),  # bias
    (True, False),  # state
)


def pairs():
    """relu's side of zero is open to rounding in fewer bits, so it is in float32."""
    for form, H, B, T, dtype, *rest in cases.covering(*AXES):
        yield form, H, B, T, "float32" if form[0] == "rnn_relu" else dtype, *rest


@pytest.mark.parametrize("form, H, B, T, dtype, ragged, D, blocks, where, to, bias, state", list(pairs()))
def test_pairs(form, H, B, T, dtype, ragged, D, blocks, where, to, bias, state):
    options = {"blocks": BLOCKS[H] if blocks else 1, "bias": bias, "state": state}
    options |= {"resets": where, "reset_to": to and where is not None}
    Case(form, H, B, T, dtype, ragged, D, **options).check()


@pytest.mark.parametrize("form", [f for f in FORMS if f != ("gru", "ba")], ids="-".join)
def test_one_unit(form):
    """Ba's GRU has a norm of n alone, which is then of one number."""
    Case(form, 1, 5, 3, ragged=True, D=2, resets="some", reset_to=True).check()


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("form", [("lstm", "haste"), ("gru", "ba"), ("rnn_tanh", "none")], ids="-".join)
def test_lanes_of_several_units(form, dtype, blocks):
    """And blocks of the device that share rows of R."""
    plan = simt.gpu_normalised_plan(*form, "float32", False, True, 3, 264, 1, blocks, 0)
    assert plan.lanes == 256 and (plan.splits > 1 or form[0] == "rnn_tanh")
    Case(form, 264, 3, 2, dtype, blocks=blocks).check()


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_any_order_gives_the_same_bits(form):
    case = Case(form, 36, 3, 2, "bfloat16", True, blocks=2, resets="some", reset_to=True)
    first = None
    for order in ORDERS:
        simt.set_order(*order)
        got = [*itertools.chain(*case.run())]
        first = first or got
        assert all(torch.equal(a, b) for a, b in zip(got, first, strict=True)), order


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_inference_gives_the_same(form):
    case = Case(form, 36, 5, 3, ragged=True, D=2, blocks=3)
    made, plain = case.forward(), case.forward(train=False)
    assert all(torch.equal(a, b) for a, b in zip(made[:3], plain[:3], strict=True) if a is not None)
    assert plain[3:] == (None, None, None)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_only_the_gradients_asked_for(form):
    case = Case(form, 12, 3, 2, D=2, blocks=2, resets="some", reset_to=True)
    made = case.forward()
    places = [i for i, t in enumerate(case.call.tensors) if t is not None]
    everything = dict(zip(places, case.backward(made), strict=True))
    for i in places:
        wanted = [j == i for j in range(len(case.call.tensors))]
        (got,) = case.backward(made, wanted)
        assert torch.equal(got, everything[i]), i


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_what_comes_before_a_boundary_does_not_matter(form):
    """NaN and infinity stop there, forward and backward, and stay in their row."""
    case = Case(form, 12, 4, 4, resets="none", reset_to=True)
    case.call.resets[2, 1] = True
    want, want_grads = case.run()
    x = case.call.x.clone()
    x[0, 1, 0], x[1, 1, 2] = torch.nan, torch.inf
    case.call = case.call._replace(x=x)
    got, grads = case.run()
    rows = [0, 2, 3]
    assert got[0][1, 1].isnan().any() and torch.equal(got[0][:, rows], want[0][:, rows])
    assert torch.equal(got[0][2:], want[0][2:]) and torch.equal(got[1], want[1])
    assert torch.equal(grads[0][2:], want_grads[0][2:])


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_a_length_out_of_range(form):
    """What its sequence gives is NaN, the others' is as before; the next call raises."""
    case = Case(form, 12, 4, 3, ragged=True, D=2)
    want, want_grads = case.run()
    case.call.lengths[2] = 9
    made = case.forward()
    others = [0, 1, 3]
    assert made.y[:, 2].isnan().all() and made.h_n[:, 2].isnan().all()
    assert made.c_n is None or made.c_n[:, 2].isnan().all()
    assert torch.equal(made.y[:, others], want[0][:, others])
    with pytest.raises(ValueError, match=r"outside 0\.\.T, of row 2"):
        case.forward()
    dx, dh0, *_ = case.backward(made)
    assert dx[:, 2].isnan().all() and dh0[:, 2].isnan().all()
    assert torch.equal(dx[:, others], want_grads[0][:, others])
    with pytest.raises(ValueError, match=r"outside 0\.\.T, of row 2"):
        case.forward()


MODULES = {
    "LayerNormLSTM": {"norm": "haste"},
    "LayerNormGRU": {"norm": "dreamer", "block_diagonal": 2},
    "BlockDiagonalLSTM": {"block_diagonal": 3},
    "BlockDiagonalGRU": {"block_diagonal": 2},
    "BlockDiagonalRNN": {"block_diagonal": 4, "nonlinearity": "relu"},
}


def twins(name, monkeypatch, cell=False, **options):
    """A module on the emulator, and the same in float64 by the formula."""
    for op in normalised.OPS.values():
        monkeypatch.setattr(op, "direct", cuda_normalised.passes(Engine(simt)))
    monkeypatch.setattr(_precision, "recurrence_in_tf32", lambda dtype: False)
    make = getattr(fusegen.nn, name + ("Cell" if cell else ""))
    mine = make(7, 12, **MODULES[name], **options)
    wide = make(7, 12, **MODULES[name], **options).double()
    wide.load_state_dict(mine.state_dict())
    return mine, wide


def same(mine, wide, run, x):
    """Outputs and gradients, second ones too, which the formula gives."""
    results = []
    for m, x_ in ((mine, x), (wide, x.double())):
        x_ = x_.requires_grad_()
        with cases.through_reference() if m is wide else contextlib.nullcontext():
            out = cases.flat(run(m, x_))
            loss = sum((o * torch.linspace(1, 2, o.numel()).view_as(o)).sum() for o in out)
            grads = torch.autograd.grad(loss, [x_, *m.parameters()], create_graph=True)
            second = torch.autograd.grad(grads[0].square().sum(), m.parameters(), allow_unused=True)
        results.append([*out, *grads, *(g for g in second if g is not None)])
    close(*results, "grad on tensor cores")


@pytest.mark.parametrize("name", MODULES)
def test_layers(name, monkeypatch):
    """Stacked, in both directions, ragged."""
    mine, wide = twins(name, monkeypatch, num_layers=2, bidirectional=True)
    same(mine, wide, lambda m, x: m(x, lengths=[4, 0, 2]), torch.randn(4, 3, 7))


@pytest.mark.parametrize("name", MODULES)
def test_cells(name, monkeypatch):
    mine, wide = twins(name, monkeypatch, cell=True)
    same(mine, wide, lambda m, x: m(x), torch.randn(5, 7))


def test_float64_runs_the_formula_on_a_gpu(monkeypatch):
    """And says so; other dtypes run the kernels, where the build has them."""
    monkeypatch.setattr(_backend, "FUSED_DEVICES", ("cpu", "cuda"))

    def elsewhere(dtype):
        return SimpleNamespace(is_cpu=False, is_meta=False, device=torch.device("cuda"), dtype=dtype)

    with pytest.raises(RuntimeError, match="no fused kernels of float64"):
        stack._runs_formula("normalised_gru", elsewhere(torch.float64))
    fusegen.set_backend("auto")
    _backend.fallbacks.clear()
    assert not stack._runs_formula("normalised_gru", elsewhere(torch.bfloat16))
    assert not _backend.fallbacks
    assert stack._runs_formula("normalised_gru", elsewhere(torch.float64))
    assert any("float64" in what for what in _backend.fallbacks)
    with pytest.raises(ValueError, match="expected float32, bfloat16 or float16, got float64"):
        Case(("gru", "haste"), 12, 3, 2, "float64").forward()


@pytest.mark.parametrize(
    "what, message",
    [
        ({"blocks": 5}, "blocks: expected a divisor of H = 12"),
        ({"blocks": 0}, "blocks: expected a divisor"),
        ({"norm": "layer"}, "norm: expected 'none', 'haste', 'ba' or 'dreamer'"),
        ({"cell": "rnn_tanh"}, "norm: an RNN has none"),
        ({"H": 0}, "1 <= H"),
    ],
)
def test_bad_plans(what, message):
    asked = {
        "cell": "gru",
        "norm": "ba",
        "dtype": "float32",
        "tf32": False,
        "backward": False,
        "B": 3,
        "H": 12,
    }
    with pytest.raises(ValueError, match=message):
        simt.gpu_normalised_plan(**(asked | {"D": 1, "blocks": 1, "device": 0} | what))


def test_a_plan_is_of_its_call():
    case = Case(("gru", "haste"), 12, 3, 2)
    engine = case.passes.forward.args[0]
    kernels = engine.kernels

    class Other:
        def __getattr__(self, name):
            return getattr(kernels, name)

        def gpu_normalised_plan(self, *asked):
            return kernels.gpu_normalised_plan(*asked[:5], 4, *asked[6:])

    engine.kernels = Other()
    with pytest.raises(ValueError, match=r"plan: expected one of forward with B = 3"):
        case.forward()
