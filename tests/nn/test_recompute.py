"""recompute=k: less is kept for backward, and every result is the same to the last bit."""

import warnings

import fusegen
import pytest
import torch
from cases import CELL_NAMES, DTYPES, SHAPES, covering, flat, hidden, layer, options_of, tree
from fusegen.ops import functional
from torch import nn
from torch.library import opcheck

SAVING = ("LSTM", "GRU")  # cells that save gates
EVERY = (1, 3, 16, 1000)

# Each cell's plans, tiles and chunks: (I, H, B, T).
SIZES = (
    *(s for s in SHAPES if s[3] > 1),
    (5, 9, 2, 40),
    (6, 20, 3, 33),
    (9, 17, 7, 50),
    (4, 12, 5, 21),  # tiles of two heights, of which one sums every second k apart
    (300, 290, 9, 13),  # more k than a block of a panel holds
    (8, 130, 70, 19),
)


def results(m, x, hx, every, lengths=None, wanted=None, **more):
    """Outputs and gradients of a loss that reads them all."""
    m.recompute = every
    leaves = [t.detach().requires_grad_() for t in (x, *flat(hx))]
    states = tuple(leaves[1:]) if len(leaves) > 2 else leaves[1] if leaves[1:] else None
    if "reset_to" in more:
        starts = tree(lambda s: s.detach().requires_grad_(), more["reset_to"])
        more, leaves = more | {"reset_to": starts}, [*leaves, *flat((starts,))]
    torch.manual_seed(1)
    outputs = flat(m(leaves[0], states, lengths=lengths, **more))
    loss = sum((o * torch.randn_like(o)).sum() for o in outputs)
    of = [*leaves, *m.parameters()] if wanted is None else [[*leaves, *m.parameters()][i] for i in wanted]
    return [*outputs, *torch.autograd.grad(loss, of)]


def assert_same(ours, plain):
    for a, b in zip(ours, plain, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b), (a - b).abs().max()


@pytest.mark.parametrize(
    ("kind", "size", "dtype", "threads", "ragged"),
    covering((("LSTM", 0), ("LSTM", 5), ("GRU", 0)), SIZES, DTYPES, (1, 2), (False, True), strength=3),
    ids=str,
)
def test_same_bits(kind, size, dtype, threads, ragged):
    torch.set_num_threads(threads)
    (cell_name, proj), (I, H, B, T) = kind, size
    m = layer(cell_name, I, H, dtype=dtype, bidirectional=True, **({"proj_size": proj} if proj else {}))
    x, hx = torch.randn(T, B, I, dtype=dtype), hidden(cell_name, m, B, dtype)
    lengths = torch.randint(0, T + 1, (B,)) if ragged else None
    plain = results(m, x, hx, None, lengths)
    for every in EVERY:
        assert_same(results(m, x, hx, every, lengths), plain)


@pytest.mark.parametrize(
    ("cell_name", "options", "dtype", "every"),
    [
        (cell_name, options, dtype, every)
        for cell_name in CELL_NAMES
        for options, dtype, every in covering(options_of(cell_name), DTYPES, (1, 4))
    ],
    ids=str,
)
def test_same_bits_with_every_option(cell_name, options, dtype, every, poisoned):
    m = layer(cell_name, 7, 33, dtype=dtype, **options)
    x = torch.randn(5, 9, 7, dtype=dtype)
    B = 5 if options.get("batch_first") else 9
    for hx in (None, hidden(cell_name, m, B, dtype)):
        assert_same(results(m, x, hx, every), results(m, x, hx, None))


# What may happen inside a recurrence; zoneout of a GRU is one number.
INSIDE = (
    {},
    {"recurrent_dropout": 0.4},
    {"recurrent_dropout": 0.3, "recurrent_dropout_on": "candidate"},
    {"zoneout": (0.2, 0.4)},
    {"recurrent_dropout": 0.4, "zoneout": (0.3, 0.0), "weight_drop": 0.5},
)


@pytest.mark.parametrize(
    ("cell_name", "inside", "dtype", "train", "ragged", "resets"),
    covering(
        SAVING,
        INSIDE,
        DTYPES,
        (True, False),
        (True, False),
        ("none", "to zero", "to a state"),
        strength=3,
    ),
    ids=str,
)
def test_same_bits_with_resets_and_masks(cell_name, inside, dtype, train, ragged, resets):
    if cell_name != "LSTM" and "zoneout" in inside:
        inside = inside | {"zoneout": inside["zoneout"][0]}
    T, B, H = 11, 7, 70
    for threads, proj in ((1, 0), (2, 0), (2, 5)):
        if proj and cell_name != "LSTM":
            continue
        torch.set_num_threads(threads)
        options = {"bidirectional": True, "num_layers": 2, **({"proj_size": proj} if proj else {})}
        m = layer(cell_name, 5, H, dtype=dtype, **options, **inside).train(train)
        x, hx, starts = torch.randn(T, B, 5, dtype=dtype), *(hidden(cell_name, m, B, dtype) for _ in range(2))
        lengths = torch.randint(0, T + 1, (B,)) if ragged else None
        more = {} if resets == "none" else {"resets": torch.rand(T, B) < 0.3}
        more |= {"reset_to": starts} if resets == "to a state" else {}
        plain = results(m, x, hx, None, lengths, **more)
        for every in (1, 4):
            assert_same(results(m, x, hx, every, lengths, **more), plain)


