"""fusegen.nn.LSTM, GRU and RNN against torch.nn in float64: values, states, every gradient, every option."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import (
    CELL_NAMES,
    DTYPES,
    SHAPES,
    SMALL,
    flat,
    grads,
    hidden,
    label,
    layer,
    options_of,
    oracle_of,
    pair,
    through_reference,
    tree,
)
from fusegen.ops import layers
from tolerances import TOLERANCE, close

pytestmark = pytest.mark.usefixtures("poisoned")
THREADS = 2  # a call's work is divided


def compare(cell_name, mine, oracle, x, hx=None):
    """Outputs, states and all gradients of one call against the oracle's."""
    x64, hx64 = oracle_of(x, hx)
    x = x.detach().requires_grad_()
    hx = tree(lambda t: t.detach().requires_grad_(), hx)
    got, want = mine(x, hx), oracle(x64, hx64)
    close(got, want, "value")
    with torch.no_grad():
        infer = mine(x, hx)
    close(infer, want, "value", "inference")
    w = [torch.randn_like(t) for t in flat(want)]
    inputs, inputs64 = [x, *flat(hx), *mine.parameters()], [x64, *flat(hx64), *oracle.parameters()]
    if cell_name == "RNN_RELU" and x.dtype in (torch.bfloat16, torch.float16):
        # relu's derivative jumps where rounding moves h across 0: the oracle must round too
        with through_reference():
            want, inputs64 = mine(x, hx), inputs
    close(grads(got, inputs, w), grads(want, inputs64, w), "grad", "gradient")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_shapes(cell_name, shape, dtype):
    I, H, B, T = shape
    mine, oracle = pair(layer, cell_name, I, H, dtype)
    compare(cell_name, mine, oracle, torch.randn(T, B, I).to(dtype), hidden(cell_name, mine, B, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("cell_name", "options"),
    [(k, o) for k in CELL_NAMES for o in options_of(k)],
    ids=lambda v: v if isinstance(v, str) else label(v),
)
def test_options(cell_name, options, dtype):
    I, H, B, T = SMALL
    mine, oracle = pair(layer, cell_name, I, H, dtype, **options)
    x = torch.randn(B, T, I) if mine.batch_first else torch.randn(T, B, I)
    compare(cell_name, mine, oracle, x.to(dtype))
    compare(cell_name, mine, oracle, x.to(dtype), hidden(cell_name, mine, B, dtype))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_unbatched(cell_name, batch_first):
    mine, oracle = pair(layer, cell_name, 7, 33, num_layers=2, bidirectional=True, batch_first=batch_first)
    x = torch.randn(9, 7, dtype=torch.float64)
    compare(cell_name, mine, oracle, x)
    compare(cell_name, mine, oracle, x, tree(lambda s: s.squeeze(1), hidden(cell_name, mine, 1)))


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_empty_batch(cell_name):
    mine, oracle = pair(layer, cell_name, 7, 33, torch.float32)
    compare(cell_name, mine, oracle, torch.randn(9, 0, 7))
    compare(cell_name, mine, oracle, torch.randn(9, 0, 7), hidden(cell_name, mine, 0, torch.float32))


LAYOUTS = {
    "every second feature": lambda t: t.new_zeros(*t.shape[:-1], 2 * t.shape[-1])[..., ::2].copy_(t),
    "features first": lambda t: t.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "batch first": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "part of wider rows": lambda t: t.new_zeros(*t.shape[:-1], t.shape[-1] + 3)[..., 1:-2].copy_(t),
    "one row for all": lambda t: t[:, :1].expand(t.shape),
    "one feature for all": lambda t: t[..., :1].expand(t.shape),
    "off by one element": lambda t: t.new_zeros(t.numel() + 1)[1:].view(t.shape).copy_(t),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_memory_layouts(cell_name, layout):
    """Inputs, states and incoming gradients in any layout give what contiguous ones give, bit for bit."""
    m = layer(cell_name, 7, 33)
    x, hx = torch.randn(9, 5, 7), hidden(cell_name, m, 5, torch.float32)
    put = LAYOUTS[layout]
    results = []
    for form in (put, lambda t: put(t).contiguous()):
        x_, hx_ = (
            form(x).detach().requires_grad_(),
            tree(lambda t, f=form: f(t).detach().requires_grad_(), hx),
        )
        out = flat(m(x_, hx_))
        torch.manual_seed(1)
        given = [form(torch.randn_like(o)) for o in out]
        results.append((out, torch.autograd.grad(out, [x_, *flat(hx_), *m.parameters()], given)))
    for a, b in zip(flat(results[0]), flat(results[1]), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_negative_view(cell_name):
    """The imaginary part of a conjugate is a real tensor whose sign is a flag."""
    m, z = layer(cell_name, 7, 9), torch.randn(4, 3, 7, dtype=torch.complex64)
    for x in (z.conj().imag, torch._neg_view(z.real.contiguous())):
        assert x.is_neg()
        for a, b in zip(flat(m(x)), flat(m(x.resolve_neg())), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_same_bits_twice(cell_name):
    m = layer(cell_name, 41, 33, num_layers=2, bidirectional=True)
    x = torch.randn(9, 13, 41, requires_grad=True)
    w = None
    runs = []
    for _ in range(3):
        out = flat(m(x, lengths=[9, 0, 3, 9, 1, 2, 5, 5, 8, 7, 6, 4, 9]))
        w = w or [torch.randn_like(o) for o in out]
        runs.append([*out, *grads(out, [x, *m.parameters()], w)])
    for again in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], again, strict=True))


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_training_forward_gives_the_bits_of_inference(cell_name):
    m = layer(cell_name, 41, 33)
    x = torch.randn(9, 13, 41)
    with torch.no_grad():
        infer = flat(m(x))
    assert all(torch.equal(a, b) for a, b in zip(flat(m(x)), infer, strict=True))


@pytest.mark.parametrize(("cell_name", "proj"), [*((k, 0) for k in CELL_NAMES), ("LSTM", 5)])
def test_gradient_subsets(cell_name, proj, monkeypatch):
    """Any subset of inputs can require grad; what is not asked for is not computed; what is asked for is the
    same."""
    more = {"proj_size": proj} if cell_name == "LSTM" else {}
    m = layer(cell_name, 7, 9, bidirectional=True, **more)
    x, hx = torch.randn(4, 3, 7), hidden(cell_name, m, 3, torch.float32)
    inputs = [x, *flat(hx), *m.parameters()]
    asked = []
    op = layers.OPS[m._spec]
    direct = op.direct
    counted = direct._replace(backward=lambda *a: asked.append(sum(a[-1])) or direct.backward(*a))
    monkeypatch.setattr(op, "direct", counted)

    def run():
        out = flat(m(x, hx))
        torch.manual_seed(3)
        return sum((o * torch.randn_like(o)).sum() for o in out)

    for t in inputs:
        t.requires_grad_()
    full = torch.autograd.grad(run(), inputs)
    assert asked.pop() == len(inputs)
    for i, t in enumerate(inputs):  # all require grad, one is asked for
        assert torch.equal(torch.autograd.grad(run(), t)[0], full[i])
        assert asked.pop() == 1
    for keep in itertools.islice(itertools.combinations(range(len(inputs)), 2), 12):  # two require grad
        for i, t in enumerate(inputs):
            t.requires_grad_(i in keep)
        got = torch.autograd.grad(run(), [inputs[i] for i in keep])
        assert all(torch.equal(g, full[i]) for g, i in zip(got, keep, strict=True))
        assert asked.pop() == 2


@pytest.mark.parametrize(
    ("cell_name", "which"), [(k, i) for k in CELL_NAMES for i in range(3 if k == "LSTM" else 2)]
)
def test_gradient_of_one_output(cell_name, which):
    """A loss on y, h_n or, for the LSTM, c_n alone: the other incoming gradients are absent."""
    mine, oracle = pair(layer, cell_name, 7, 9, bidirectional=True)
    x = torch.randn(4, 3, 7, dtype=torch.float64, requires_grad=True)
    got, want = flat(mine(x)), flat(oracle(x))
    w = torch.randn_like(want[which])
    close(
        grads(got[which], [x, *mine.parameters()], [w]),
        grads(want[which], [x, *oracle.parameters()], [w]),
        "grad",
    )


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_gradients_accumulate(cell_name):
    """Backward twice adds up in .grad, and weights shared by two calls get both parts."""
    mine, oracle = pair(layer, cell_name, 7, 9)
    x = torch.randn(4, 3, 7, dtype=torch.float64)
    for m in (mine, oracle):
        for _ in range(2):
            (m(x)[0].sum() + m(x.flip(0))[0].square().sum()).backward()
    close([p.grad for p in mine.parameters()], [p.grad for p in oracle.parameters()], "grad")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_nan_and_inf_travel_as_in_torch(cell_name, value):
    mine, oracle = pair(layer, cell_name, 7, 33, torch.float32)
    oracle = oracle.float()
    x = torch.randn(9, 5, 7)
    x[3, 2, 4] = value
    for a, b in zip(flat(mine(x)), flat(oracle(x)), strict=True):
        assert torch.equal(a.isnan(), b.isnan())
        assert torch.equal(a.isinf(), b.isinf())
        assert torch.allclose(a, b, atol=TOLERANCE[torch.float32, "value"], equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("T", "B"), [(4, 20), (1, 20), (1, 3)], ids=["sequence", "step", "small step"])
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_gradients_pass_nan_as_in_torch(cell_name, T, B, dtype):
    """A ReLU whose output is NaN passes its gradient on, so that the one by x is finite."""
    mine, oracle = pair(layer, cell_name, 7, 19, dtype)
    x = torch.randn(T, B, 7, dtype=dtype)
    x[T - 1, 1, 3] = torch.nan
    x64 = x.double().requires_grad_()
    x.requires_grad_()
    w = torch.randn(T, B, 19, dtype=torch.float64)
    got, want = (
        grads(mine(x)[0], [x, *mine.parameters()], [w]),
        grads(oracle(x64)[0], [x64, *oracle.parameters()], [w]),
    )
    assert want[0].isfinite().all() == (cell_name == "RNN_RELU")
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a.isnan(), b.isnan())
        close(a.nan_to_num(), b.nan_to_num(), "grad")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("H", [4, 5, 17, 33])
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_infinite_input_in_16_bits(cell_name, H, dtype):
    """NaN is where torch has it: none comes in from the lanes past an odd number of units."""
    more = {"proj_size": 3} if cell_name == "LSTM" and H == 17 else {}
    mine, oracle = pair(layer, cell_name, 1, H, dtype, **more)
    x = torch.zeros(3, 2, 1, dtype=dtype)
    x[0, 0, 0] = torch.inf
    want = flat(oracle(x.double()))
    for train in (True, False):
        with torch.set_grad_enabled(train):
            got = flat(mine(x))
        assert all(torch.equal(a.isnan(), b.isnan()) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_large_values_saturate(cell_name):
    """Gates far into saturation: exp must not overflow into NaN, and tanh and sigmoid reach their limits."""
    mine, oracle = pair(layer, cell_name, 7, 33, torch.float32)
    x = torch.randn(9, 5, 7) * 1e4
    y, want = mine(x)[0], oracle(x.double())[0]
    assert y.isfinite().all()
    # a sum of terms of 1e4 is known to 1e-3 in float32, and where it is near 0 that reaches the output
    # undamped
    assert ((y - want).abs() / want.abs().clamp(min=1)).max() < 1e-2


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_dropout_draws_what_torch_draws(cell_name):
    mine, oracle = pair(layer, cell_name, 7, 9, num_layers=3, dropout=0.4, bidirectional=True)
    x = torch.randn(4, 3, 7, dtype=torch.float64)
    torch.manual_seed(5)
    got = mine(x)
    torch.manual_seed(5)
    close(got, oracle(x), "value")
    mine.eval(), oracle.eval()
    close(mine(x), oracle(x), "value")


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_training_saves_no_more_than_torch(cell_name, saved_bytes):
    I, H, B, T = 24, 32, 8, 20
    mine, oracle = pair(layer, cell_name, I, H, torch.float32)
    oracle = oracle.float()
    x = torch.randn(T, B, I)
    ours = saved_bytes(lambda: mine(x), (x, *mine.parameters()))
    theirs = saved_bytes(lambda: oracle(x), (x, *oracle.parameters()))
    assert ours <= theirs, f"{ours} bytes saved, torch {theirs}"


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_inference_saves_nothing(cell_name, saved_bytes, monkeypatch):
    m = layer(cell_name, 7, 9)
    op = layers.OPS[m._spec]
    direct, train = op.direct, []
    counted = direct._replace(forward=lambda *a: train.append(a[-1]) or direct.forward(*a))
    monkeypatch.setattr(op, "direct", counted)
    with torch.no_grad():
        assert saved_bytes(lambda: m(torch.randn(4, 3, 7))) == 0
    m.requires_grad_(False)
    assert saved_bytes(lambda: m(torch.randn(4, 3, 7))) == 0
    with torch.inference_mode():
        m(torch.randn(4, 3, 7))
    assert train == [False] * 3


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm")
def test_little_memory_is_kept():
    """Scratch memory of calls that are over: at most 256 MiB, whatever sizes there were."""
    program = """
import torch, fusegen

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

def call(H):
    fusegen.ops.gru(torch.zeros(2, 9, 1), None, [torch.zeros(3 * H, 1), torch.zeros(3 * H, H), None, None])

fusegen.set_backend("fused")
torch.set_num_threads(1)
with torch.no_grad():
    call(8)
    before = resident()
    for H in (2900, 3200, 3500, 3800):
        call(H)
print(resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 280
