"""torch.func's vmap and grad through the ops, on the fused kernels: gradients of each sample, ensembles, and
both nested, against loops."""

import fusegen
import pytest
import torch
from cases import CELL_NAMES, CELLS, DTYPES, LSTM_OPTIONS, OPTIONS, cell, flat, label, layer, tree
from fusegen import _C, _backend, ops
from fusegen.ops import layers
from fusegen.ops.transform import per_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import close
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap
from torch.nn.utils.rnn import pack_padded_sequence

T, N, I, H = 6, 5, 4, 7
TWICE = "differentiated twice"
WAYS = [(name, options) for name in CELL_NAMES for options in OPTIONS]
WAYS += [("LSTM", options) for options in LSTM_OPTIONS]


@pytest.fixture(autouse=True)
def noted():
    """The fallbacks that a test caused."""
    torch.manual_seed(0)
    _backend.fallbacks.clear()
    yield _backend.fallbacks
    _backend.fallbacks.clear()


def parameters(m):
    return {name: p.detach() for name, p in m.named_parameters()}


def weighing(out):
    """A loss of every output, in which no two elements weigh alike."""
    return sum(
        (t * torch.linspace(0.5, 1.5, t.numel(), dtype=t.dtype).view(t.shape)).sum() for t in flat(out)
    )


def looped(loss, params, *samples):
    """The gradient of each sample, one after the other."""
    given = {name: p.clone().requires_grad_() for name, p in params.items()}
    each = [
        torch.autograd.grad(loss(given, *own), list(given.values())) for own in zip(*samples, strict=True)
    ]
    return {name: torch.stack(of) for name, of in zip(given, zip(*each, strict=True), strict=True)}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "options"), WAYS, ids=lambda v: label(v) if isinstance(v, dict) else v)
def test_gradients_of_each_sample_are_a_loops(name, options, dtype, noted):
    options = {key: value for key, value in options.items() if key != "dropout"}
    m = layer(name, I, H, dtype=dtype, **options)
    x = torch.randn(N, T, I, dtype=dtype)

    def loss(params, one):
        return weighing(functional_call(m, params, (one,)))

    got = vmap(grad(loss), in_dims=(None, 0))(parameters(m), x)
    assert not noted
    want = looped(loss, parameters(m), x)
    close(list(got.values()), list(want.values()), "grad")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize(("name", "options"), WAYS, ids=lambda v: label(v) if isinstance(v, dict) else v)
def test_the_engines_products_are_torchs(name, options, groups, dtype):
    m = layer(name, I, H, dtype=dtype, **{**options, "num_layers": 1, "dropout": 0.0})
    op, weights, D = layers.OPS[m._spec], m._weights(0), 1 + m.bidirectional
    x, lengths = torch.randn(T, 6, I, dtype=dtype), torch.tensor([6, 0, 3, 1, 6, 2])
    x[3:, 2] = torch.nan  # past a sequence's end
    h = torch.randn(D, 6, m.proj_size or H, dtype=dtype)
    call = (x, h, None, weights, m.mode == "RNN_RELU", lengths, None)
    with torch.no_grad():
        outputs = op.forward_all(True, call[4], (x, h, None, *weights, lengths))
        kept = (*outputs[:1], *outputs[op.outputs :], None, None)[:3]
        grads = (torch.randn_like(outputs[0]), None, None)
        gates = op.direct.gate_gradients(call, kept, grads, (False,) * 3)
        given = per_sample.Sequences(m._spec, groups, x, h, weights, lengths, kept)
        wanted = [w is not None for w in weights]
        got, want = (f(given, gates, wanted) for f in (per_sample.by_engine, per_sample.by_torch))
    assert all(g.isfinite().all() for g in got)
    close(got, want, "grad")


