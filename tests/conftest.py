"""Which engine is tested, fixed seeds and threads, and outputs that start as NaN."""

import os
import sys
from pathlib import Path

import fusegen
import pytest
import torch

# The emulator of the CUDA kernels, _simt, is no part of the package: `make test` builds it beside the engine.
# FUSEGEN_SIMT_MODULE names a folder with another build of it: CI's, under AddressSanitizer.
if "FUSEGEN_SIMT_MODULE" in os.environ:
    folders = [Path(os.environ["FUSEGEN_SIMT_MODULE"])]
    if not any(folders[0].glob("_simt*.so")):
        raise FileNotFoundError(f"FUSEGEN_SIMT_MODULE: expected a folder with _simt*.so, got {folders[0]}")
else:
    tag = "cp{}{}-*".format(*sys.version_info)
    folders = (Path(__file__).resolve().parents[1] / "build").glob(tag)
sys.path += map(str, folders)

# For all tests; else a module says how many in THREADS. One is the default, since small calls gain nothing
# from a second thread, and `make test` runs a second process beside this one.
THREADS = os.environ.get("FUSEGEN_TEST_THREADS")


def pytest_report_header(config):
    isa = fusegen._C.isa()
    others = ", ".join(fusegen._C.available_isas())
    return f"fusegen {fusegen.__version__}, engine {isa} (available: {others}), torch {torch.__version__}"


def pytest_make_parametrize_id(val, argname):
    """Tests of bytes are named after the argument: gzip's bytes hold the time of day, and two processes
    would not agree on the name."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items):
    """Nor on an object's address."""
    if named := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"{named[0]}: expected a name that is the same in every process")


@pytest.fixture(autouse=True)
def _steady(request):
    """The same seed, thread count and backend for every test."""
    torch.manual_seed(0)
    torch.set_num_threads(int(THREADS or getattr(request.module, "THREADS", 1)))
    before = fusegen.get_backend()
    fusegen.set_backend("fused")
    yield
    fusegen.set_backend(before)


@pytest.fixture
def poisoned():
    """Every torch.empty is filled with NaN, so that an output element the kernels do not write shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def saved_bytes():
    """A function: bytes that autograd keeps for backward while ``run()`` runs, each memory once, without
    ``known``."""

    def measure(run, known=()):
        kept = {t.untyped_storage().data_ptr() for t in known}
        seen: dict[int, int] = {}

        def pack(t):
            storage = t.untyped_storage()
            if storage.data_ptr() not in kept:
                seen[storage.data_ptr()] = storage.nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            result = run()
        del result
        return sum(seen.values())

    return measure
