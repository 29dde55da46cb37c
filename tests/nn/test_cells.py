"""fusegen.nn.LSTMCell, GRUCell and RNNCell against torch.nn in float64."""

import pytest
import torch
from cases import CELLS, DTYPES, SHAPES, cell, flat, grads, oracle_of, pair, through_reference, tree
from tolerances import TOLERANCE, close

pytestmark = pytest.mark.usefixtures("poisoned")
THREADS = 2  # a call's work is divided


def state(cell_name, H, B, dtype):
    h = torch.randn(B, H).to(dtype) * 0.5
    return (h, torch.randn(B, H).to(dtype)) if cell_name == "LSTMCell" else h


def compare(cell_name, mine, oracle, x, hx=None):
    x64, hx64 = oracle_of(x, hx)
    x = x.detach().requires_grad_()
    hx = tree(lambda t: t.detach().requires_grad_(), hx)
    got, want = mine(x, hx), oracle(x64, hx64)
    close(got, want, "value")
    with torch.no_grad():
        close(mine(x, hx), want, "value", "inference")
    w = [torch.randn_like(t) for t in flat(want)]
    inputs, inputs64 = [x, *flat(hx), *mine.parameters()], [x64, *flat(hx64), *oracle.parameters()]
    if "relu" in cell_name and x.dtype in (torch.bfloat16, torch.float16):
        with through_reference():  # relu's derivative jumps where rounding moves h across 0
            want, inputs64 = mine(x, hx), inputs
    ours, theirs = grads(got, inputs, w), grads(want, inputs64, w)
    if hx is None:  # torch multiplies zeros into the recurrent weight's gradient
        theirs = [torch.zeros_like(i) if g is None else g for g, i in zip(theirs, inputs64, strict=True)]
    close(ours, theirs, "grad", "gradient")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [s[:3] for s in SHAPES], ids=str)
@pytest.mark.parametrize("cell_name", CELLS)
def test_shapes(cell_name, shape, dtype):
    I, H, B = shape
    mine, oracle = pair(cell, cell_name, I, H, dtype)
    x = torch.randn(B, I).to(dtype)
    compare(cell_name, mine, oracle, x, state(cell_name, H, B, dtype))
    compare(cell_name, mine, oracle, x)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell_name", CELLS)
def test_options(cell_name, bias):
    mine, oracle = pair(cell, cell_name, 7, 33, torch.float32, bias=bias)
    compare(cell_name, mine, oracle, torch.randn(5, 7), state(cell_name, 33, 5, torch.float32))
    one = tree(lambda s: s[0], state(cell_name, 33, 1, torch.float32))
    compare(cell_name, mine, oracle, torch.randn(7), one)
    compare(cell_name, mine, oracle, torch.randn(7))
    compare(cell_name, mine, oracle, torch.randn(0, 7), state(cell_name, 33, 0, torch.float32))


@pytest.mark.parametrize("cell_name", CELLS)
def test_a_chain_of_steps(cell_name):
    """Ten steps by hand, backward through all of them: the weights' gradients add up over the calls."""
    mine, oracle = pair(cell, cell_name, 7, 9)
    x = torch.randn(10, 3, 7, dtype=torch.float64)
    for m in (mine, oracle):
        hx, total = None, 0
        for t in range(10):
            hx = m(x[t], hx)
            total = total + flat(hx)[0].square().sum()
        total.backward()
    close([p.grad for p in mine.parameters()], [p.grad for p in oracle.parameters()], "grad")


@pytest.mark.parametrize("cell_name", CELLS)
def test_memory_layouts(cell_name):
    m = cell(cell_name, 7, 9)
    x, hx = torch.randn(3, 7), state(cell_name, 9, 3, torch.float32)
    want = m(x, hx)
    for put in (
        lambda t: t.t().contiguous().t(),
        lambda t: t.new_zeros(t.shape[0], 2 * t.shape[1])[:, ::2].copy_(t),
        lambda t: t.new_zeros(t.shape[0], t.shape[1] + 3)[:, 1:-2].copy_(t),
    ):
        got = m(put(x), tree(put, hx))
        assert all(torch.equal(a, b) for a, b in zip(flat(got), flat(want), strict=True))


