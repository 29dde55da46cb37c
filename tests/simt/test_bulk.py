"""Bulk copies in the emulator: the box that lands, what is zero of it, and the maps that a driver refuses."""

import pytest
import torch
from simt_cases import ORDERS

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")


@pytest.mark.parametrize("order", ORDERS[:3], ids=str)
@pytest.mark.parametrize(
    "rows, width, stride, x, y",
    [
        (64, 64, 128, 0, 0),
        (200, 136, 272, 64, 128),  # ends in the box, both ways
        (5, 3, 16, 0, 0),  # smaller than the box
        (130, 72, 160, 64, 128),  # rows padded
        (70, 70, 144, 64, 64),
        (64, 64, 128, 64, 0),  # past the last number
        (64, 64, 128, 0, 64),  # past the last row
        (64, 64, 128, -3, -1),  # before the first
    ],
)
def test_a_box(order, rows, width, stride, x, y):
    """The matrix's numbers where they lie in it, zeros elsewhere: not those between its rows."""
    simt.set_order(*order)
    memory = torch.arange(1, rows * stride // 2 + 1)
    matrix = memory.view(rows, stride // 2)[:, :width]
    want = torch.zeros(rows + 200, width + 200, dtype=torch.int64)
    want[64 : 64 + rows, 64 : 64 + width] = matrix
    want = want[64 + y : 128 + y, 64 + x : 128 + x]
    got = torch.tensor(simt.box(memory.tolist(), width, rows, stride, x, y)).view(64, 64)
    assert torch.equal(got, want)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"offset": 2}, "does not begin on 16 bytes"),
        ({"offset": 8}, "does not begin on 16 bytes"),
        ({"stride": 136}, "not a multiple of 16 bytes apart"),
        ({"stride": 112}, "or overlap"),
        ({"stride": 0}, "or overlap"),
        ({"width": 0}, "a size is out of range"),
        ({"rows": 0}, "a size is out of range"),
    ],
)
def test_a_map_that_the_driver_refuses(change, told):
    matrix = {"width": 64, "rows": 4, "stride": 128, "x": 0, "y": 0}
    numbers = list(range(1000))
    simt.box(numbers, **matrix)
    with pytest.raises(RuntimeError, match=f"CUDA: a tensor map: .*{told}"):
        simt.box(numbers, **matrix | change)


def test_no_bulk_copies_before_the_ninth_generation():
    simt.set_device(major=8)
    with pytest.raises(RuntimeError, match="no bulk copies on this device"):
        simt.box(list(range(1000)), 64, 4, 128, 0, 0)
