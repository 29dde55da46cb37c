"""benchmarks/gpu/lstm_forward.cu, the ladder of docs/kernels.md: every version on the emulator, against its
plain loop."""

import pytest
import torch
from tolerances import TOLERANCE

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

LIMIT = TOLERANCE[torch.bfloat16, "ladder"]


@pytest.fixture(autouse=True)
def emulator():
    simt.set_order("forward")
    simt.set_device()
    yield
    simt.set_order("forward")


@pytest.mark.parametrize("version", range(1, 6))
@pytest.mark.parametrize("order", [("forward", 0), ("reverse", 0), ("random", 3)], ids=lambda o: o[0])
def test_a_version_computes_the_recurrence(version, order):
    simt.set_order(*order)
    assert simt.ladder_error(version, T=4, B=16, H=128) < LIMIT


def test_four_blocks_hand_h_on():
    for version in (4, 5):
        assert simt.ladder_error(version, T=5, B=8, H=256) < LIMIT


@pytest.mark.parametrize(
    "asked, told", [((6, 2, 8, 128), "version: "), ((1, 2, 8, 64), "H: "), ((1, 2, 9, 128), "B: ")]
)
def test_what_a_version_does_not_take_is_refused(asked, told):
    with pytest.raises(ValueError, match=told):
        simt.ladder_error(*asked)