def test_compiled_with_resets_and_masks():
    m = fusegen.nn.LSTM(5, 12, recurrent_dropout=0.4, zoneout=(0.2, 0.3))
    x, hx = torch.randn(9, 4, 5), hidden("LSTM", m, 4, torch.float32)
    more = {"resets": torch.rand(9, 4) < 0.3, "reset_to": hidden("LSTM", m, 4, torch.float32)}
    plain = results(m, x, hx, None, **more)
    torch._dynamo.reset()
    m.compile(fullgraph=True)
    assert_same(results(m, x, hx, 4, **more), plain)


@pytest.mark.parametrize("cell_name", SAVING)
def test_same_bits_of_one_gradient(cell_name):
    m = layer(cell_name, 7, 33)
    x, hx = torch.randn(9, 5, 7), hidden(cell_name, m, 5, torch.float32)
    for i in range(2 + len(list(m.parameters()))):
        assert_same(results(m, x, hx, 4, wanted=[i]), results(m, x, hx, None, wanted=[i]))


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_packed_and_unbatched(cell_name):
    m = layer(cell_name, 7, 12)
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(9, 4, 7), [9, 7, 7, 2])
    x = torch.randn(9, 7)
    for given in (packed, x):
        found = []
        for every in (4, None):
            m.recompute = every
            y, final = m(given)
            y = y.data if isinstance(given, nn.utils.rnn.PackedSequence) else y
            found.append([y, *flat(final), *torch.autograd.grad(y.square().sum(), list(m.parameters()))])
        assert_same(*found)


def test_bytes(saved_bytes):
    T, B, H = 64, 3, 16
    x = torch.randn(T, B, 8)

    def kept(cell_name, every, **options):
        m = layer(cell_name, 8, H, recompute=every, **options)
        return saved_bytes(lambda: m(x), (x, *m.parameters())) // (4 * B * H)

    # of each step y and, kept for backward, the gates and an LSTM's cell
    assert kept("LSTM", None) == T * (1 + 4 + 1)
    assert kept("LSTM", 16) == T + (T - 1) // 16
    assert kept("LSTM", 1) == T + T - 1
    assert kept("LSTM", T) == T
    assert kept("LSTM", 16, bidirectional=True) == 2 * (T + (T - 1) // 16)
    assert kept("GRU", None) == T * (1 + 4)
    assert kept("GRU", 16) == T
    assert kept("RNN_TANH", 16) == kept("RNN_TANH", None) == T
    assert kept("LSTM", 16) * 3 < kept("LSTM", None)


def test_a_single_step_keeps_its_gates(saved_bytes):
    m, x = fusegen.nn.LSTM(8, 16), torch.randn(1, 3, 8)
    hx = hidden("LSTM", m, 3, torch.float32)
    assert_same(results(m, x, hx, 16), results(m, x, hx, None))
    assert saved_bytes(lambda: m(x), (x, *m.parameters())) == 4 * 3 * 16 * 6


BAD = [(0, ValueError), (-3, ValueError), (2.0, TypeError), ("4", TypeError), (True, TypeError)]


@pytest.mark.parametrize(("every", "error"), BAD, ids=str)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_errors(cell_name, every, error):
    name = cell_name.partition("_")[0]
    got = every if error is ValueError else type(every).__name__
    expected = "at least 1, or None" if error is ValueError else "an int or None"
    with pytest.raises(error, match=f"{name}: expected recompute to be {expected}, got {got}"):
        layer(cell_name, 3, 4, recompute=every)
    m = layer(cell_name, 3, 4)
    m.recompute = every
    with pytest.raises(error, match=f"{name}: expected recompute"):
        m(torch.randn(2, 2, 3))
    call, states = getattr(functional, name.lower()), (None,) * (2 if name == "LSTM" else 1)
    G = {"LSTM": 4, "GRU": 3, "RNN": 1}[name]
    weights = [torch.randn(G * 4, 3), torch.randn(G * 4, 4), None, None, *([None] if name == "LSTM" else [])]
    with pytest.raises(error, match=f"{name.lower()}: expected recompute to be {expected}, got {got}"):
        call(torch.randn(2, 2, 3), *states, weights, recompute=every)


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_functional(cell_name):
    m = layer(cell_name, 3, 4)
    x = torch.randn(6, 2, 3)
    weights = m._weights(0)
    call = getattr(functional, m._spec.name)
    more = {"relu": True} if cell_name == "RNN_RELU" else {}
    found = []
    for every in (2, None):
        y, *_ = call(x, *(None for _ in m._spec.states), weights, recompute=every, **more)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(m.parameters()))])
    assert_same(*found)


def test_what_a_module_says_and_keeps():
    m = fusegen.nn.GRU(3, 4, recompute=8)
    assert "recompute=8" in repr(m)
    assert "recompute" not in repr(fusegen.nn.GRU(3, 4))
    assert "recompute" not in vars(fusegen.nn.GRU(3, 4))  # as of a module pickled before there was one


