"""The emulator finds the faults planted in kernels of its own (planted.cpp), and none in right ones."""

import math
import re

import pytest
from simt_cases import ORDERS, STUCK

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

RACE = r"^race at (global memory|byte \d+ of the shared memory of block \d+)"
LANES = r".*, of lane \d+ of block \d+.*; not ordered with what .*, of lane \d+ of block \d+"


@pytest.mark.parametrize(
    "fault, told",
    [
        ("missing arm", STUCK),
        ("unstarted barrier", "never started"),
        ("early end", "has ended|has not waited for bytes"),
        ("not waited for", "has ended|has not waited for bytes"),
        ("too many bytes", "gets more bytes than its phase expects|" + RACE),
        ("bytes out of range", r"counts to 2\^20-1"),
        ("divergence", "lanes of one warp are at different instructions"),
        ("wrong phase", "armed twice in one phase|" + RACE),
        ("one buffer too few", RACE + LANES),
        ("over-resident grid", "too many blocks in cooperative launch"),
        # data that a block might not see, whatever was read here
        ("race", RACE + LANES),
        ("missing barrier", RACE + LANES),
        ("missing release", RACE + LANES),
        ("missing acquire", RACE + LANES),
        ("early release", RACE + LANES),
        ("no flag", RACE + LANES),
        ("overwritten", RACE + LANES),
        # what runs beside the lanes
        ("copy not waited for", RACE + ".*a copy under way"),
        ("copy overwritten", RACE + LANES),
        ("missing proxy fence", RACE + ".*asynchronously"),
        ("bulk copy not waited for", RACE + ".*writes asynchronously"),
        ("bulk copy overwritten", RACE + LANES),
        ("bulk copy of unfenced stores", r"^race at global memory.*reads asynchronously"),
        ("bulk copy behind the wrong fence", r"^race at global memory.*reads asynchronously"),
        ("bulk copy onto unfenced stores", r"^race at byte \d+ of the shared.*writes asynchronously"),
        ("bulk copy of too many bytes", "gets more bytes than its phase expects"),
        ("bulk copy of too few bytes", STUCK + "|without end"),
        ("misaligned bulk copy", "not 128-byte aligned"),
    ],
)
def test_it_stops_at(fault, told):
    for order in ORDERS[:4]:
        simt.set_order(*order)
        with pytest.raises(RuntimeError, match=told):
            simt.planted(fault)


@pytest.mark.parametrize("fault", ["out of bounds", "impatient", "all at once"])
def test_it_shows(fault):
    """By results that differ between orders, or by NaN: the one that shared memory starts with, or that of a
    wait which ends before a block that starts late; or by a block that waits for one that has no room yet."""
    results = []
    for order in ORDERS:
        simt.set_order(*order)
        try:
            results.append(simt.planted(fault))
        except RuntimeError as error:
            assert STUCK in str(error) or re.match(RACE, str(error))
            results.append([math.nan])
    assert any(math.isnan(v) for r in results for v in r) or any(r != results[0] for r in results)


def test_it_finds_nothing_in_right_kernels():
    results = []
    for order in ORDERS:
        simt.set_order(*order)
        results.append(simt.planted("none"))
    assert all(r == results[0] for r in results) and not any(math.isnan(v) for v in results[0])


def test_every_planted_fault_is_tested():
    with pytest.raises(ValueError, match="no fault 'nonsense'"):
        simt.planted("nonsense")
    marks = (test_it_stops_at, test_it_shows)
    tested = {v[0] if isinstance(v, tuple) else v for t in marks for m in t.pytestmark for v in m.args[1]}
    assert tested | {"none"} == set(simt.planted_faults())


@pytest.mark.parametrize(
    "device, told",
    [
        ({"sms": 1}, "too many blocks in cooperative launch"),
        ({"shared_bytes": 0}, "more shared memory than a block may have"),
    ],
)
def test_a_launch_that_the_device_would_refuse(device, told):
    simt.set_device(**device)
    with pytest.raises(RuntimeError, match=f"CUDA: launch of a kernel: {told}"):
        simt.planted("impatient" if "sms" in device else "race")


def test_no_cluster_before_the_ninth_generation():
    simt.set_device(major=8)
    with pytest.raises(RuntimeError, match="no clusters on this device"):
        simt.planted("missing arm")
