"""Wrong arguments: an error that names the argument, what was expected and what came; random ones never end
the process."""

import fusegen
import pytest
import torch
from cases import CELL_NAMES, CELLS, cell, hidden, layer
from fusegen import ops
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

X = torch.randn(4, 3, 5)
RANDOM = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([1, 2], ValueError, r"expected lengths of shape \(3,\), one per sequence, got \(2,\)"),
        ([1, 2, 5], ValueError, r"expected lengths in 0\.\.4 \(the number of steps\), got lengths\[2\] = 5"),
        ([1, -1, 3], ValueError, r"expected lengths in 0\.\.4 .* got lengths\[1\] = -1"),
        ([1, 2, 3.0], TypeError, r"expected integers as lengths, got 3\.0 of type float"),
        ([1, True, 3], TypeError, r"expected integers as lengths, got True of type bool"),
        (
            torch.tensor([1.0, 2.0, 3.0]),
            TypeError,
            r"expected lengths of an integer dtype, got torch\.float32",
        ),
        (torch.tensor([True, True, True]), TypeError, r"integer dtype, got torch\.bool"),
        (torch.tensor([[1, 2, 3]]), ValueError, r"expected lengths of shape \(3,\).* got \(1, 3\)"),
        (torch.tensor(3), ValueError, r"got \(\)"),
        (7, TypeError, r"expected lengths as a list or an integer tensor, got int"),
        ("abc", TypeError, r"expected integers as lengths, got 'a' of type str"),
        ([2**70, 1, 1], ValueError, r"lengths"),
    ],
    ids=str,
)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_lengths(cell_name, lengths, error, message):
    with pytest.raises(error, match=message):
        layer(cell_name, 5, 6)(X, lengths=lengths)


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_layer_arguments(cell_name):
    m = layer(cell_name, 5, 6)
    hx = hidden(cell_name, m, 3, torch.float32)

    def state(f):
        return tuple(f(s) for s in hx) if cell_name == "LSTM" else f(hx)

    for bad, error, message in (
        ((torch.randn(5),), ValueError, r"Expected input to be 2D or 3D, got 1D"),
        ((torch.randn(1, 4, 3, 5),), ValueError, r"Expected input to be 2D or 3D, got 4D"),
        (
            (torch.randn(4, 3, 7),),
            RuntimeError,
            r"input\.size\(-1\) must be equal to input_size\. Expected 5, got 7",
        ),
        ((torch.randn(0, 3, 5),), RuntimeError, r"Expected sequence length to be larger than 0"),
        ((X.double(),), ValueError, r"RNN input dtype \(torch.float64\) does not match weight dtype"),
        ((X.long(),), ValueError, r"RNN input dtype \(torch.int64\) does not match weight dtype"),
        (([[1.0]],), TypeError, r"expected input to be a Tensor or a PackedSequence, got list"),
        (
            (X.to("meta"),),
            RuntimeError,
            r"input and W of direction 0 are not on the same device, expected meta, got cpu",
        ),
        (
            (X, state(lambda s: s[:, :2])),
            RuntimeError,
            r"Expected hidden(\[0\])? size \(1, 3, 6\), got \[1, 2, 6\]",
        ),
        ((X, state(lambda s: s[0])), RuntimeError, r"For batched 3-D input, hx .*should also be 3-D but got"),
        ((X[:, 0], hx), RuntimeError, r"For unbatched 2-D input, hx .*should also be 2-D but got"),
        (
            (X, state(lambda s: s.double())),
            RuntimeError,
            r"input and h0 are not of the same dtype, expected torch\.float32, got torch\.float64",
        ),
        (
            (X, state(lambda s: s.to("meta"))),
            RuntimeError,
            r"input and h0 are not on the same device, expected cpu, got meta",
        ),
        ((X, 3), TypeError, r"expected hx to be a .*, got int"),
    ):
        with pytest.raises(error, match=message):
            m(*bad)
    if cell_name == "LSTM":
        for bad in (hx[0], (hx[0],), (*hx, hx[0]), (hx[0], None)):
            with pytest.raises(TypeError, match=r"expected hx to be a tuple of two Tensors \(h_0, c_0\)"):
                m(X, bad)
    p = torch.nn.utils.rnn.pack_padded_sequence(X, [4, 2, 1])
    with pytest.raises(ValueError, match=r"lengths= is for padded input"):
        m(p, lengths=[1, 2, 3])
    with pytest.raises(RuntimeError, match=r"Expected hidden(\[0\])? size \(1, 3, 6\), got \[1, 2, 6\]"):
        m(p, state(lambda s: s[:, :2]))
    with pytest.raises(RuntimeError, match=r"Expected 5, got 7"):
        m(torch.nn.utils.rnn.pack_padded_sequence(torch.randn(4, 3, 7), [4, 2, 1]))