def test_the_engine_refuses_groups_of_unequal_size():
    x, weights = torch.randn(2, 6, 3), [torch.randn(4, 3), torch.randn(4, 4), None, None]
    given = (x, None, weights, None, torch.randn(2, 6, 4), None, None, torch.randn(2, 6, 4), None)
    made = [torch.empty(4, *w.shape) if w is not None else None for w in weights]
    with pytest.raises(ValueError, match="groups: expected a divisor of the batch, 6, got 4"):
        _C.layer_group_gradients("rnn_tanh", 4, *given, made, 1)
    with pytest.raises(ValueError, match=r"dW: expected shape \[3, 4, 3\]"):
        _C.layer_group_gradients("rnn_tanh", 3, *given, made, 1)


@pytest.mark.parametrize("name", CELL_NAMES)
def test_compiled_as_one_graph(name):
    """By the formula, which a graph sees into."""
    m = layer(name, I, H, dtype=torch.float64)
    x = torch.randn(N, 3, I, dtype=torch.float64)

    def loss(params, one):
        return weighing(functional_call(m, params, (one,)))

    each = vmap(grad(loss), in_dims=(None, 0))
    torch._dynamo.reset()
    got = torch.compile(each, fullgraph=True, backend="aot_eager")(parameters(m), x)
    want = looped(loss, parameters(m), x)
    close([got[key] for key in want], [*want.values()], "grad")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_gradients_of_each_sample_of_a_cell(name, dtype, noted):
    m, x = cell(name, I, H, dtype=dtype), torch.randn(N, I, dtype=dtype)
    states = torch.randn(N, H, dtype=dtype)

    def loss(params, one, h):
        hx = (h, h * 0.5) if name == "LSTMCell" else h
        return weighing(functional_call(m, params, (one, hx)))

    got = vmap(grad(loss), in_dims=(None, 0, 0))(parameters(m), x, states)
    assert not noted
    close(list(got.values()), list(looped(loss, parameters(m), x, states).values()), "grad")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELL_NAMES)
def test_samples_of_several_sequences_with_lengths_and_states(name, reverse, noted):
    """A sample is a small batch; every sequence has a length of its own, 0 among them, NaN past its end."""
    B, D = 3, 2 if reverse else 1
    m = layer(name, I, H, bidirectional=reverse, dtype=torch.float64)
    x = torch.randn(N, T, B, I, dtype=torch.float64)
    lengths = torch.randint(1, T + 1, (N, B))
    lengths[0, 1] = 0
    past = torch.arange(T).view(1, T, 1) >= lengths.unsqueeze(1)
    x[past] = float("nan")
    h = torch.randn(N, D, B, H, dtype=torch.float64)

    def loss(params, states, one, own):
        hx = (states, states * 0.5) if name == "LSTM" else states
        return weighing(functional_call(m, params, (one, hx), {"lengths": own}))

    got, of_states = vmap(grad(loss, argnums=(0, 1)), in_dims=(None, 0, 0, 0))(parameters(m), h, x, lengths)
    assert not noted
    close(list(got.values()), list(looped(loss, parameters(m), h, x, lengths).values()), "grad")
    want = [
        torch.autograd.grad(loss(parameters(m), s, *o), s)
        for s, *o in zip(h.requires_grad_(), x, lengths, strict=True)
    ]
    close(of_states, torch.stack([w for (w,) in want]), "grad")


