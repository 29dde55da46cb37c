"""Many Python threads calling one module, and thread counts: the results of one by one."""

import concurrent.futures
import subprocess
import sys
import sysconfig
import threading

import fusegen
import pytest
import torch
from cases import CELL_NAMES, CELLS, cell, flat, layer
from fusegen import _backend
from processes import WITH_TESTS
from tolerances import agree

THREADS = 2  # a call's work is divided
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def run(m, x):
    x = x.detach().requires_grad_()
    out = flat(m(x))
    return [*out, *torch.autograd.grad(sum(o.sum() for o in out), [x, *m.parameters()])]


@pytest.mark.parametrize(("make", "cell_name"), [(layer, k) for k in CELL_NAMES] + [(cell, k) for k in CELLS])
def test_calls_from_many_threads(make, cell_name):
    m = make(cell_name, 12, 24)
    inputs = [torch.randn(*((9, 5, 12) if make is layer else (5, 12))) for _ in range(24)]
    with concurrent.futures.ThreadPoolExecutor(
        6, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
    ) as pool:
        futures = [pool.submit(run, m, x) for x in inputs]
        got = [f.result() for f in futures]
    for x, g in zip(inputs, got, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(g, run(m, x), strict=True))


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_thread_count_changes_little(cell_name):
    """One thread and two agree to rounding; the split of sums may differ."""
    m, x = layer(cell_name, 24, 40), torch.randn(7, 9, 24)
    torch.set_num_threads(2)
    two = run(m, x)
    torch.set_num_threads(1)
    for a, b in zip(run(m, x), two, strict=True):
        agree(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("B", "lengths", "wants_dx"),
    [(1, None, True), (5, None, True), (5, [0, 9, 3, 9, 1], True), (33, None, True), (7, None, False)],
)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_each_thread_takes_a_direction(cell_name, B, lengths, wants_dx, dtype):
    """Two directions, two threads: each direction runs on one thread, so to the same bits as on one."""
    m = layer(cell_name, 24, 40, bidirectional=True).to(dtype)
    x = torch.randn(9, B, 24, dtype=dtype).requires_grad_(wants_dx)
    wanted = [*([x] if wants_dx else []), *m.parameters()]

    def results(threads):
        torch.set_num_threads(threads)
        out = flat(m(x, lengths=lengths))
        return [*out, *torch.autograd.grad(sum(o.square().sum() for o in out), wanted)]

    for one, two in zip(results(1), results(2), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_backward_in_another_thread(cell_name):
    m, x = layer(cell_name, 12, 24), torch.randn(9, 5, 12)
    loss = flat(m(x))[0].sum()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(loss.backward).result()
    want = torch.autograd.grad(flat(m(x))[0].sum(), list(m.parameters()))
    for p, w in zip(m.parameters(), want, strict=True):
        agree(p.grad, w)


def test_fewer_threads_than_asked_for():
    """OpenMP may give fewer threads than a region asks for: shares must follow the real number."""
    program = """
import itertools, torch, fusegen
from tolerances import agree

fusegen.set_backend("fused")
torch.manual_seed(0)
for cell_name, B in itertools.product(("LSTM", "GRU", "RNN"), (1, 33)):
    layer = getattr(fusegen.nn, cell_name)(64, 64, bidirectional=True)
    x = torch.randn(9, B, 64, requires_grad=True)
    results = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        y = layer(x)[0]
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])])
    agree(*results, f"{cell_name}, B={B}")
"""
    environment = {**WITH_TESTS, "OMP_THREAD_LIMIT": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def together(n, run):
    """run(0) to run(n - 1), a thread each, begun at once; what they return."""
    begin = threading.Barrier(n)

    def begun(i):
        begin.wait()
        return run(i)

    with concurrent.futures.ThreadPoolExecutor(
        n, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
    ) as pool:
        return list(pool.map(begun, range(n)))


@pytest.mark.skipif(not FREE_THREADED, reason="needs a free-threaded interpreter (3.13t, 3.14t)")
def test_import_brings_no_gil_back():
    code = "import sys, torch, numpy, fusegen; sys.exit(sys._is_gil_enabled())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_gradients_accumulate_from_many_threads(cell_name):
    """Forward and backward of one layer; torch adds up the gradients of its weights."""
    m, x = layer(cell_name, 12, 24, bidirectional=True), torch.randn(9, 5, 12)
    want = torch.autograd.grad(flat(m(x))[0].sum(), list(m.parameters()))
    together(8, lambda _: flat(m(x))[0].sum().backward())
    for p, w in zip(m.parameters(), want, strict=True):
        agree(p.grad / 8, w)


def test_first_calls_at_once():
    """What is found out once is found out by threads that come first together, in a new process."""
    program = """
import concurrent.futures, threading, torch, fusegen
from cases import flat, layer

begin, m, x = threading.Barrier(8), layer("LSTM", 12, 24), torch.randn(9, 5, 12)

def run(_):
    torch.set_num_threads(1)
    begin.wait()
    return flat(m(x))[0]

with concurrent.futures.ThreadPoolExecutor(8) as pool:
    outputs = list(pool.map(run, range(8)))
assert all(torch.equal(y, outputs[0]) for y in outputs)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=WITH_TESTS, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_frozen_by_several_blocks_at_once():
    """Whichever ends first, the weights stay packed until the last."""
    m, x = layer("LSTM", 12, 24), torch.randn(9, 5, 12)
    first, second = fusegen.frozen(m), fusegen.frozen(m)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert m._frozen is not None
    second.__exit__(None, None, None)
    assert m._frozen is None

    def run(_):
        for _ in range(50):
            with torch.no_grad(), fusegen.frozen(m):
                y = m(x)[0]
        return y

    outputs = together(4, run)
    assert m._frozen is None
    assert all(torch.equal(y, outputs[0]) for y in outputs)


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_a_stream_each(cell_name):
    m, x = layer(cell_name, 12, 24, num_layers=2), torch.randn(20, 3, 12)

    def run(_):
        stream = fusegen.Stream(m, batch=3)
        return torch.stack([stream(step).clone() for step in x])

    want = run(0)
    assert all(torch.equal(got, want) for got in together(8, run))


def test_one_stream_for_all():
    """Calls take turns, and each gives its own: of a network that counts its steps, every number once."""
    m = layer("RNN_RELU", 1, 256, bias=False)
    with torch.no_grad():
        m.weight_ih_l0.fill_(1)
        m.weight_hh_l0.copy_(torch.eye(256))
    stream, ones = fusegen.Stream(m), torch.ones(50, 1, 1)
    got = together(8, lambda _: torch.cat([stream(ones, copy=True) for _ in range(20)]))
    counted = torch.cat(got).flatten(0, 1).sort(0).values
    assert torch.equal(counted, torch.arange(1.0, 8001).unsqueeze(1).expand(8000, 256))


@pytest.mark.parametrize("weight_only", [False, True])
def test_quantized_from_many_threads(weight_only):
    """The first calls pack the weights, all at once."""
    for _ in range(5):
        m, x = fusegen.quantize(layer("GRU", 12, 24), weight_only=weight_only), torch.randn(9, 5, 12)

        @torch.no_grad()
        def run(_, m=m, x=x):
            return m(x)[0]

        outputs = together(8, run)
        assert all(torch.equal(y, outputs[0]) for y in outputs)


def test_every_fallback_is_counted(monkeypatch):
    class Slow(dict):  # a thread that reads a count gives way to the others
        def __getitem__(self, key):
            count = super().__getitem__(key)
            threading.Event().wait(0.001)
            return count

    monkeypatch.setattr(_backend, "fallbacks", Slow(why=0))
    together(8, lambda _: _backend.note("why"))
    assert dict(_backend.fallbacks) == {"why": 8}
