"""Which engine is tested, fixed seeds and threads, and outputs that start as NaN."""

import importlib.util
import os
import sys
from pathlib import Path

import fusegen
import pytest
import torch

# A folder with another build of the emulator's module: CI's, under AddressSanitizer.
if "FUSEGEN_SIMT_MODULE" in os.environ:
    path = next(Path(os.environ["FUSEGEN_SIMT_MODULE"]).glob("_simt*.so"))
    spec = importlib.util.spec_from_file_location("fusegen._simt", path)
    fusegen._simt = sys.modules["fusegen._simt"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fusegen._simt)

# For all tests; else a module says how many in THREADS. One is the default, since small calls gain nothing
# from a second thread, and `make test` runs a second process beside this one.
THREADS = os.environ.get("FUSEGEN_TEST_THREADS")


def pytest_report_header(config):
    isa = fusegen._C.isa()
    others = ", ".join(fusegen._C.available_isas())
    return f"fusegen {fusegen.__version__}, engine {isa} (available: {others}), torch {torch.__version__}"


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