def test_what_is_shared_has_a_gradient_of_each_sample_too(noted):
    """h0 and x, mapped or not: the same of every sample, or each sample's own."""
    x, h = torch.randn(N, T, 1, I, dtype=torch.float64), torch.randn(1, 1, H, dtype=torch.float64)
    m = layer("GRU", I, H, dtype=torch.float64)

    def loss(h, one):
        return weighing(m(one, h))

    got = vmap(grad(loss), in_dims=(None, 0))(h, x)
    want = torch.stack([torch.autograd.grad(loss(h.requires_grad_(), one), h)[0] for one in x])
    close(got, want, "grad")
    hs, one = torch.randn(N, 1, 1, H, dtype=torch.float64), x[0]
    got = vmap(grad(lambda one, h: loss(h, one)), in_dims=(None, 0))(one, hs)
    close(got, torch.stack([torch.autograd.grad(loss(h, one.requires_grad_()), one)[0] for h in hs]), "grad")
    assert not noted


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_functional_forms(name, noted):
    G, states = {"lstm": 4, "gru": 3, "rnn": 1}[name], (None,) * (2 if name == "lstm" else 1)
    weights = [torch.randn(G * H, n, dtype=torch.float64) * 0.3 for n in (I, H)]
    rest = [None] * (3 if name == "lstm" else 2)
    x = torch.randn(T, N, 2, I, dtype=torch.float64)

    def loss(weights, one):
        return weighing(getattr(ops, name)(one, *states, [*weights, *rest]))

    got = vmap(grad(loss), in_dims=(None, 1))(weights, x)
    want = looped(
        lambda w, one: loss(list(w.values()), one), {str(i): w for i, w in enumerate(weights)}, x.unbind(1)
    )
    close(got, list(want.values()), "grad")
    assert not noted


@given(
    st.sampled_from(CELL_NAMES), st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(1, 20),
    st.integers(1, 40), st.booleans(), st.booleans(), st.integers(0, 2),
)  # fmt: skip
@settings(deadline=None, max_examples=30)
def test_any_shape(name, T, N, B, I, H, bias, both, dim):
    m = layer(name, I, H, bias=bias, bidirectional=both, dtype=torch.float64)
    x = torch.randn(N, T, B, I, dtype=torch.float64)

    def loss(params, one):
        return weighing(functional_call(m, params, (one,)))

    got = vmap(grad(loss), in_dims=(None, dim))(parameters(m), x.movedim(0, dim))
    close(list(got.values()), list(looped(loss, parameters(m), x).values()), "grad")


def test_one_backward_runs_for_all_samples(monkeypatch):
    calls = []
    run = _C.layer_backward
    monkeypatch.setattr(_C, "layer_backward", lambda *a: calls.append(a[4].shape) or run(*a))
    m, x = layer("LSTM", I, H), torch.randn(N, T, I)
    vmap(grad(lambda p, one: functional_call(m, p, (one,))[0].sum()), in_dims=(None, 0))(parameters(m), x)
    assert [tuple(shape) for shape in calls] == [(T, N, I)]


def test_twice_gives_the_same_bits():
    m, x = layer("LSTM", I, H, num_layers=2), torch.randn(N, T, I)
    run = vmap(grad(lambda p, one: functional_call(m, p, (one,))[0].sum()), in_dims=(None, 0))
    first, second = run(parameters(m), x), run(parameters(m), x)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


# ---------------------------------------------------------------- ensembles, nesting, the other transforms


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", CELL_NAMES)
def test_ensembles_train(name, shared, noted):
    """Weights of each model, on one batch or each its own."""
    models = [layer(name, I, H, dtype=torch.float64) for _ in range(3)]
    params, _ = stack_module_state(models)
    x = torch.randn(3, T, N, I, dtype=torch.float64)

    def loss(params, one):
        return weighing(functional_call(models[0], params, (one,)))

    got = vmap(grad(loss), in_dims=(0, None if shared else 0))(
        tree(torch.Tensor.detach, params)
        if not isinstance(params, dict)
        else {k: p.detach() for k, p in params.items()},
        x[0] if shared else x,
    )
    for i, m in enumerate(models):
        want = torch.autograd.grad(weighing(m(x[0] if shared else x[i])), list(m.parameters()))
        close([g[i] for g in got.values()], list(want), "grad")
    assert not noted


@pytest.mark.parametrize("inner", [0, 1])
def test_nested_vmap(inner, noted):
    m, x = layer("GRU", I, H, dtype=torch.float64), torch.randn(2, N, T, I, dtype=torch.float64)

    def loss(params, one):
        return weighing(functional_call(m, params, (one,)))

    each = vmap(grad(loss), in_dims=(None, inner))
    got = vmap(each, in_dims=(None, 0), out_dims=1)(parameters(m), x.transpose(1, 1 + inner))
    want = looped(loss, parameters(m), x.flatten(0, 1))
    for name, g in got.items():
        close(g.transpose(0, 1).flatten(0, 1), want[name], "grad")
    assert not noted


