"""torch.ops.fusegen: registration (opcheck), functional forms, autocast, transforms, tracing, who else is
watching."""

import itertools
import os
import subprocess
import sys
import warnings

import fusegen
import pytest
import torch
from cases import CELL_NAMES, CELLS, cell, flat, layer, tree
from fusegen import ops, reference
from fusegen.ops import torch_path
from tolerances import close
from torch.library import opcheck

T, B, I, H, P = 4, 3, 5, 6, 2
OPS = torch.ops.fusegen


def weights_of(cell, D=1, bias=True, proj=False, dtype=torch.float32):
    G, out = {"lstm": 4, "gru": 3, "rnn": 1}[cell], []
    for _ in range(D):
        shapes = [(G * H, I), (G * H, P if proj else H), *([(G * H,)] * 2 if bias else [None, None])]
        shapes += [(P, H) if proj else None] if cell == "lstm" else []
        out += [None if s is None else (torch.randn(s) * 0.3).to(dtype) for s in shapes]
    return out


def sample(cell, **more):
    """(x, states, weights) for the sequence op of a cell."""
    w = weights_of(cell, **more)
    D = more.get("D", 1)
    h = torch.randn(D, B, w[1].shape[1])
    states = (h, torch.randn(D, B, H)) if cell == "lstm" else (h,)
    return torch.randn(T, B, I), states, w


def grad(t):
    return tree(lambda s: s.detach().requires_grad_(), t)


@pytest.mark.parametrize("lengths", [None, [4, 0, 2]], ids=str)
@pytest.mark.parametrize("more", [{}, {"D": 2, "bias": False}], ids=str)
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_opcheck_sequences(name, more, lengths):
    x, states, w = sample(name, **more)
    lengths = None if lengths is None else torch.tensor(lengths)
    relu = (True,) if name == "rnn" else ()
    args = (x, *states, w, *relu, lengths)
    opcheck(getattr(OPS, name).default, args)
    opcheck(getattr(OPS, name).default, (*grad((x, *states)), list(grad(w)), *relu, lengths))
    opcheck(getattr(OPS, name).default, (x, *(None for _ in states), w, *relu))
    if name == "rnn":
        y, _ = OPS.rnn(*args)
        saved = (y,)
    else:
        opcheck(getattr(OPS, f"{name}_train").default, args)
        y, *_ = out = getattr(OPS, f"{name}_train")(*args)
        saved = (y, *out[1 + len(states) :])
    given = (torch.randn_like(y), *(torch.randn_like(s) for s in states))
    n = 1 + len(states) + len(w)
    order = (*relu, lengths)
    for wanted in ([t is not None for t in (x, *states, *w)], [i == 1 for i in range(n)]):
        opcheck(getattr(OPS, f"{name}_backward").default, (*given, x, *states, w, *order, *saved, wanted))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_opcheck_cells(name, dtype):
    w = weights_of(name, dtype=dtype)[:4]
    x, h = torch.randn(B, I, dtype=dtype), torch.randn(B, H, dtype=dtype)
    states = (h, torch.randn(B, H, dtype=dtype)) if name == "lstm" else (h,)
    relu = (True,) if name == "rnn" else ()
    opcheck(getattr(OPS, f"{name}_cell").default, (x, *states, w, *relu))
    opcheck(getattr(OPS, f"{name}_cell").default, (*grad((x, *states)), list(grad(w)), *relu))
    if name == "rnn":
        saved = (OPS.rnn_cell(x, *states, w, True),)
    else:
        opcheck(getattr(OPS, f"{name}_cell_train").default, (x, *states, w))
        out = getattr(OPS, f"{name}_cell_train")(x, *states, w)
        saved = out[len(states) :]
    given = [torch.randn_like(s) for s in states]
    wanted = [True] * (1 + len(states) + len(w))
    opcheck(getattr(OPS, f"{name}_cell_backward").default, (*given, x, *states, w, *relu, *saved, wanted))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *itertools.product(["lstm", "gru", "rnn"], [{}, {"D": 2}, {"bias": False}]),
        ("lstm", {"proj": True, "D": 2}),
    ],
    ids=str,
)
def test_functional_forms(name, more):
    x, states, w = sample(name, **more)
    extra = {"relu": True} if name == "rnn" else {}
    for lengths in (None, [4, 0, 2]):
        got = getattr(ops, name)(x, *states, w, lengths, **extra)
        at = None if lengths is None else torch.tensor(lengths)
        close(got, getattr(reference, name)(x, *states, w, at, **extra), "value")
        close(getattr(OPS, name)(x, *states, w, *extra.values(), at), got, "value")
    cells = [s[0] for s in states]
    if not more:
        step = getattr(ops, f"{name}_cell")(x[0], *cells, w[:4], **extra)
        close(step, getattr(reference, f"{name}_cell")(x[0], *cells, w[:4], **extra), "value")


