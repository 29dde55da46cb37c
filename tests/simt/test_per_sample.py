"""Gradients of each sample on the CUDA kernels, in the emulator: one backward of all samples gives the gates'
gradients, of which a batched product a weight makes theirs, against a loop over samples in float64."""

import cases
import pytest
import torch
from cases import CELL_NAMES, CELLS, covering, flat
from fusegen import _backend, _precision
from fusegen.ops import cells, layers
from fusegen.ops.cuda import cells as cuda_cells
from fusegen.ops.cuda import layers as cuda_layers
from fusegen.ops.cuda.engine import Engine
from fusegen.ops.spec import CELLS as SPECS
from simt_cases import DTYPES
from simt_layers import WAYS
from tolerances import close
from torch.func import functional_call, grad, vmap

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

I, H, T, N = 5, 40, 4, 3  # N samples


def on_emulator(monkeypatch, tf32, way="best"):
    """Layers and cells run their CUDA passes on the emulator."""
    monkeypatch.setattr(_precision, "recurrence_in_tf32", lambda dtype: tf32)
    monkeypatch.setattr(_precision, "products_in_tf32", lambda dtype: tf32)
    engine = Engine(simt, way)
    for spec in SPECS:
        monkeypatch.setattr(layers.OPS[spec], "direct", cuda_layers.passes(engine, spec))
        monkeypatch.setattr(cells.OPS[spec], "direct", cuda_cells.passes(engine, spec))


def weighing(out):
    """A loss of every output, in which no two elements weigh alike."""
    return sum((t * torch.linspace(0.5, 1.5, t.numel()).to(t.dtype).view(t.shape)).sum() for t in flat(out))


def check(mine, oracle, samples, call):
    """``call(module, parameters, *sample)`` gives the loss. The gradients of each sample, ours and
    the oracle's, of the parameters and of what there is of samples in floating point."""
    tensors = [t for t in samples if t.is_floating_point()]

    def loss(params, *own):
        return call(mine, params, *own)

    args = (0, *(1 + i for i, t in enumerate(samples) if t.is_floating_point()))
    params = {name: p.detach() for name, p in mine.named_parameters()}
    _backend.fallbacks.clear()
    got, *of_samples = vmap(grad(loss, argnums=args), in_dims=(None, *[0] * len(samples)))(params, *samples)
    assert not _backend.fallbacks
    wide = {name: p.detach().double().requires_grad_() for name, p in mine.named_parameters()}
    want = []
    with cases.through_reference():
        for own in zip(*samples, strict=True):
            leaves = [t.double().requires_grad_() if t.is_floating_point() else t for t in own]
            into = [*wide.values(), *(t for t in leaves if t.is_floating_point())]
            want.append(torch.autograd.grad(call(oracle, wide, *leaves), into))
    want = [torch.stack(of) for of in zip(*want, strict=True)]
    assert len(of_samples) == len(tensors)
    return [*got.values(), *of_samples], want


def compare(got, want, tf32):
    got = [t.to(torch.float16) for t in got] if tf32 else got  # both keep 10 bits of fraction
    for g, w in zip(got, want, strict=True):
        close(g, w.nan_to_num(), "grad on tensor cores")


LAYERS = (
    CELL_NAMES,
    DTYPES,
    WAYS,
    (1, 2),  # directions
    (True, False),  # ragged
    (True, False),  # bias
    (1, 3, 17),  # sequences of a sample
)


def layer_cases():
    """relu's side of zero is open to rounding in fewer bits, so it is in float32."""
    for cell_name, dtype, *rest in covering(*LAYERS):
        yield cell_name, "float32" if cell_name == "RNN_RELU" else dtype, *rest


@pytest.mark.parametrize("cell_name, dtype, way, D, ragged, bias, B", list(layer_cases()))
def test_layers(cell_name, dtype, way, D, ragged, bias, B, monkeypatch):
    layers_of_one(cell_name, dtype, way, D, ragged, bias, B, monkeypatch)


@pytest.mark.parametrize("D, ragged", [(1, False), (2, True)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_projection(dtype, D, ragged, monkeypatch):
    layers_of_one("LSTM", dtype, "best", D, ragged, True, 3, monkeypatch, proj_size=13)


def layers_of_one(cell_name, dtype, way, D, ragged, bias, B, monkeypatch, **options):
    tf32, dtype = dtype == "tf32", torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    on_emulator(monkeypatch, tf32, way)
    units = 130 if way in ("l2", "cluster") else H  # of several blocks
    torch.manual_seed(B)
    options |= {"bidirectional": D == 2, "bias": bias}
    mine, oracle = (cases.layer(cell_name, I, units, dtype=of, **options) for of in (dtype, torch.float64))
    x, h = (torch.randn(N, T, B, I) * 0.5).to(dtype), (torch.randn(N, D, B, units) * 0.5).to(dtype)
    samples = [
        x,
        h if not mine.proj_size else h[..., : mine.proj_size],
        *([h] if cell_name == "LSTM" else []),
    ]
    if ragged:
        lengths = torch.randint(0, T + 1, (N, B))
        past = torch.arange(T).view(1, T, 1) >= lengths.unsqueeze(1)
        samples = [x.masked_fill(past.unsqueeze(-1), torch.nan), *samples[1:], lengths]

    def call(m, params, x, *more):
        hx = (more[0], more[1]) if cell_name == "LSTM" else more[0]
        return weighing(functional_call(m, params, (x, hx), {"lengths": more[-1]} if ragged else {}))

    compare(*check(mine, oracle, samples, call), tf32)


CELL_AXES = (CELLS, DTYPES, (True, False), (1, 3, 17))


@pytest.mark.parametrize("cell_name, dtype, bias, B", list(covering(*CELL_AXES)))
def test_cells(cell_name, dtype, bias, B, monkeypatch):
    """Of few rows in all the kernel multiplies, of many torch does."""
    dtype = "float32" if cell_name == "RNNCell_relu" else dtype
    tf32, dtype = dtype == "tf32", torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    on_emulator(monkeypatch, tf32)
    torch.manual_seed(B)
    mine, oracle = (cases.cell(cell_name, I, H, dtype=of, bias=bias) for of in (dtype, torch.float64))
    x, h, c = ((torch.randn(N, B, n) * 0.5).to(dtype) for n in (I, H, H))

    def call(m, params, x, *states):
        return weighing(functional_call(m, params, (x, states if len(states) == 2 else states[0])))

    compare(*check(mine, oracle, [x, h, c][: 3 if cell_name == "LSTMCell" else 2], call), tf32)
