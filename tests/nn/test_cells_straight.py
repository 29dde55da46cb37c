"""Cells in plain use go straight to the engine; who looks on, records or differentiates is still served."""

import warnings
from contextlib import nullcontext

import fusegen
import pytest
import torch
from cases import CELLS, cell, flat
from fusegen.ops import cells
from tolerances import agree
from torch import nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

I, H, B = 7, 33, 3


@pytest.fixture
def went_on(monkeypatch):
    """The ops whose steps took the general way."""
    seen, own = [], cells.run
    monkeypatch.setattr(cells, "run", lambda op, *a, **k: seen.append(op.name) or own(op, *a, **k))
    return seen


def made(cell_name):
    state = torch.randn(B, H)
    hx = (state, torch.randn(B, H)) if cell_name == "LSTMCell" else state
    return cell(cell_name, I, H).requires_grad_(False), torch.randn(B, I), hx


@pytest.mark.parametrize("backend", ["fused", "auto"])
@pytest.mark.parametrize("cell_name", CELLS)
def test_plain_use_goes_straight(cell_name, backend, went_on, monkeypatch):
    m, x, hx = made(cell_name)
    monkeypatch.setattr(fusegen._choice, "RULES", ())
    fusegen.set_backend(backend)
    with monkeypatch.context() as patched:
        patched.setattr(cells, "straight", lambda *a: None)
        want = [m(x, hx), m(x)]
    assert len(went_on) == 2
    went_on.clear()
    contexts = (nullcontext, torch.no_grad, torch.inference_mode)
    for context in contexts:
        with context():
            for got, wanted in zip([m(x, hx), m(x)], want, strict=True):
                assert all(map(torch.equal, flat(got), flat(wanted)))
    m.requires_grad_()
    with torch.no_grad():
        m(x, hx), m(x[:, :].expand(B, I), hx), m(torch.randn(2 * B, I)[::2], hx)
    assert not went_on


class Sub(torch.Tensor):
    pass


class Watching(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def under(context):
    def call(m, x, hx):
        with context:
            return m(x, hx)

    return call


def traced(m, x, hx):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        return torch.jit.trace(m, (x, hx), check_trace=False)(x, hx)


def forward_mode(m, x, hx):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        out = m(dual, hx)
        tangents = [forward_ad.unpack_dual(t).tangent for t in flat(out)]
        assert all(t is not None and bool(t.any()) for t in tangents)
        return out


def with_gradient(m, x, hx):
    out = m(x.clone().requires_grad_(), hx)
    assert all(t.requires_grad for t in flat(out))
    return out


def on_torch(m, x, hx):
    fusegen.set_backend("torch")
    return m(x, hx)


def each_row(m, x, hx):
    return torch.vmap(m)(x, hx)


def negative_view(m, x, hx):
    view = torch._neg_view(-x)
    assert view.is_neg()
    return m(view, hx)


def differentiated(m, x, hx):
    def loss(x):
        out = m(x, hx)
        return flat(out)[0].sum(), out

    gradient, out = torch.func.grad(loss, has_aux=True)(x)
    assert bool(gradient.any())
    return out


def frozen(m, x, hx):
    with fusegen.frozen(m):
        return m(x, hx)


GENERAL = {
    "gradient": with_gradient,
    "subclass": lambda m, x, hx: m(x.as_subclass(Sub), hx),
    "dispatch mode": under(Watching()),
    "autocast": under(torch.autocast("cpu", dtype=torch.bfloat16)),
    "vmap": each_row,
    "torch.func.grad": differentiated,
    "forward mode": forward_mode,
    "torch.jit.trace": traced,
    "torch's backend": on_torch,
    "frozen": frozen,
    "negative view": negative_view,
    "a row alone": lambda m, x, hx: m(x[0], tuple(s[0] for s in hx) if isinstance(hx, tuple) else hx[0]),
    "columns apart": lambda m, x, hx: m(torch.stack((x, x), -1)[..., 0], hx),
}


@pytest.mark.parametrize("who", GENERAL)
@pytest.mark.parametrize("cell_name", CELLS)
def test_all_else_takes_the_general_way(cell_name, who, went_on):
    m, x, hx = made(cell_name)
    want = m(x, hx)
    assert not went_on
    got = GENERAL[who](m, x, hx)
    assert went_on
    if who == "a row alone":
        want = tuple(s[0] for s in want) if isinstance(want, tuple) else want[0]
    # Under autocast all is computed in bfloat16, and c is float32 all the same.
    dtype = torch.bfloat16 if who == "autocast" else torch.float32
    for g, w in zip(flat(got), flat(want), strict=True):
        agree(torch.Tensor(g.detach()).to(dtype), w.to(dtype))


@pytest.mark.parametrize("cell_name", CELLS)
def test_compiled_cells_hold_the_op(cell_name):
    m, x, hx = made(cell_name)
    found = []

    def backend(graph, inputs):
        found.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    compiled = torch.compile(m, backend=backend, fullgraph=True)
    agree(flat(compiled(x, hx)), flat(m(x, hx)))
    name = f"fusegen.{m._op.name}"
    assert any(name in target for target in found), found


def test_hooks_run_on_the_straight_way(went_on):
    m, x, hx = made("GRUCell")
    seen = []
    m.register_forward_pre_hook(lambda m, args: seen.append("before"))
    m.register_forward_hook(lambda m, args, out: seen.append("after") or out * 2)
    y = m(x, hx)
    assert seen == ["before", "after"] and not went_on
    m._forward_hooks.clear()
    assert torch.equal(m(x, hx) * 2, y)


def test_weights_are_read_at_each_call(went_on):
    m, x, hx = made("LSTMCell")
    before = m(x, hx)
    m.weight_hh = nn.Parameter(torch.zeros(4 * H, H), requires_grad=False)
    assert not torch.equal(m(x, hx)[0], before[0])
    m.weight_hh = nn.Parameter(torch.randn(H, 4 * H).t(), requires_grad=False)  # columns apart
    assert not went_on
    agree(m(x, hx), cell_with(m)(x, hx))
    assert went_on


def cell_with(m):
    other = nn.LSTMCell(I, H).requires_grad_(False)
    other.load_state_dict(m.state_dict())
    return other


@pytest.mark.parametrize("x, hx", [(torch.randn(B, I + 1), None), (torch.randn(B, I), torch.randn(B + 1, H))])
def test_what_does_not_fit_is_refused_as_by_torch(x, hx):
    ours, theirs = fusegen.nn.GRUCell(I, H), nn.GRUCell(I, H)
    with torch.no_grad():
        with pytest.raises(RuntimeError) as want:
            theirs(x, hx)
        with pytest.raises(RuntimeError) as got:
            ours(x, hx)
    assert str(got.value).split(":")[0] == str(want.value).split(":")[0]