@pytest.mark.parametrize("backend", ["fused", "torch"])
@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("steps", [1, T])
def test_square_projection(steps, D, backend):
    """W_hr [H, H] is a projection as any other."""
    fusegen.set_backend(backend)
    x, states, w = sample("lstm", D=D)
    x, w[4::5] = x[:steps], [torch.randn(H, H) * 0.3 for _ in range(D)]
    leaves = grad((x, *states, *w))
    call, rest = (leaves[0], *leaves[1:3], list(leaves[3:])), list(leaves)
    for lengths in (None, torch.tensor([1, 0, 1])):
        got, want = ops.lstm(*call, lengths), reference.lstm(*call, lengths)
        close(got, want, "value")
        with torch.no_grad():
            close(ops.lstm(*call, lengths), want, "value")
        totals = [sum(t.sin().sum() for t in out) for out in (got, want)]
        close(*(torch.autograd.grad(t, rest) for t in totals), "grad")


@pytest.mark.parametrize("direct", [True, False], ids=["functional", "op"])
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_gradients_through_both_doors(name, direct):
    """torch.ops.fusegen is differentiable by itself, not only through fusegen.ops."""
    x, states, w = sample(name)
    x, *rest = grad((x, *states, *w))
    states, w = rest[: len(states)], rest[len(states) :]
    relu = {"relu": False} if name == "rnn" else {}
    call = getattr(ops if direct else OPS, name)
    given = (x, *states, w) if direct or not relu else (x, *states, w, False)
    y = call(*given, **(relu if direct else {}))[0]
    want = getattr(reference, name)(x, *states, w)[0]
    leaves = [t for t in (x, *states, *w) if t is not None]
    close(
        torch.autograd.grad(y.sin().sum(), leaves, allow_unused=True),
        torch.autograd.grad(want.sin().sum(), leaves, allow_unused=True),
        "grad",
    )


# ---------------------------------------------------------------- autocast


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_autocast_layers(cell_name, dtype):
    """Computed in the autocast dtype, gradients in the parameters'; tests/nn/test_autocast.py has the dtypes
    of what comes out."""
    m, x = layer(cell_name, I, H, num_layers=2, bidirectional=True), torch.randn(T, B, I, requires_grad=True)
    low = layer(cell_name, I, H, num_layers=2, bidirectional=True, dtype=dtype)
    low.load_state_dict(m.state_dict())
    for train in (True, False):
        with torch.set_grad_enabled(train), torch.autocast("cpu", dtype=dtype):
            y, state = m(x)
        assert torch.equal(y.to(dtype), low(x.to(dtype))[0])
        if train:
            y.float().sum().backward()
            assert x.grad.dtype == torch.float32
            assert all(p.grad.dtype == torch.float32 for p in m.parameters())
    with torch.autocast("cpu", dtype=dtype):  # the state carried on
        again, _ = m(x, state)
        assert again.dtype == y.dtype
    with torch.autocast("cpu", dtype=dtype, enabled=False):
        assert m(x)[0].dtype == torch.float32


@pytest.mark.parametrize("cell_name", CELLS)
def test_autocast_cells(cell_name):
    m, x = cell(cell_name, I, H), torch.randn(B, I, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h, *c = flat(m(x))
        again = flat(m(x, (h, *c) if c else h))
    assert h.dtype == again[0].dtype
    h.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in m.parameters())