# ---- who else is watching ---------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"D": 2}], ids=str)
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_opcheck(name, more):
    m = layer(name.upper(), 5, 6, bidirectional=more.get("D") == 2)
    weights = [None if w is None else w.detach() for w in m._weights(0)]
    x, lengths = torch.randn(7, 3, 5), torch.tensor([7, 0, 4])
    states = flat(hidden(name.upper(), m, 3, torch.float32))
    ops = torch.ops.fusegen
    again = (None, *(None for _ in states), None, [], 0, True, 3)
    opcheck(getattr(ops, f"{name}_train").default, (x, *states, weights, lengths, *again))
    y, *rest = getattr(ops, f"{name}_train")(x, *states, weights, lengths, recompute=3)
    finals, saved = rest[: len(states)], rest[len(states) :]
    wanted = [t is not None for t in (x, *states, *weights)]
    given = (y, *finals)
    opcheck(
        getattr(ops, f"{name}_backward").default,
        (*given, x, *states, weights, lengths, y, *saved, wanted, *again),
    )
    leaves = [None if w is None else w.clone().requires_grad_() for w in weights]
    opcheck(getattr(ops, name).default, (x, *states, leaves, lengths, None, *again))


@pytest.mark.parametrize("cell_name", SAVING)
def test_compiled(cell_name):
    m = layer(cell_name, 7, 12, num_layers=2)
    x, hx = torch.randn(9, 5, 7), hidden(cell_name, m, 5, torch.float32)
    plain = results(m, x, hx, None)
    torch._dynamo.reset()
    m.compile(fullgraph=True)
    assert_same(results(m, x, hx, 4), plain)


def test_compiled_code_keeps_as_little(saved_bytes):
    m = torch.compile(fusegen.nn.LSTM(8, 16, recompute=16), fullgraph=True)
    x = torch.randn(64, 3, 8)
    m(x)
    kept = saved_bytes(lambda: m(x), (x, *m.parameters()))
    assert kept <= 4 * 3 * 16 * (64 + 3) + 4096


@pytest.mark.parametrize("cell_name", SAVING)
def test_create_graph(cell_name):
    m = layer(cell_name, 3, 4, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for every in (2, None):
        m.recompute = every
        (first,) = torch.autograd.grad(m(x)[0].square().sum(), x, create_graph=True)
        found.append([first, *torch.autograd.grad(first.square().sum(), list(m.parameters()))])
    assert_same(*found)


@pytest.mark.parametrize("cell_name", SAVING)
def test_gradcheck(cell_name):
    m = layer(cell_name, 3, 4, dtype=torch.float64, recompute=2)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: m(x)[0], (x,))


@pytest.mark.parametrize("cell_name", SAVING)
def test_autocast(cell_name, saved_bytes):
    m = layer(cell_name, 8, 16)
    x, hx = torch.randn(64, 5, 8), hidden(cell_name, m, 5, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(results(m, x, hx, 4), results(m, x, hx, None))
        kept = []
        for every in (16, None):
            m.recompute = every
            kept.append(saved_bytes(lambda: m(x), (x, *m.parameters())))
    assert kept[0] * 3 < kept[1]


@pytest.mark.parametrize("cell_name", SAVING)
def test_output_changed_in_place(cell_name):
    m = layer(cell_name, 7, 12)
    x, weight = torch.randn(9, 5, 7), torch.randn(9, 5, 12)
    found = []
    for every in (4, None):
        m.recompute = every
        y, _ = m(x)
        y *= 2
        found.append(torch.autograd.grad((y * weight).sum(), list(m.parameters())))
    assert_same(*found)


def test_runs_our_kernels_where_torch_is_faster(monkeypatch, saved_bytes):
    """Under "auto" the table's rules are of calls that keep everything."""
    fusegen.set_backend("auto")
    monkeypatch.setattr("fusegen._backend.cpu_cells", lambda: frozenset({"lstm"}))
    monkeypatch.setattr("fusegen._backend.cpu_rule", lambda *args, **kwargs: "torch")
    m, x = fusegen.nn.LSTM(8, 16, recompute=16), torch.randn(64, 3, 8)
    assert saved_bytes(lambda: m(x), (x, *m.parameters())) == 4 * 3 * 16 * (64 + 3)


def test_torch_runs_it_where_it_was_asked_for():
    fusegen.set_backend("torch")
    m, x = fusegen.nn.LSTM(8, 16, recompute=16), torch.randn(5, 3, 8)
    oracle = nn.LSTM(8, 16)
    oracle.load_state_dict(m.state_dict())
    assert torch.equal(m(x)[0], oracle(x)[0])


@pytest.mark.parametrize("cell_name", SAVING)
def test_frozen_inference(cell_name):
    m = layer(cell_name, 7, 33, recompute=4).eval()
    x = torch.randn(9, 5, 7)
    with warnings.catch_warnings(), torch.no_grad():
        plain = m(x)[0]
        with fusegen.frozen(m):
            assert torch.equal(m(x)[0], plain)
