"""Layers and cells with layer norms and with recurrent matrices of blocks on an NVIDIA GPU, against float64
on the CPU: `make gpu STAGE=test`."""

import copy

import cases
import fusegen
import pytest
import torch
from fusegen import _backend
from tolerances import close

DEVICE = "cuda"
HAVE = torch.cuda.is_available() and bool(fusegen._C.build_info()["cuda_archs"])
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HAVE, reason="needs an NVIDIA GPU and a build with CUDA kernels"),
]
KINDS = {
    **{f"LayerNormLSTM {norm}": {"norm": norm} for norm in ("haste", "ba", "dreamer")},
    **{f"LayerNormGRU {norm}": {"norm": norm, "block_diagonal": 8} for norm in ("haste", "ba", "dreamer")},
    **{f"BlockDiagonal{cell}": {"block_diagonal": 4} for cell in ("LSTM", "GRU", "RNN")},
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def results(m, x, dtype, device, **call):
    """Outputs and gradients of m there."""
    m, x = copy.deepcopy(m).to(device, dtype), x.to(device, dtype).requires_grad_()
    out = cases.flat(m(x, **call))
    weights = [torch.linspace(0.5, 1.5, o.numel(), device=device).to(dtype).view(o.shape) for o in out]
    return [t.cpu() for t in (*out, *cases.grads(out, (x, *m.parameters()), weights))]


def check(kind, dtype, x, cell="", **options):
    name = kind.partition(" ")[0] + cell
    call = {} if cell else {"lengths": [x.shape[0], 0, *range(1, x.shape[1] - 1)]}
    torch.manual_seed(0)
    m = getattr(fusegen.nn, name)(x.shape[-1], 64, **KINDS[kind], **options)
    m = m.to(dtype)  # rounded once, for both
    x = x.to(dtype)
    _backend.fallbacks.clear()
    got, again = (results(m, x, dtype, DEVICE, **call) for _ in range(2))
    assert not _backend.fallbacks
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
    close(got, results(m, x, torch.float64, "cpu", **call), "grad on tensor cores")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind, dtype):
    """Stacked, in both directions, ragged; twice the same bits."""
    check(kind, dtype, torch.randn(7, 6, 33), num_layers=2, bidirectional=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_cells(kind, dtype):
    check(kind, dtype, torch.randn(40, 33), "Cell")