def test_vmap_inside_grad(noted):
    m, x = layer("LSTM", I, H, dtype=torch.float64), torch.randn(N, T, I, dtype=torch.float64)

    def loss(params, x):
        return vmap(lambda one: weighing(functional_call(m, params, (one,))))(x).sum()

    got = grad(loss)(parameters(m), x)
    want = looped(lambda p, one: weighing(functional_call(m, p, (one,))), parameters(m), x)
    close(list(got.values()), [w.sum(0) for w in want.values()], "grad")
    assert not noted


def test_an_outer_graph_reaches_what_was_mapped():
    """autograd outside of vmap, without grad inside."""
    m, x = (
        layer("LSTM", I, H, dtype=torch.float64),
        torch.randn(N, T, I, dtype=torch.float64, requires_grad=True),
    )
    got = torch.autograd.grad(weighing(vmap(lambda one: m(one)[0])(x)), [x, *m.parameters()])
    want = torch.autograd.grad(weighing(m(x.transpose(0, 1))[0].transpose(0, 1)), [x, *m.parameters()])
    close(list(got), list(want), "grad")


@pytest.mark.parametrize("name", CELL_NAMES[:3])
def test_second_order_of_the_gradients_of_each_sample(name, noted):
    """The norms of the samples' gradients, differentiated by autograd and by another grad."""
    m, x = layer(name, I, 3, dtype=torch.float64), torch.randn(3, 4, I, dtype=torch.float64)

    def loss(params, one):
        return weighing(tree(torch.square, functional_call(m, params, (one,))))

    def norms(params):
        each = vmap(grad(loss), in_dims=(None, 0))(params, x)
        return sum(g.square().sum() for g in each.values())

    def norms_of_loop(params):
        of = [torch.autograd.grad(loss(params, one), list(params.values()), create_graph=True) for one in x]
        return sum(g.square().sum() for each in of for g in each)

    given = {k: p.requires_grad_() for k, p in parameters(m).items()}
    want = torch.autograd.grad(norms_of_loop(given), list(given.values()))
    got = torch.autograd.grad(norms(given), list(given.values()))
    close(list(got), list(want), "grad")
    assert any(TWICE in what for what in noted)
    close(list(grad(norms)(parameters(m)).values()), list(want), "grad")


@pytest.mark.parametrize("name", CELL_NAMES[:3])
def test_jacobians_and_hessians(name, noted):
    m, x = layer(name, 2, 3, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)

    def run(x):
        return m(x)[0]

    want = torch.autograd.functional.jacobian(run, x)
    close(jacrev(run)(x), want, "value")
    close(jacfwd(run)(x), want, "value")
    each = vmap(jacrev(run))(torch.stack([x, x]))
    close(each, torch.stack([want, want]), "value")
    of_second = torch.autograd.functional.hessian(lambda x: run(x).square().sum(), x)
    close(hessian(lambda x: run(x).square().sum())(x), of_second, "value")
    close(jacrev(jacrev(lambda x: run(x).square().sum()))(x), of_second, "value")
    close(jacrev(grad(lambda x: run(x).square().sum()))(x), of_second, "value")


