"""Gradients, and gradients of gradients, in float64: the kernels' own backward, and what create_graph=True
runs."""

import fusegen
import pytest
import torch
from cases import CELL_NAMES, CELLS, cell, flat, hidden, label, layer, options_of, pair
from tolerances import close
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence

LAYERS = [(k, o) for k in CELL_NAMES for o in options_of(k)]


def closed(m, cell_name, lengths=None):
    """m as a function of all its tensors, and names for the parameters."""
    names = [n for n, _ in m.named_parameters()]

    def run(x, *rest):
        states, params = rest[: -len(names)], rest[-len(names) :]
        hx = None if not states else states if "LSTM" in cell_name else states[0]
        more = {} if lengths is None else {"lengths": lengths}
        return tuple(flat(functional_call(m, dict(zip(names, params, strict=True)), (x, hx), more)))

    return run


def tensors(m, x, hx):
    return [t.detach().clone().requires_grad_() for t in (x, *flat(hx), *m.parameters())]


@pytest.mark.parametrize(
    ("cell_name", "options"), LAYERS, ids=lambda v: v if isinstance(v, str) else label(v)
)
def test_gradcheck_layers(cell_name, options):
    options = dict(options, proj_size=2) if "proj_size" in options else options
    m = layer(cell_name, 3, 4, dtype=torch.float64, **options)
    x = torch.randn(2, 3, 3, dtype=torch.float64)
    B = 2 if m.batch_first else 3
    assert gradcheck(closed(m, cell_name), tensors(m, x, hidden(cell_name, m, B)), fast_mode=True)
    assert gradcheck(
        closed(m, cell_name, [2, 0, 1][:B]), tensors(m, x, hidden(cell_name, m, B)), fast_mode=True
    )


@pytest.mark.parametrize(
    ("cell_name", "options"), LAYERS, ids=lambda v: v if isinstance(v, str) else label(v)
)
def test_gradgradcheck_layers(cell_name, options):
    options = dict(options, proj_size=2) if "proj_size" in options else options
    m = layer(cell_name, 2, 3, dtype=torch.float64, **options)
    x = torch.randn(2, 3, 2, dtype=torch.float64)
    B = 2 if m.batch_first else 3
    assert gradgradcheck(closed(m, cell_name), tensors(m, x, hidden(cell_name, m, B)), fast_mode=True)
    assert gradgradcheck(
        closed(m, cell_name, [2, 0, 1][:B]), tensors(m, x, hidden(cell_name, m, B)), fast_mode=True
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell_name", CELLS)
def test_cells(cell_name, bias):
    m = cell(cell_name, 2, 3, bias=bias, dtype=torch.float64)
    x, h = torch.randn(2, 2, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    hx = (h, h.flip(0)) if cell_name == "LSTMCell" else h
    for state in (hx, None):
        assert gradcheck(closed(m, cell_name), tensors(m, x, state), fast_mode=True)
        assert gradgradcheck(closed(m, cell_name), tensors(m, x, state), fast_mode=True)


def penalty(m, x):
    """A gradient penalty, as GANs use it: the loss holds the gradient, and is differentiated again."""
    x = x.detach().requires_grad_()
    out = flat(m(x))
    (g,) = torch.autograd.grad(sum(o.sum() for o in out), x, create_graph=True)
    assert g.requires_grad, "the gradient is not differentiable: the penalty would have no effect"
    (((g.square().sum((0, 2)) + 1e-3).sqrt() - 1).square().mean() + out[0].square().mean()).backward()
    return [p.grad for p in m.parameters()]


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "bias": False}], ids=label)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_gradient_penalty_equals_torch(cell_name, options):
    mine, oracle = pair(layer, cell_name, 5, 7, **options)
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    close(penalty(mine, x), penalty(oracle, x), "grad")


@pytest.mark.parametrize("cell_name", CELLS)
def test_cell_gradient_penalty_equals_torch(cell_name):
    mine, oracle = pair(cell, cell_name, 5, 7)
    x = torch.randn(1, 3, 5, dtype=torch.float64)
    chain = [torch.nn.Sequential(Unsqueezed(m)) for m in (mine, oracle)]
    close(penalty(chain[0], x), penalty(chain[1], x), "grad")


class Unsqueezed(torch.nn.Module):
    """A cell on a sequence of one step, twice, so that the state matters."""

    def __init__(self, m):
        super().__init__()
        self.m = m

    def forward(self, x):
        hx = self.m(x[0], self.m(x[0].flip(0)))
        return flat(hx)[0].unsqueeze(0)


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_inputs_computed_from_each_other(cell_name):
    """h_0 made from x: the derivative for x inside the op must be the partial one."""
    mine, oracle = pair(layer, cell_name, 4, 4)
    x = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)

    def second(m):
        h = torch.tanh(x[:1])
        out = flat(m(x, (h, h * 2) if cell_name == "LSTM" else h))
        (g,) = torch.autograd.grad(sum(o.square().sum() for o in out), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), [x, *m.parameters()])

    close(second(mine), second(oracle), "grad")