@pytest.mark.parametrize("lengths", [torch.tensor(2.7), torch.tensor(True), True, 2.0], ids=repr)
def test_an_unbatched_length_that_is_no_integer(lengths):
    with pytest.raises(TypeError, match=r"expected (lengths|integers)"):
        layer("LSTM", 5, 6)(X[:, 0], lengths=lengths)


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_complex_weights(cell_name):
    m = layer(cell_name, 5, 6, dtype=torch.complex64)
    with pytest.raises(TypeError, match=r"expected input of dtype float32, .* got torch\.complex64"):
        m(X.to(torch.complex64))


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_sparse_input(cell_name):
    with pytest.raises((RuntimeError, NotImplementedError)):
        layer(cell_name, 5, 6)(X.to_sparse())


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_construction(name):
    make = getattr(fusegen.nn, name)
    for arguments, error in (
        ((0, 5), ValueError),
        ((5, 0), ValueError),
        ((5, -1), ValueError),
        ((5.0, 5), TypeError),
        ((5, 5, 0), ValueError),
    ):
        with pytest.raises(error):
            make(*arguments)
    for more, error in (
        ({"dropout": 1.5}, ValueError),
        ({"dropout": True}, ValueError),
        ({"bias": 1}, TypeError),
        ({"batch_first": 0}, TypeError),
        ({"proj_size": 5}, ValueError),
        ({"proj_size": -1}, ValueError),
        ({"nonlinearity": "sine"}, (ValueError, TypeError)),
        ({"sizes": 3}, TypeError),
    ):
        with pytest.raises(error):
            make(5, 5, **more)


@pytest.mark.parametrize("cell_name", CELLS)
def test_cell_arguments(cell_name):
    m, x, h = cell(cell_name, 5, 6), torch.randn(3, 5), torch.randn(3, 6)

    def state(f):
        return (f(h), f(h)) if cell_name == "LSTMCell" else f(h)

    for bad, error, message in (
        ((torch.randn(2, 3, 5),), ValueError, r"Expected input to be 1D or 2D, got 3D"),
        ((torch.randn(3, 7),), RuntimeError, r"input has inconsistent input_size: got 7 expected 5"),
        ((x.double(),), RuntimeError, r"not of the same dtype"),
        ((x.to("meta"),), RuntimeError, r"not on the same device"),
        (("x",), TypeError, r"expected input to be a Tensor, got str"),
        ((x, state(lambda s: s[:2])), RuntimeError, r"Input batch size 3 doesn't match hidden0 batch size 2"),
        ((x, state(lambda s: s[0])), RuntimeError, r"hidden0"),
        (
            (x, state(lambda s: s[:, :4])),
            RuntimeError,
            r"hidden0 has inconsistent hidden_size: got 4, expected 6",
        ),
        ((x, state(lambda s: s.half())), RuntimeError, r"input and h0 are not of the same dtype"),
        ((x, state(lambda s: s.tolist())), TypeError, r"to be a Tensor, got list"),
    ):
        with pytest.raises(error, match=message):
            m(*bad)


