"""The CUDA kernels of single steps, run lane by lane on the CPU by the emulator, against the float64
reference."""

import contextlib
import itertools

import cases
import pytest
import torch
from fusegen import _precision, reference
from fusegen.ops.cuda import cells as cuda_cells
from fusegen.ops.cuda.engine import Engine
from simt_cases import DTYPES, ORDERS, SPECS
from tolerances import close

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

CELL_AXES = (
    cases.CELLS, DTYPES, (1, 7, 64, 130), (1, 7, 33, 100, 256), (1, 3, 8, 9, 32, 33, 70), (True, False),
    (True, False),
)  # fmt: skip


def cell_cases():
    """Every pair of values; relu's side of zero is open to rounding in fewer bits, so it is in float32."""
    for cell_name, dtype, *rest in cases.covering(*CELL_AXES):
        yield cell_name, "float32" if cell_name == "RNNCell_relu" else dtype, *rest


@pytest.mark.parametrize("cell_name, dtype, I, H, B, bias, state", list(cell_cases()))
def test_cells(cell_name, dtype, I, H, B, bias, state, layers_on_gpu, monkeypatch):
    """With few rows the kernel multiplies itself, with many torch does; gradients through autograd."""
    tf32 = dtype == "tf32"
    monkeypatch.setattr(_precision, "products_in_tf32", lambda dtype: tf32)
    dtype = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    mine, oracle = cases.pair(cases.cell, cell_name, I, H, dtype, bias=bias)
    x = torch.randn(B, I).to(dtype).requires_grad_()
    h = (torch.randn(B, H) * 0.5).to(dtype).requires_grad_()
    c = (torch.randn(B, H) * 0.5).to(dtype).requires_grad_()
    hx = None if not state else (h, c) if cell_name == "LSTMCell" else h
    x64, hx64 = cases.oracle_of(x, hx)
    got, want = cases.flat(mine(x, hx)), cases.flat(oracle(x64, hx64))
    loose = (lambda ts: [t.to(torch.float16) for t in ts]) if tf32 else list  # both keep 10 bits of fraction
    close(loose(got), list(want), "value on tensor cores")
    w = [torch.randn_like(o) for o in want]
    close(
        loose(cases.grads(got, (x, *cases.flat(hx), *mine.parameters()), w)),
        list(cases.grads(want, (x64, *cases.flat(hx64), *oracle.parameters()), w)),
        "grad on tensor cores",
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("B", [5, 17, 40])
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_single_steps(cell_name, B, dtype):
    """The kernels of cells without autograd above them: AddressSanitizer cannot see torch throw."""
    spec, I, H = SPECS[cell_name], 7, 33
    G, passes = spec.gates, cuda_cells.passes(Engine(simt), spec)
    x, *states = ((torch.randn(B, n) * 0.5).to(dtype) for n in (I, H, H)[: 2 + (cell_name == "lstm")])
    weights = [(torch.randn(*n) / 6).to(dtype) for n in ((G * H, I), (G * H, H), (G * H,), (G * H,))]
    inputs = cases.oracle_of(x, *states, *weights)
    formula = getattr(reference, f"{spec.name}_cell")
    args = (*inputs[: 1 + len(states)], list(inputs[1 + len(states) :]))
    want = cases.flat(formula(*args, False) if cell_name == "rnn_tanh" else formula(*args))
    call = (x, *(*states, None)[:2], weights, False, None)
    h_out, c_out, gates, kept = passes.forward(*call, None, True)
    close([h_out] if c_out is None else [h_out, c_out], want, "value on tensor cores")
    grads = [torch.randn(B, H).to(dtype) for _ in want]
    saved = (h_out if cell_name == "rnn_tanh" else None, gates, kept)
    wanted = [t is not None for t in (*call[:3], *weights)]
    close(
        passes.backward(call, saved, (*grads, None)[:2], wanted),
        list(torch.autograd.grad(want, inputs, [g.double() for g in grads])),
        "grad on tensor cores",
    )


@pytest.mark.parametrize("B", [5, 40])
@pytest.mark.parametrize("cell_name", cases.CELLS)
def test_cells_give_only_the_gradients_asked_for(cell_name, B, layers_on_gpu):
    m = cases.cell(cell_name, 7, 33)
    x, h = torch.randn(B, 7), torch.randn(B, 33)
    states = [h, h + 0.1] if cell_name == "LSTMCell" else [h]
    tensors = [x, *states, *m.parameters()]

    def grads_of(some):
        for i, t in enumerate(tensors):
            t.requires_grad_(i in some)
        out = cases.flat(m(x, tuple(states) if len(states) == 2 else h))
        return dict(
            zip(some, torch.autograd.grad(sum(o.sum() for o in out), [tensors[i] for i in some]), strict=True)
        )

    everything = grads_of(range(len(tensors)))
    for i in range(len(tensors)):
        assert torch.equal(grads_of([i])[i], everything[i])


@pytest.mark.parametrize("cell_name", cases.CELLS)
def test_cells_in_any_order_give_the_same_bits(cell_name, layers_on_gpu):
    m, x = cases.cell(cell_name, 70, 130, dtype=torch.bfloat16), torch.randn(9, 70, dtype=torch.bfloat16)
    first = None
    for order in ORDERS:
        simt.set_order(*order)
        out = cases.flat(m(x))
        got = [*out, *torch.autograd.grad(sum(o.sum() for o in out), list(m.parameters()))]
        first = first or got
        assert all(torch.equal(a, b) for a, b in zip(got, first, strict=True)), order


@pytest.mark.parametrize("cell_name", cases.CELLS)
@pytest.mark.parametrize("B", [3, 40])
def test_nan_and_inf_travel_through_cells(cell_name, B, layers_on_gpu):
    m, x = cases.cell(cell_name, 70, 33), torch.randn(B, 70)
    with torch.no_grad():
        want = cases.flat(m(x))
        x[1, 4], x[2, 69] = torch.nan, torch.inf
        got = cases.flat(m(x))
    others = [b for b in range(B) if b not in (1, 2)]
    for a, b in zip(got, want, strict=True):
        assert a[1].isnan().all() and torch.equal(a[others], b[others])


@pytest.mark.parametrize("sms, shared_kib, major", [(108, 163, 8), (84, 99, 8), (132, 227, 9), (170, 99, 12)])
@pytest.mark.parametrize("cell_name", ("lstm", "gru", "rnn_tanh"))
def test_choice_of_cells_fits_the_device(cell_name, sms, shared_kib, major):
    simt.set_device(sms, shared_kib * 1024, major)
    ways = set()
    for dtype, B, I, H in itertools.product(
        ("bfloat16", "float32"), (1, 8, 9, 32, 33, 3000), (1, 100, 5000), (1, 64, 777, 2048)
    ):
        p = simt.gpu_cell_plan(cell_name, dtype, tf32=False, B=B, I=I, H=H, device=0)
        ways.add(p.multiplies)
        if p.multiplies:
            units = 8 // p.k_splits * (8 if cell_name == "lstm" else 16)
            assert p.shared_bytes <= shared_kib * 1024
            assert p.blocks * units >= H > (p.blocks - 1) * units
            assert p.groups * p.rows >= B > (p.groups - 1) * p.rows
    assert ways == {True, False}


@pytest.mark.parametrize(
    "change, error",
    [
        ({"h": torch.zeros(3, 8)}, "h: expected a contiguous tensor of shape"),
        ({"W": torch.zeros(36, 6)}, "W: expected a contiguous tensor of shape"),
        ({"W": None}, "W: expected"),
        ({"b_ih": torch.zeros(36, dtype=torch.float64)}, "b_ih: expected the dtype"),
        ({"x": torch.zeros(3, 7, dtype=torch.float64)}, "x: expected float32, bfloat16 or float16"),
        (
            {"x": torch.zeros(40, 7), "h": None, "h_out": torch.zeros(40, 9), "c_out": torch.zeros(40, 9)},
            "x_gates: expected",
        ),
        ({"c_out": None}, "c_out: expected"),
        ({"plan": ("lstm", "float32", False, 3, 8, 9, 0)}, "plan: expected one of B = 3, I = 7"),
    ],
)  # fmt: skip
def test_bad_arguments_of_cells(change, error):
    z = torch.zeros
    arguments = {
        "plan": None, "stream": 0, "x": z(3, 7), "h": z(3, 9), "c": None,
        "W": z(36, 7), "R": z(36, 9), "b_ih": None, "b_hh": None, "x_gates": None, "h_gates": None,
        "h_out": z(3, 9), "c_out": z(3, 9), "gates": None, "cells": None,
    }  # fmt: skip
    for more, told in (({}, None), (change, error)):
        given = arguments | more
        x = given["x"]
        dtype = str(x.dtype).removeprefix("torch.")
        given["plan"] = simt.gpu_cell_plan(*(given["plan"] or ("lstm", dtype, False, *x.shape, 9, 0)))
        with pytest.raises(ValueError, match=told) if told else contextlib.nullcontext():
            simt.gpu_cell_forward(*given.values())


@pytest.mark.parametrize("B", [3, 40])
def test_relu_passes_gradients_at_nan_in_cells(B, layers_on_gpu):
    mine, oracle = cases.pair(cases.cell, "RNNCell_relu", 70, 33, torch.float32)
    x = torch.randn(B, 70)
    x[1, 4] = torch.nan
    (x64,) = cases.oracle_of(x)
    x.requires_grad_()
    w = [torch.randn(B, 33, dtype=torch.float64)]
    got, want = (cases.grads([m(t)], [t], w) for m, t in ((mine, x), (oracle, x64)))
    assert want[0].isfinite().all()
    close(got, want, "grad on tensor cores")
