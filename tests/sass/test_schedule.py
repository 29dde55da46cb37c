"""tools/sass/schedule.py puts the cycles of a step together."""

from dataclasses import replace

import pytest
from sass.schedule import Prices, model
from sass.warp import Event

LATENCY = {
    "shared memory": 30, "L2": 200, "global memory": 500, "another block's shared memory": 180, "to L2": 100,
    "constants": 30, "special function": 24, "special register": 24, "shuffle": 24, "block barrier": 30,
    "barrier of bytes": 30, "fence of the GPU": 200, "fence of the system": 400, "sequential fence": 400,
    "invalidated L1": 29, "operands read": 12, "wgmma": 32,
}  # fmt: skip
OCCUPIES = {"float": 1, "integer": 2, "special function": 8, "tensor core": 6, "other": 1}
PRICES = Prices(LATENCY, OCCUPIES, shared_pass=1, global_line=2, bytes_sent=16, wgmma_of_n=0.5)

WAIT = "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2 # sets=1"


@pytest.fixture
def cycles(function):
    """Of a pass: the same lines by each warp; `off` are lines in which no lane takes part."""

    def cycles(lines, warps=1, prices=PRICES, slices=1, off=(), own=None):
        code = function(lines).code
        traces = [[Event(n, 0 if n in off else 1) for n in range(len(code))] for _ in range(warps)]
        if own:
            traces = [[Event(n) for n in places] for places in own]
        return model(code, traces, prices, slices).cycles

    return cycles


def test_fixed_latencies_are_the_compiler_s(cycles):
    assert cycles("FADD R1, R2, R3 # stall=4\n FADD R4, R1, R1 # stall=5\n NOP # stall=2") == 11


def test_a_load_is_waited_for_where_its_scoreboard_is_named(cycles):
    load, use = "LDG.E R1, desc[UR8][R2.64] # sets=0", "FADD R4, R1, R1 # waits=1"
    assert cycles(f"{load}\n {use}") == pytest.approx(500 + 2 + 1)
    assert cycles(f"LDS R1, [R2] # sets=0\n {use}") == 30 + 1 + 1
    work = "FADD R5, R5, R5 # stall=15\n" * 40  # in its shadow
    assert cycles(f"{load}\n {work} {use}") == 1 + 600 + 1


def test_banks_in_conflict_take_longer(function):
    code = function("LDS R1, [R2] # sets=0\n FADD R4, R1, R1 # waits=1").code
    assert model(code, [[Event(0, 8), Event(1)]], PRICES).cycles == 8 + 30 + 1


@pytest.mark.parametrize(
    "line, each",
    [
        ("FADD R1, R2, R3", 1),
        ("IADD3 R1, R2, R3, RZ", 2),
        ("MUFU.EX2 R1, R2", 8),
        ("HMMA.16816.F32 R4, R8, R12, RZ", 6),
    ],
)
def test_warps_share_the_units_of_their_scheduler(cycles, line, each):
    lines = f"{line}\n" * 20
    assert cycles(lines, warps=8) == pytest.approx(2 * 20 * each, abs=each)
    assert cycles(lines, warps=4) == pytest.approx(20 * each, abs=each)


def test_the_multiply_is_another_unit_than_the_add(cycles):
    assert cycles("IADD3 R1, R2, R3, RZ\n IMAD R4, R5, R6, RZ\n" * 10) == pytest.approx(20, abs=2)


def test_a_block_barrier_waits_for_the_last_warp(cycles):
    lines = "NOP # stall=1\n NOP # stall=15\n BAR.SYNC.DEFER_BLOCKING 0x0\n"
    assert cycles(lines, own=[[0, 2], [0, 1, 1, 1, 1, 2]]) == pytest.approx(61 + 30, abs=1)


def test_what_is_handed_over_takes_its_way(cycles):
    """From the send to the wait of the next pass: sending 512 bytes, the way, the look."""
    lines = f"{WAIT}\n NOP # waits=2\n STAS.128 [R2.64], R4"
    assert cycles(lines) == pytest.approx(1 + 128 / 16 + 180 + 30, abs=2)
    slower = replace(PRICES, bytes_sent=1)
    assert cycles(lines, prices=slower) == pytest.approx(1 + 128 + 180 + 30, abs=2)
    # two slices by turns: each waits for what its own turn before has sent
    assert cycles(lines, slices=2) == pytest.approx((128 / 16 + 180 + 30) / 2, abs=3)


def test_a_flag_through_l2_takes_a_fence_and_two_ways(cycles):
    lines = """
        LDG.E.STRONG.GPU R1, desc[UR8][R2.64] # sets=1
        NOP # waits=2
        MEMBAR.ALL.GPU # reads=0
        STG.E.STRONG.GPU desc[UR8][R2.64], R4 # waits=1
    """
    # the look goes out again every 200 cycles: half of that on average beyond store's and answer's way
    assert cycles(lines) == pytest.approx(200 + 2 + 100 + 200, abs=4)


def test_copies_are_waited_for_by_groups(cycles):
    lines = "LDGSTS.E.BYPASS.128 [R2], desc[UR8][R4.64]\n LDGDEPBAR # sets=0\n DEPBAR.LE SB0, 0x0\n NOP"
    assert cycles(lines) == pytest.approx(2 + 200 + 2, abs=2)
    assert cycles(lines.replace("SB0, 0x0", "SB0, 0x1")) == pytest.approx(200 / 2, abs=4)  # two are under way


def test_an_instruction_that_is_off_costs_its_issue_alone(cycles):
    assert cycles("LDS R1, [R2] # sets=0\n NOP # waits=1", off=(0,)) == 2