def test_jacobian_in_parts(monkeypatch):
    """More rows than backward takes at once."""
    from fusegen.ops.transform import mapped

    monkeypatch.setattr(mapped, "_ROWS", 4)
    m, x = layer("LSTM", 2, 3, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    got = jacrev(lambda p: functional_call(m, p, (x,))[0])(parameters(m))
    params = {k: p.requires_grad_() for k, p in parameters(m).items()}
    for name in params:
        want = torch.autograd.functional.jacobian(
            lambda p, name=name: functional_call(m, params | {name: p}, (x,))[0], params[name]
        )
        close(got[name], want, "value")


def test_products_with_vectors_and_tangents():
    m, x = layer("LSTM", 2, 3, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    v = torch.randn_like(x)
    _, back = vjp(lambda x: m(x)[0], x)
    y = m(x)[0]
    w = torch.randn_like(y)
    x_own = x.clone().requires_grad_()
    close(back(w)[0], torch.autograd.grad(m(x_own)[0], x_own, w)[0], "value")
    _, want = torch.autograd.functional.jvp(lambda x: m(x)[0], x, v)
    close(jvp(lambda x: m(x)[0], (x,), (v,))[1], want, "value")
    # a tangent of what grad gives, and of what a vjp's function is given
    close(
        jvp(grad(lambda x: m(x)[0].square().sum()), (x,), (v,))[1],
        torch.autograd.functional.hvp(lambda x: m(x)[0].square().sum(), x, v)[1],
        "value",
    )
    close(jvp(lambda w: back(w)[0], (w,), (w,))[1], back(w)[0], "value")


def test_autocast():
    m, x = layer("LSTM", I, H), torch.randn(N, T, I)

    def run(params, one):
        y, (h, c) = functional_call(m, params, (one,))
        assert y.dtype == h.dtype == c.dtype == torch.bfloat16
        return y.float().square().sum() + c.float().sum()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = vmap(grad(run), in_dims=(None, 0))(parameters(m), x)
        want = looped(run, parameters(m), x)
    for name, g in got.items():
        assert g.dtype == torch.float32
        close(g.to(torch.bfloat16), want[name].double(), "grad")


def test_a_packed_sequence_inside_grad():
    m, x = layer("GRU", I, H, dtype=torch.float64), torch.randn(T, 3, I, dtype=torch.float64)

    def loss(params):
        y, h = functional_call(m, params, (pack_padded_sequence(x, [T, 3, 1]),))
        return y.data.square().sum() + h.sum()

    got = grad(loss)(parameters(m))
    given = {k: p.requires_grad_() for k, p in parameters(m).items()}
    close(list(got.values()), list(torch.autograd.grad(loss(given), list(given.values()))), "grad")


def test_a_wrong_length_of_a_sample_raises():
    m, x = layer("GRU", I, H), torch.randn(N, T, 1, I)
    lengths = torch.full((N, 1), T + 1)
    with pytest.raises(ValueError, match=rf"lengths: expected values in \[0, {T}\]"):
        vmap(lambda one, own: m(one, lengths=own)[0])(x, lengths)


def test_error_is_the_plain_layers():
    """Against float64: no larger than twice the plain backward's."""
    m, x = layer("LSTM", 33, 65), torch.randn(8, 50, 33)

    def loss(params, one):
        return weighing(functional_call(m, params, (one,)))

    got = vmap(grad(loss), in_dims=(None, 0))(parameters(m), x)
    plain = looped(loss, parameters(m), x)
    want = vmap(grad(loss), in_dims=(None, 0))({k: p.double() for k, p in parameters(m).items()}, x.double())
    for name, w in want.items():
        ours, theirs = ((g[name] - w).norm() / w.norm() for g in (got, plain))
        assert ours <= 2 * theirs, f"{name}: {ours:.2e}, a loop's {theirs:.2e}"


def test_small_samples_are_one_large_batch_for_auto(monkeypatch, noted):
    """What torch was measured to be faster at is a batch of the size that kernels get."""
    fusegen.set_backend("auto")
    monkeypatch.setattr(_backend, "cpu_cells", lambda: {"lstm"})
    monkeypatch.setattr(_backend, "cpu_rule", lambda *a, **k: "a rule")
    m, x = layer("LSTM", I, H), torch.randn(N, T, I)
    monkeypatch.setattr(ops.layers.torch_path, "layers", lambda *a: pytest.fail("torch's own operators run"))
    vmap(grad(lambda p, one: functional_call(m, p, (one,))[0].sum()), in_dims=(None, 0))(parameters(m), x)