@pytest.mark.parametrize("cell_name", CELLS)
def test_same_bits_twice(cell_name):
    m = cell(cell_name, 41, 33)
    x, hx = torch.randn(13, 41, requires_grad=True), state(cell_name, 33, 13, torch.float32)
    runs = []
    for _ in range(3):
        out = flat(m(x, hx))
        runs.append([*out, *torch.autograd.grad(sum(o.sum() for o in out), [x, *m.parameters()])])
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(flat(m(x, hx)), runs[0][: len(out)], strict=True))
    for again in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], again, strict=True))


@pytest.mark.parametrize("cell_name", CELLS)
def test_gradient_subsets(cell_name):
    m = cell(cell_name, 7, 9)
    x, hx = torch.randn(3, 7), state(cell_name, 9, 3, torch.float32)
    inputs = [x, *flat(hx), *m.parameters()]

    def run():
        return sum((o * (i + 1)).sum() for i, o in enumerate(flat(m(x, hx))))

    for t in inputs:
        t.requires_grad_()
    full = torch.autograd.grad(run(), inputs)
    for i, t in enumerate(inputs):
        assert torch.equal(torch.autograd.grad(run(), t)[0], full[i])
        for j, other in enumerate(inputs):
            other.requires_grad_(i == j)
        assert torch.equal(torch.autograd.grad(run(), t)[0], full[i])
        for other in inputs:
            other.requires_grad_()


@pytest.mark.parametrize("which", [0, 1])
def test_gradient_of_h_or_c_alone(which):
    mine, oracle = pair(cell, "LSTMCell", 7, 9)
    x = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    got, want = mine(x)[which], oracle(x)[which]
    w = torch.randn_like(want)
    ours = grads(got, [x, *mine.parameters()], [w])
    theirs = grads(want, [x, *oracle.parameters()], [w])
    close(ours, [torch.zeros_like(o) if g is None else g for g, o in zip(theirs, ours, strict=True)], "grad")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("cell_name", CELLS)
def test_nan_and_inf_travel_as_in_torch(cell_name, value):
    mine, oracle = pair(cell, cell_name, 7, 33, torch.float32)
    x = torch.randn(5, 7)
    x[2, 4] = value
    for a, b in zip(flat(mine(x)), flat(oracle.float()(x)), strict=True):
        assert torch.allclose(a, b, atol=TOLERANCE[torch.float32, "value"], equal_nan=True)


@pytest.mark.parametrize("B", [5, 20])
@pytest.mark.parametrize("cell_name", CELLS)
def test_gradients_pass_nan_as_in_torch(cell_name, B):
    """A ReLU whose output is NaN passes its gradient on, so that the one by x is finite."""
    mine, oracle = pair(cell, cell_name, 7, 19)
    x = torch.randn(B, 7, dtype=torch.float64)
    x[2, 4] = torch.nan
    x.requires_grad_()
    w = [torch.randn(B, 19, dtype=torch.float64) for _ in flat(mine(x))]
    got, want = (grads(flat(m(x)), [x, *m.parameters()], w) for m in (mine, oracle))
    assert want[0].isfinite().all() == (cell_name == "RNNCell_relu")
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a.isnan(), b.isnan())
        close(a.nan_to_num(), b.nan_to_num(), "grad")


@pytest.mark.parametrize("cell_name", CELLS)
def test_training_saves_no_more_than_torch(cell_name, saved_bytes):
    mine, oracle = pair(cell, cell_name, 24, 32, torch.float32)
    x, hx = torch.randn(8, 24), state(cell_name, 32, 8, torch.float32)
    oracle = oracle.float()
    ours = saved_bytes(lambda: mine(x, hx), (x, *flat(hx), *mine.parameters()))
    theirs = saved_bytes(lambda: oracle(x, hx), (x, *flat(hx), *oracle.parameters()))
    assert ours <= theirs, f"{ours} bytes saved, torch {theirs}"