def test_functional_arguments():
    W, R, b = torch.randn(12, 5), torch.randn(12, 4), torch.randn(12)
    x, h = torch.randn(4, 3, 5), torch.randn(1, 3, 4)
    for bad, error, message in (
        ((x[0], h, [W, R, b, b]), ValueError, r"gru: expected x with 3 dimensions, got 2"),
        ((None, h, [W, R, b, b]), TypeError, r"gru: expected x to be a Tensor, got NoneType"),
        ((x, h, [W, R, b]), ValueError, r"gru: expected 4 or 8 weights \(4 per direction\), got 3"),
        ((x, h, [W, None, b, b]), ValueError, r"gru: expected R as a 2-D Tensor, got None"),
        ((x, h, [W, R[:, :3], b, b]), RuntimeError, r"gru: expected R of size"),
        (
            (x, h, [W, R, b[:5], b]),
            RuntimeError,
            r"gru: expected b_ih of direction 0 of size \(12,\), got \(5,\)",
        ),
        ((x[..., :4], h, [W, R, b, b]), RuntimeError, r"gru: expected x\.size\(-1\) to be 5"),
        ((x, h[:, :2], [W, R, b, b]), RuntimeError, r"gru: expected h0 of size \(1, 3, 4\), got \(1, 2, 4\)"),
        ((x, h.double(), [W, R, b, b]), RuntimeError, r"gru: input and h0 are not of the same dtype"),
        (
            (x, h, [W.to("meta"), R, b, b]),
            RuntimeError,
            r"gru: input and W of direction 0 are not on the same device",
        ),
        ((x[:0], h, [W, R, b, b]), RuntimeError, r"gru: expected at least one step"),
        ((x, h, [W[:, :0], R, b, b]), ValueError, r"gru: expected sizes above zero"),
        ((x.long(), None, [W, R, b, b]), TypeError, r"gru: expected input of dtype float32"),
        ((x, "h", [W, R, b, b]), TypeError, r"gru: expected h0 to be a Tensor or None, got str"),
        ((x, h, [W, R, b, b], [1, 2]), ValueError, r"gru: expected lengths of shape \(3,\)"),
    ):
        with pytest.raises(error, match=message):
            ops.gru(*bad)


def test_projection_of_one_direction():
    def of(P, project):
        return [torch.randn(24, 5), torch.randn(24, P), None, None, torch.randn(P, 6) if project else None]

    for P in (2, 6):
        for first in (True, False):
            for call in (ops.lstm, torch.ops.fusegen.lstm):
                with pytest.raises(ValueError, match=r"W_hr"):
                    call(X, None, None, of(P, first) + of(P, not first))


@pytest.mark.parametrize("name", ["h0", "c0", "h_n", "c_n", "gates", "cells"])
def test_planes_of_forward(name):
    """Every tensor of both directions must have both planes: the engine is given addresses."""
    a = {n: torch.zeros(2, 3, 6) for n in ("h0", "c0", "h_n", "c_n")}
    a |= {"gates": torch.zeros(2, 4, 3, 24), "cells": torch.zeros(2, 4, 3, 6)}
    weights = [torch.randn(24, 5), torch.randn(24, 6), None, None, None] * 2

    def call(a):
        y = torch.empty(4, 3, 12)
        rest = (y, a["h_n"], a["c_n"], a["gates"], a["cells"], None, 1)
        fusegen._C.layer_forward("lstm", X, a["h0"], a["c0"], weights, None, *rest)

    call(a)
    for planes in (1, 3):
        bad = torch.zeros(planes, *a[name].shape[1:])
        with pytest.raises(ValueError, match=rf"{name}: expected a first dimension of 2.* got \[{planes}, "):
            call(a | {name: bad})


@pytest.mark.parametrize("name", ["dh_n", "dc_n", "h0", "c0", "gates", "cells", "dh0", "dc0"])
def test_planes_of_backward(name):
    a = {n: torch.zeros(2, 3, 6) for n in ("dh_n", "dc_n", "h0", "c0", "dh0", "dc0")}
    a |= {"gates": torch.zeros(2, 4, 3, 24), "cells": torch.zeros(2, 4, 3, 6)}
    weights = [torch.randn(24, 5), torch.randn(24, 6), None, None, None] * 2

    def call(a):
        y, out = torch.zeros(4, 3, 12), (None, a["dh0"], a["dc0"], [None] * 10, 1)
        given = (None, a["dh_n"], a["dc_n"], X, a["h0"], a["c0"], weights, None)
        fusegen._C.layer_backward("lstm", *given, y, a["gates"], a["cells"], *out)

    call(a)
    for planes in (1, 3):
        bad = torch.zeros(planes, *a[name].shape[1:])
        with pytest.raises(ValueError, match=rf"{name}: expected a first dimension of 2.* got \[{planes}, "):
            call(a | {name: bad})


def _shape(draw):
    return tuple(draw(st.lists(st.integers(0, 6), min_size=0, max_size=4)))


@st.composite
def tensors(draw):
    """Tensors of any small shape and layout, mostly float32."""
    dtype = draw(
        st.sampled_from([torch.float32] * 5 + [torch.float64, torch.bfloat16, torch.int64, torch.bool])
    )
    t = torch.randn(_shape(draw)).to(dtype)
    how = draw(st.integers(0, 5))
    if t.dim() >= 2 and how == 1:
        t = t.transpose(0, -1)
    if t.dim() >= 1 and how == 2:
        t = t[..., ::2]
    if t.dim() >= 1 and t.shape[0] and how == 3:
        t = t[:1].expand(t.shape)
    return t


