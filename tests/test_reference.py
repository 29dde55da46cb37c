"""The oracle itself: fusegen.reference against torch.nn, in float64."""

import itertools

import pytest
import torch
from cases import CELL_NAMES, CELLS, by_sequence, cell, grads, hidden, layer
from fusegen import reference
from torch.autograd import gradcheck, gradgradcheck


def formula(cell_name, m, x, hx, lengths=None):
    """One layer of m through the reference."""
    w = []
    for names in m._all_weights:
        found = {n.split("_l")[0]: getattr(m, n) for n in names}
        w += [found.get(n) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        if cell_name == "LSTM":
            w.append(found.get("weight_hr"))
    if cell_name == "LSTM":
        y, h, c = reference.lstm(x, *(hx or (None, None)), w, lengths)
        return y, (h, c)
    if cell_name == "GRU":
        return reference.gru(x, hx, w, lengths)
    return reference.rnn(x, hx, w, lengths, relu=cell_name == "RNN_RELU")


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("cell_name", "more"),
    [*itertools.product(CELL_NAMES, [{}, {"bias": False}]), ("LSTM", {"proj_size": 3})],
    ids=str,
)
def test_layer(cell_name, more, bidirectional):
    m = layer(cell_name, 5, 7, own=False, bidirectional=bidirectional, dtype=torch.float64, **more)
    x = torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)
    for hx in (None, hidden(cell_name, m, 3)):
        want, got = m(x, hx), formula(cell_name, m, x, hx)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(
            torch.autograd.grad(got[0].sin().sum(), [x, *m.parameters()]),
            torch.autograd.grad(want[0].sin().sum(), [x, *m.parameters()]),
        )


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_lengths(cell_name, bidirectional):
    m = layer(cell_name, 5, 7, own=False, bidirectional=bidirectional, dtype=torch.float64)
    lengths = [4, 0, 6, 1]
    x = torch.randn(6, 4, 5, dtype=torch.float64, requires_grad=True)
    hx = hidden(cell_name, m, 4)
    want = by_sequence(m, x, hx, lengths)
    got = formula(cell_name, m, x, hx, torch.tensor(lengths))
    torch.testing.assert_close(got, want)
    w = [torch.randn_like(t) for t in (got[0],)]
    inputs = [x, *m.parameters()]
    torch.testing.assert_close(grads(got[0], inputs, w), grads(want[0], inputs, w))

    dirty = x.detach().clone()
    for b, n in enumerate(lengths):
        dirty[n:, b] = torch.nan
    dirty.requires_grad_()
    again = formula(cell_name, m, dirty, hx, torch.tensor(lengths))
    torch.testing.assert_close(again, got)
    assert torch.autograd.grad(again[0].sum(), dirty)[0].isfinite().all()


@pytest.mark.parametrize("cell_name", CELLS)
def test_cell(cell_name):
    m = cell(cell_name, 5, 7, own=False, dtype=torch.float64)
    w = [m.weight_ih, m.weight_hh, m.bias_ih, m.bias_hh]
    x, h, c = (torch.randn(3, n, dtype=torch.float64) for n in (5, 7, 7))
    if cell_name == "LSTMCell":
        torch.testing.assert_close(reference.lstm_cell(x, h, c, w), m(x, (h, c)))
        torch.testing.assert_close(reference.lstm_cell(x, None, None, w), m(x))
    elif cell_name == "GRUCell":
        torch.testing.assert_close(reference.gru_cell(x, h, w), m(x, h))
    else:
        torch.testing.assert_close(reference.rnn_cell(x, h, w, relu="relu" in cell_name), m(x, h))


@pytest.mark.parametrize("cell_name", ["LSTM", "GRU", "RNN_TANH"])
def test_differentiable_twice(cell_name):
    m = layer(cell_name, 2, 3, own=False, bidirectional=True, dtype=torch.float64).requires_grad_(False)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)

    def run(x):
        return formula(cell_name, m, x, None, torch.tensor([3, 2]))[0]

    assert gradcheck(run, x)
    assert gradgradcheck(run, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_rounds_h_every_step(dtype):
    """In 16 bits the output of each step is what the next one reads, so running in two halves changes
    nothing."""
    m = layer("GRU", 4, 5, own=False, dtype=dtype)
    x = torch.randn(6, 2, 4, dtype=dtype)
    whole, _ = formula("GRU", m, x, None)
    first, h = formula("GRU", m, x[:3], None)
    second, _ = formula("GRU", m, x[3:], h)
    assert torch.equal(whole, torch.cat([first, second]))