def test_autocast_leaves_float64_alone():
    m, x = layer("LSTM", I, H, dtype=torch.float64), torch.randn(T, B, I, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert m(x)[0].dtype == torch.float64


# ---------------------------------------------------------------- torch.func and forward mode


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_per_sample_gradients(cell_name):
    m, x = layer(cell_name, I, H), torch.randn(T, B, I)
    params = dict(m.named_parameters())

    def loss(params, one):
        return torch.func.functional_call(m, params, (one,))[0].square().sum()

    got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(params, x)
    for b in range(B):
        want = torch.autograd.grad(loss(params, x[:, b]), list(params.values()))
        close([g[b] for g in got.values()], want, "grad")


@pytest.mark.parametrize("cell_name", CELLS)
def test_vmap_over_weights(cell_name):
    """An ensemble: a batch of models, each with weights of its own."""
    models = [cell(cell_name, I, H) for _ in range(3)]
    params, _ = torch.func.stack_module_state(models)
    x = torch.randn(B, I)
    got = torch.func.vmap(lambda p: torch.func.functional_call(models[0], p, (x,)))(params)
    for i, m in enumerate(models):
        close(tree(lambda t, i=i: t[i], got), m(x), "value")


def test_jacobian_and_hessian():
    m = layer("LSTM", 2, 3, dtype=torch.float64)
    x = torch.randn(2, 2, dtype=torch.float64)
    rev, fwd = torch.func.jacrev(lambda x: m(x)[0])(x), torch.func.jacfwd(lambda x: m(x)[0])(x)
    close(rev, fwd, "value")
    close(rev, torch.autograd.functional.jacobian(lambda x: m(x)[0], x), "value")
    close(
        torch.func.hessian(lambda x: m(x)[0].sum())(x),
        torch.autograd.functional.hessian(lambda x: m(x)[0].sum(), x),
        "value",
    )


def test_forward_mode_is_not_silently_zero():
    m = layer("GRU", 2, 3, dtype=torch.float64).requires_grad_(False)
    x, v = torch.randn(2, 2, 2, dtype=torch.float64), torch.randn(2, 2, 2, dtype=torch.float64)
    _, want = torch.autograd.functional.jvp(lambda x: m(x)[0], x, v)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, v)
        got = torch.autograd.forward_ad.unpack_dual(m(dual)[0]).tangent
    close(got, want, "value")


# ---------------------------------------------------------------- the default device


def test_default_device():
    """Inside ``with torch.device(other)`` calls on CPU tensors work, as torch.nn's do."""
    m, x, p = layer("GRU", I, H), torch.randn(T, B, I), torch.nn.utils.rnn.pack_padded_sequence
    packed = p(torch.randn(T, B, I), [4, 2, 1])
    D = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    real, fake = torch.randn(5, 3), torch.randn(5, 3)

    def calls():
        out = [*flat(m(x)), *flat(m(x, lengths=[4, 2, 0])), m(packed)[0].data]
        with torch.no_grad(), fusegen.frozen(m):
            out += flat(m(x))
        step = fusegen.gan.discriminator_step(D, real, fake, r1=1.0)
        assert step.path == "fused_mlp"
        return [*out, step.loss, *torch.autograd.grad(step.loss, list(D.parameters()))]

    want = calls()
    with torch.device("meta"):
        got = calls()
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


# ---------------------------------------------------------------- tracing, profiling, hooks


