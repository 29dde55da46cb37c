"""recompute=k on a GPU: the output alone is kept, and every result is the same to the last bit."""

import pytest
import torch
from cases import flat, hidden, layer
from fusegen.ops import layers
from fusegen.ops.cuda import layers as cuda_layers
from fusegen.ops.cuda.engine import Engine
from fusegen.ops.spec import CELLS

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")


@pytest.fixture
def way(request, monkeypatch):
    """The layers run on the emulator, steps being handed on in this way."""
    for spec in CELLS:
        passes = cuda_layers.passes(Engine(simt, request.param), spec)
        monkeypatch.setattr(layers.OPS[spec], "direct", passes)


def results(m, x, hx, lengths, every):
    m.recompute = every
    leaves = [t.detach().requires_grad_() for t in (x, *flat(hx))]
    states = tuple(leaves[1:]) if len(leaves) > 2 else leaves[1]
    outputs = flat(m(leaves[0], states, lengths=lengths))
    torch.manual_seed(1)
    loss = sum((o.float() * torch.randn(o.shape)).sum() for o in outputs)
    return [*outputs, *torch.autograd.grad(loss, [*leaves, *m.parameters()])]


@pytest.mark.parametrize(
    ("way", "dtype"),
    [
        *((way, torch.float32) for way in ("best", "launch", "block", "l2", "cluster")),
        ("best", torch.bfloat16),
        ("best", torch.float16),
    ],
    indirect=["way"],
    ids=str,
)
@pytest.mark.parametrize(
    ("cell_name", "options"), [("LSTM", {}), ("LSTM", {"proj_size": 5}), ("GRU", {})], ids=str
)
def test_same_bits(cell_name, options, dtype, way):
    m = layer(cell_name, 7, 24, bidirectional=True, dtype=dtype, **options)
    x, hx = torch.randn(6, 3, 7, dtype=dtype), hidden(cell_name, m, 3, dtype)
    for lengths in (None, [6, 0, 4]):
        plain = results(m, x, hx, lengths, None)
        for ours, want in zip(results(m, x, hx, lengths, 4), plain, strict=True):
            assert torch.equal(ours, want)


@pytest.mark.parametrize("cell_name", ["LSTM", "GRU"])
def test_bytes(cell_name, layers_on_gpu, saved_bytes):
    m, x = layer(cell_name, 7, 24, recompute=4), torch.randn(9, 5, 7)
    assert saved_bytes(lambda: m(x), (x, *m.parameters())) == 4 * 9 * 5 * 24


def test_output_changed_in_place(layers_on_gpu):
    m, x, weight = layer("LSTM", 7, 24), torch.randn(9, 5, 7), torch.randn(9, 5, 24)
    found = []
    for every in (4, None):
        m.recompute = every
        y, _ = m(x)
        y *= 2
        found.append(torch.autograd.grad((y * weight).sum(), list(m.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
