"""Many Python threads calling one module, and thread counts: the results of one by one."""

import concurrent.futures
import subprocess
import sys

import pytest
import torch
from cases import CELL_NAMES, CELLS, cell, flat, layer
from processes import WITH_TESTS
from tolerances import agree

THREADS = 2  # a call's work is divided


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