@pytest.mark.parametrize("cell_name", ["LSTM", "GRU"])
def test_third_order(cell_name):
    mine, oracle = pair(layer, cell_name, 3, 4)
    x = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)

    def third(m):
        g = m(x)[0].pow(3).sum()
        for _ in range(3):
            (g,) = torch.autograd.grad(g.square().sum(), x, create_graph=True)
        return g

    close(third(mine), third(oracle), "grad")


def test_visible(capfd, monkeypatch):
    """FUSEGEN_VERBOSE=1 says that the formula runs; it is counted either way; plain backward does not run
    it."""
    m, x = layer("GRU", 3, 4), torch.randn(2, 2, 3, requires_grad=True)
    notes = fusegen._backend.fallbacks
    before = notes.total()
    m(x)[0].sum().backward(retain_graph=True)
    assert notes.total() == before
    torch.autograd.grad(m(x)[0].sum(), x, create_graph=True)
    assert notes.total() == before + 1
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("FUSEGEN_VERBOSE", "1")
    torch.autograd.grad(m(x)[0].sum(), x, create_graph=True)
    assert "gru under create_graph=True: the differentiable reference formula runs" in capfd.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cell_name", ["LSTM", "GRU", "RNN_TANH"])
def test_first_order_under_create_graph_agrees(cell_name, dtype):
    """The formula gives the gradient that the kernels give."""
    m = layer(cell_name, 7, 9, bidirectional=True, dtype=dtype)
    x = torch.randn(4, 3, 7).to(dtype).requires_grad_()
    y = m(x, lengths=[4, 2, 0])[0]
    w = torch.randn(y.shape).to(dtype)
    plain = torch.autograd.grad(y, [x, *m.parameters()], w, retain_graph=True)
    graph = torch.autograd.grad(y, [x, *m.parameters()], w, create_graph=True)
    close(plain, graph, "grad")


@pytest.mark.parametrize("cell_name", [*CELL_NAMES, *CELLS])
def test_forward_over_backward(cell_name):
    """The tangent of the gradient that comes in reaches those that go out."""
    make = cell if cell_name in CELLS else layer
    mine, oracle = pair(make, cell_name, 3, 4)
    x = torch.randn(*([2, 3] if make is cell else [4, 2, 3]), dtype=torch.float64, requires_grad=True)
    v, t = (torch.randn_like(flat(oracle(x))[0]) for _ in range(2))
    tangents = []
    for m in (mine, oracle):
        y, inputs = flat(m(x))[0], [x, m.weight_hh if make is cell else m.weight_hh_l0]
        with forward_ad.dual_level():
            got = torch.autograd.grad(y, inputs, forward_ad.make_dual(v, t), allow_unused=True)
            tangents.append([forward_ad.unpack_dual(g).tangent for g in got])
    assert tangents[0][0] is not None
    close(tangents[0][:1], tangents[1][:1], "grad")
    if make is layer:
        close(tangents[0][1], tangents[1][1], "grad")


@pytest.mark.parametrize("lengths", [None, [4, 0]], ids=str)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_batched_backward(cell_name, lengths):
    """is_grads_batched, jacobian(vectorize=True), vmap over grad: as one by one, visibly by the formula."""
    m = layer(cell_name, 3, 4, bidirectional=True, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian

    def run(x):
        return m(x, lengths=lengths)[0]

    before = fusegen._backend.fallbacks.total()
    close(jacobian(run, x, vectorize=True), jacobian(run, x), "grad")
    assert fusegen._backend.fallbacks.total() == before + 1
    y, leaves = run(x.requires_grad_()), [x, *m.parameters()]
    w = torch.randn(5, *y.shape, dtype=torch.float64)
    want = [torch.stack(g) for g in zip(*(backward_of(y, leaves, v) for v in w), strict=True)]
    close(torch.autograd.grad(y, leaves, w, is_grads_batched=True, retain_graph=True), want, "grad")
    close(torch.func.vmap(lambda v: backward_of(y, leaves, v))(w), want, "grad")


def backward_of(y, leaves, v):
    return torch.autograd.grad(y, leaves, v, retain_graph=True)


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_batched_backward_of_packed(cell_name):
    m = layer(cell_name, 3, 4, dtype=torch.float64)
    p = pack_padded_sequence(torch.randn(4, 2, 3, dtype=torch.float64), [4, 2])
    jacobian = torch.autograd.functional.jacobian

    def run(data):
        return m(p._replace(data=data))[0].data

    close(jacobian(run, p.data, vectorize=True), jacobian(run, p.data), "grad")


@pytest.mark.parametrize("cell_name", CELLS)
def test_batched_backward_of_cells(cell_name):
    m, x = cell(cell_name, 3, 4, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian

    def run(x):
        return flat(m(x))[0]

    close(jacobian(run, x, vectorize=True), jacobian(run, x), "grad")