@pytest.mark.parametrize("make", [layer, cell])
def test_profiler_sees_the_op(make):
    m, x = make("GRU" if make is layer else "GRUCell", I, H), torch.randn(B, I)
    with torch.profiler.profile() as prof:
        m(x)
        flat(m(x))[0].sum().backward()
    names = {e.key for e in prof.key_averages()}
    assert any(n.startswith("fusegen::gru") and "train" in n for n in names), names
    assert any(n.startswith("fusegen::gru") and "backward" in n for n in names), names


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_jit_trace_records_torch_ops(cell_name):
    """As torch.nn does; TorchScript has no lists of optional tensors."""
    m, x = layer(cell_name, I, H), torch.randn(T, B, I)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(m, x, check_trace=False)
    other = torch.randn(T, B, I)
    close(traced(other), m(other), "value")


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_activation_checkpointing(cell_name):
    from torch.utils.checkpoint import checkpoint

    m, x = layer(cell_name, I, H), torch.randn(T, B, I, requires_grad=True)
    want = torch.autograd.grad(m(x)[0].sum(), [x, *m.parameters()])
    got = torch.autograd.grad(
        checkpoint(lambda x: m(x)[0], x, use_reentrant=False).sum(), [x, *m.parameters()]
    )
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def clear_some(y):
    y[-1, 1] = 0


CHANGES = (lambda y: y.mul_(2), clear_some, lambda y: y[1:].tanh_(), torch.nn.Dropout(0.5, inplace=True))


@pytest.mark.parametrize("change", CHANGES, ids=["mul_", "index", "view", "Dropout"])
@pytest.mark.parametrize("lengths", [None, [4, 0, 2]], ids=str)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_changed_outputs_of_layers(cell_name, lengths, change):
    """As with torch.nn, y may be changed in place; without a copy of it: backward makes it again, visibly."""
    m, x = layer(cell_name, I, H, bidirectional=True, dtype=torch.float64), torch.randn(T, B, I).double()
    leaves = [x.requires_grad_(), *m.parameters()]

    def run(copied):
        torch.manual_seed(3)
        y = m(x, lengths=lengths)[0]
        y = y.clone() if copied else y
        change(y)
        return torch.autograd.grad(y.sin().sum(), leaves)

    before = fusegen._backend.fallbacks.total()
    want = run(True)
    assert fusegen._backend.fallbacks.total() == before
    close(run(False), want, "grad")
    assert fusegen._backend.fallbacks.total() == before + 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = m.float()(x.float())[0]
        change(y)
    y.float().sum().backward()


def test_changed_output_is_not_kept():
    """Backward frees what was saved of y, in the graph and beside it."""
    m, x = layer("GRU", I, H), torch.randn(T, B, I)
    y = m(x)[0]
    loss, pointer = y.sum(), torch.multiprocessing.reductions.StorageWeakRef(y.untyped_storage())
    loss.backward()
    assert not pointer.expired()
    del y
    assert pointer.expired()
    assert loss.grad_fn is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cell_name", ["LSTMCell", "GRUCell"])
def test_changed_outputs_of_cells(cell_name, dtype):
    """h and c of finished episodes are cleared in place."""
    m, x = cell(cell_name, I, H, dtype=dtype), torch.randn(B, I).to(dtype)
    done = torch.tensor([True, False, True])

    def run(copied):
        out = flat(m(x, tuple(flat(m(x))) if cell_name == "LSTMCell" else m(x)))
        out = [t.clone() if copied else t for t in out]
        for t in out:
            t[done] = 0
        return torch.autograd.grad(sum(t.sin().sum() for t in out), list(m.parameters()))

    assert all(torch.equal(a, b) for a, b in zip(run(False), run(True), strict=True))


# ---------------------------------------------------------------- the backend choice


@pytest.mark.parametrize("lengths", [None, [4, 0, 2]], ids=str)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_torch_backend_layers(cell_name, lengths):
    more = {"proj_size": 2} if cell_name == "LSTM" else {}
    m = layer(cell_name, I, H, num_layers=2, bidirectional=True, batch_first=True, **more)
    x = torch.randn(B, T, I, requires_grad=True)
    want = m(x, lengths=lengths)
    fusegen.set_backend("torch")
    got = m(x, lengths=lengths)
    close(got, want, "value")
    leaves = [x, *m.parameters()]
    close(
        torch.autograd.grad(got[0].sin().sum(), leaves),
        torch.autograd.grad(want[0].sin().sum(), leaves),
        "grad",
    )
    p = torch.nn.utils.rnn.pack_padded_sequence(x, [4, 2, 2], batch_first=True)
    close(
        m(p)[0].data,
        m(x, lengths=[4, 2, 2])[0].transpose(0, 1)[[0, 0, 0, 1, 1, 1, 2, 3], [0, 1, 2, 0, 1, 2, 0, 0]],
        "value",
    )


