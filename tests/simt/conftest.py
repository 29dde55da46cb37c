"""The emulator in its first state around every test, and fusegen's modules on it."""

import pytest
import torch
from fusegen import _precision
from fusegen.ops import cells, discriminator, layers
from fusegen.ops.cuda import cells as cuda_cells
from fusegen.ops.cuda import layers as cuda_layers
from fusegen.ops.cuda.engine import Engine, error_word


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    """The emulator in its first state."""
    simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")
    simt.set_order("forward")
    simt.set_device()
    simt.hang_at(0)
    simt.leave_free(0)
    simt.start_late(0, 0)
    simt.set_old_code(False)
    simt.let_clusters_fit(True)
    monkeypatch.setattr(_precision, "recurrence_in_tf32", lambda dtype: False)
    error_word(torch.device("cpu")).zero_()
    yield
    simt.set_order("forward")
    simt.set_device()
    simt.hang_at(0)
    simt.leave_free(0)
    simt.start_late(0, 0)
    simt.set_old_code(False)
    simt.let_clusters_fit(True)


@pytest.fixture
def layers_on_gpu(monkeypatch):
    """fusegen's modules on CPU tensors run the CUDA passes of their ops, on the emulator."""
    engine = Engine(pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it"))
    for ops, passes in ((layers.OPS, cuda_layers.passes), (cells.OPS, cuda_cells.passes)):
        for spec, op in ops.items():
            monkeypatch.setattr(op, "direct", passes(engine, spec))


@pytest.fixture
def step_on_gpu(emulated, monkeypatch):
    """The discriminator step's op on CPU tensors runs its CUDA passes, on the emulator."""
    simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")
    monkeypatch.setattr(_precision, "products_in_tf32", lambda dtype: False)
    monkeypatch.setattr(discriminator.OP, "direct", discriminator.cuda_passes(Engine(simt)))