ERRORS = (ValueError, TypeError, RuntimeError)


@RANDOM
@given(st.data())
def test_random_weights_and_states(data):
    """Both forms of the ops, with up to three tensors that do not fit the others: an error or a result, never
    the end of the process; and no error where all fit."""
    T, B, I, H = 4, 3, 5, 6
    name = data.draw(st.sampled_from(["lstm", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell"]))
    is_cell, is_lstm = name.endswith("cell"), name.startswith("lstm")
    G = {"l": 4, "g": 3, "r": 1}[name[0]]
    given = [torch.randn(*((B, I) if is_cell else (T, B, I)))]
    given += [torch.randn(*((B, H) if is_cell else (1, B, H))) for _ in range(1 + is_lstm)]
    given += [torch.randn(G * H, I), torch.randn(G * H, H), torch.randn(G * H), None]
    given += [None] * (is_lstm and not is_cell) + [torch.tensor([4, 0, 2])] * (not is_cell)
    wrong = data.draw(st.sets(st.integers(0, len(given) - 1), max_size=3))
    for at in wrong:
        given[at] = data.draw(st.one_of(st.none(), tensors()) if at else tensors())
    lengths = [] if is_cell else [given.pop()]
    x, states, weights = given[0], given[1 : 2 + is_lstm], given[2 + is_lstm :]
    weights = weights[: data.draw(st.sampled_from([len(weights)] * 4 + [0, 1, 3]))]
    whole = len(weights) >= 4 and not wrong
    relu = {"relu": data.draw(st.booleans())} if name.startswith("rnn") else {}
    for call in (
        lambda: getattr(torch.ops.fusegen, name)(x, *states, weights, *relu.values(), *lengths),
        lambda: getattr(ops, name)(x, *states, weights, *lengths, **relu),
    ):
        try:
            call()
        except (*ERRORS, IndexError) as error:
            assert not whole, f"tensors that fit: {error}"
            assert str(error), "an error without a message"


@RANDOM
@given(st.data())
def test_random_inputs_to_layers(data):
    cell_name = data.draw(st.sampled_from(CELL_NAMES))
    m = layer(
        cell_name, 3, 4, num_layers=data.draw(st.integers(1, 2)), bidirectional=data.draw(st.booleans())
    )
    x = data.draw(tensors())
    hx = data.draw(st.one_of(st.none(), tensors(), st.tuples(tensors(), tensors())))
    lengths = data.draw(
        st.one_of(
            st.none(), st.lists(st.integers(-2, 8), max_size=6), tensors(), st.just("ab"), st.just([0.5])
        )
    )
    try:
        y, _ = m(x, hx, lengths=lengths)
        assert y.shape[:-1] == x.shape[:-1]
    except ERRORS as e:
        assert str(e), "an error without a message"


@RANDOM
@given(st.data())
def test_random_fitting_shapes(data):
    """Any sizes and options that fit: the torch backend and the fused one agree."""
    size = st.integers(1, 20)
    cell_name, I, H = data.draw(st.sampled_from(CELL_NAMES)), data.draw(size), data.draw(size)
    options = {
        "num_layers": data.draw(st.integers(1, 3)),
        "bias": data.draw(st.booleans()),
        "batch_first": data.draw(st.booleans()),
        "bidirectional": data.draw(st.booleans()),
    }
    if cell_name == "LSTM" and H > 1:
        options["proj_size"] = data.draw(st.integers(0, H - 1))
    T, B = data.draw(size), data.draw(st.integers(0, 20))
    m = layer(cell_name, I, H, dtype=torch.float64, **options)
    x = torch.randn((B, T, I) if m.batch_first else (T, B, I), dtype=torch.float64, requires_grad=True)
    lengths = data.draw(st.one_of(st.none(), st.lists(st.integers(0, T), min_size=B, max_size=B)))
    results = []
    for backend in ("fused", "torch"):
        fusegen.set_backend(backend)
        y, _ = m(x, lengths=lengths)
        results.append((y, *torch.autograd.grad(y.sin().sum(), [x, *m.parameters()])))
    fusegen.set_backend("fused")
    torch.testing.assert_close(*results)