@pytest.mark.parametrize("cell_name", CELLS)
def test_torch_backend_cells(cell_name):
    m, x = cell(cell_name, I, H), torch.randn(B, I)
    want = m(x)
    fusegen.set_backend("torch")
    close(m(x), want, "value")


@pytest.mark.parametrize("absent", [(3,), (2,), (6, 7), (2, 7)], ids=str)
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_torch_backend_without_some_biases(name, absent):
    x, states, w = sample(name, D=2)
    per = len(w) // 2
    for i in absent:
        w[i + (per - 4) * (i >= 4)] = None
    one, two = (None if s is None else s[0] for s in (*states, None)[:2])
    results = []
    for backend in ("fused", "torch"):
        fusegen.set_backend(backend)
        step = getattr(ops, f"{name}_cell")(x[0], *(one, two)[: len(states)], w[:4])
        results.append((getattr(ops, name)(x, *states, w, [4, 0, 2]), step))
    close(*results, "value")


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_torch_backend_on_an_empty_batch(cell_name):
    fusegen.set_backend("torch")
    m = layer(cell_name, I, H, bidirectional=True)
    for lengths in (None, []):
        y, state = m(torch.randn(T, 0, I), lengths=lengths)
        assert y.shape == (T, 0, 2 * H)
        assert all(s.shape == (2, 0, H) for s in flat(state))


def test_set_backend():
    for name in ("auto", "fused", "torch"):
        fusegen.set_backend(name)
        assert fusegen.get_backend() == name
    with pytest.raises(ValueError, match="expected one of auto, fused, torch, got 'cuda'"):
        fusegen.set_backend("cuda")


def test_auto_follows_the_table(monkeypatch):
    from fusegen import _choice

    rule = _choice.Rule("cpu", "gru", "float32", False, H=(1, 64), B=(1, 8), T=(1, 100), source="a test")
    monkeypatch.setattr(_choice, "RULES", (rule,))
    seen = []
    monkeypatch.setattr(torch_path, "layers", lambda *a: seen.append(a[0]) or (a[1], a[1]))
    fusegen.set_backend("auto")
    m = layer("GRU", I, H)
    with torch.no_grad():
        m(torch.randn(T, B, I))
        assert seen == ["gru"]
        m(torch.randn(T, 9, I))
        layer("LSTM", I, H)(torch.randn(T, B, I))
        m.double()(torch.randn(T, B, I).double())
        m.float()
    m(torch.randn(T, B, I))  # a training call
    assert seen == ["gru"]


def test_device_without_kernels(monkeypatch):
    """auto: torch's own operators, counted; fused: an error that says so."""
    monkeypatch.setattr(fusegen._backend, "FUSED_DEVICES", ("cpu",))
    modules = [layer(k, I, H, device="meta") for k in CELL_NAMES] + [
        cell(k, I, H, device="meta") for k in CELLS
    ]
    x = {3: torch.randn(T, B, I, device="meta"), 2: torch.randn(B, I, device="meta")}
    for m in modules:
        given = x[3 if isinstance(m, torch.nn.RNNBase) else 2]
        fusegen.set_backend("auto")
        before = fusegen._backend.fallbacks.total()
        assert flat(m(given))[0].is_meta
        assert fusegen._backend.fallbacks.total() == before + 1
        fusegen.set_backend("fused")
        with pytest.raises(RuntimeError, match="this build has no fused kernels for device 'meta'"):
            m(given)


def test_backend_from_the_environment():
    code = "import fusegen; print(fusegen.get_backend())"
    for value, want in (("torch", "torch"), ("cuda", None)):
        run = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "FUSEGEN_BACKEND": value},
        )
        if want is None:
            assert "FUSEGEN_BACKEND: expected one of auto, fused, torch, got 'cuda'" in run.stderr
        else:
            assert run.stdout.strip() == want
