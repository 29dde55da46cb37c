"""tools/sass/warp.py carries out what the way through a kernel depends on."""

import struct

import numpy as np
import pytest
from sass import cases
from sass.count import Step
from sass.warp import Block, Lost

LANE = "S2R R0, SR_LANEID"


@pytest.fixture
def run(function):
    """Runs lines on a block of one warp or more; gives the first warp's registers and the traces."""

    def run(lines, threads=32, constants=b"", special=None):
        from sass import warp

        block = Block(function(lines), constants, special or {}, cases.DOES, threads)
        warps = []
        original = warp.Warp.__init__

        def watched(self, *rest):
            original(self, *rest)
            warps.append(self)

        warp.Warp.__init__ = watched
        try:
            with np.errstate(all="ignore"):
                traces = block.run(20_000)
        finally:
            warp.Warp.__init__ = original
        assert not block.unknown
        return warps[0].r, traces

    return run


BIG = 0x89ABCDEF
# R1 = BIG, R2 = 7, R3 = -5, R4:R5 = 0x1_FFFFFFFE; P1 holds. An instruction, and what is then in R8 (and R9).
INTEGERS = {
    "IADD3 R8, R1, R2, -R3": (BIG + 12) & 0xFFFFFFFF,
    "IADD3 R8, P0, R4, R2, RZ": 5,
    "IADD3 R8, P0, R4, R2, RZ\n IADD3.X R8, R5, RZ, RZ, P0, !PT": 2,
    "IMAD R8, R2, R3, R2": -28 & 0xFFFFFFFF,
    "IMAD.WIDE R8, R3, R2, R4": (0x1FFFFFFFE - 35),
    "IMAD.WIDE.U32 R8, R3, 0x2, RZ": 2 * 0xFFFFFFFB,
    "IMAD.HI.U32 R8, R1, R1, RZ": BIG * BIG >> 32,
    "IMAD.SHL.U32 R8, R2, 0x10, RZ": 112,
    "IMAD.MOV R8, RZ, RZ, -R2": -7 & 0xFFFFFFFF,
    "LEA R8, R2, R1, 0x2": BIG + 28,
    "LEA.HI R8, R1, R2, RZ, 0x4": (BIG >> 28) + 7,
    "LEA.HI.X R8, R4, R2, R5, 0x1, !PT": 3 + 7,
    "LEA.HI.X.SX32 R8, R3, R2, 0x1, P1": (-1 + 7 + 1) & 0xFFFFFFFF,
    "SHF.R.S32.HI R8, RZ, 0x1f, R3": 0xFFFFFFFF,
    "SHF.R.U32.HI R8, RZ, 0x4, R1": BIG >> 4,
    "SHF.L.U32 R8, R1, 0x4, RZ": BIG << 4 & 0xFFFFFFFF,
    "SHF.L.U64.HI R8, R4, 0x4, R5": 0x1F,
    "SHF.R.U64 R8, R4, 0x4, R5": 0x1FFFFFFF,
    "SHF.L.W.U32.HI R8, R1, 0x8, R1": (BIG << 8 | BIG >> 24) & 0xFFFFFFFF,
    "LOP3.LUT R8, R1, 0xff, RZ, 0xc0, !PT": 0xEF,
    "LOP3.LUT R8, R1, R2, R3, 0x96, !PT": (BIG ^ 7 ^ -5) & 0xFFFFFFFF,
    "PRMT R8, R1, 0x5410, R2": (7 << 16 | 0xCDEF),
    "PRMT R8, R2, 0x654, R1": 0x07ABCDEF,
    "SEL R8, R1, R2, P1": BIG,
    "VIMNMX R8, R2, R3, PT": 0xFFFFFFFB,
    "VIMNMX.U32 R8, R2, R3, PT": 7,
    "VIMNMX3.U32 R8, R1, R2, R3, PT": 7,
    "VIMNMX3 R8, R1, R2, R3, !PT": 7,
    "IABS R8, R3": 5,
    "SGXT R8, R2, 0x3": 0xFFFFFFFF,
    "BMSK R8, R2, 0x4": 0x780,
    "POPC R8, R3": 31,
    "FLO.U32 R8, R2": 2,
    "P2R R8, PR, RZ, 0x7f": 2,
    "ISETP.LT.AND P2, PT, R3, R2, PT\n SEL R8, R2, RZ, P2": 7,
    "ISETP.LT.U32.AND P2, PT, R3, R2, PT\n SEL R8, R2, RZ, P2": 0,
    "ISETP.GT.U32.AND P2, PT, R4, R2, PT\n ISETP.GT.AND.EX P2, PT, R5, 0x1, PT, P2\n SEL R8, R2, RZ, P2": 7,
    "ISETP.NE.OR P2, P3, R2, 0x7, P1\n SEL R8, R2, RZ, P2": 7,
    "PLOP3.LUT P2, PT, P1, P1, PT, 0x80, 0x8\n SEL R8, R2, RZ, P2": 7,
    "UMOV UR4, 0x3\n UIADD3 UR5, UR4, 0x4, URZ\n IMAD.U32 R8, RZ, RZ, UR5": 7,
    "R2UR UR6, R1\n IMAD.U32 R8, RZ, RZ, UR6": BIG,
    "FADD R9, RZ, 1.5\n FFMA R8, R9, R9, 0.75": struct.unpack("<I", struct.pack("<f", 3.0))[0],
    "I2F.RP R9, R2\n F2I.FTZ.U32.TRUNC.NTZ R8, R9": 7,
    "HADD2.F32 R8, -RZ, R7.H1_H1": struct.unpack("<I", struct.pack("<f", 1.0))[0],
}  # fmt: skip


@pytest.mark.parametrize("text", INTEGERS)
def test_an_instruction_gives_what_it_should(run, text):
    registers, _ = run(f"""
        MOV R1, {BIG:#x}
        MOV R2, 0x7
        MOV R3, 0xfffffffb
        MOV R4, 0xfffffffe
        MOV R5, 0x1
        MOV R7, 0x3c000000
        ISETP.EQ.AND P1, PT, RZ, RZ, PT
        {text}
        EXIT
    """)
    expected = INTEGERS[text]
    found = int(registers.lanes[8][3])
    if "WIDE" in text:
        found |= int(registers.lanes[9][3]) << 32
    assert found == expected


def test_a_division_as_the_compiler_expands_it(run):
    """LANE * 1000 / 7, unsigned: by the reciprocal, and two corrections."""
    registers, _ = run(f"""
        {LANE}
        IMAD R1, R0, 0x3e8, RZ
        MOV R2, 0x7
        I2F.U32.RP R3, R2
        MUFU.RCP R3, R3
        VIADD R4, R3, 0xffffffe
        F2I.FTZ.U32.TRUNC.NTZ R5, R4
        IMAD.MOV.U32 R4, RZ, RZ, RZ
        IMAD.MOV R6, RZ, RZ, -R5
        IMAD R7, R6, R2, RZ
        IMAD.HI.U32 R5, R5, R7, R4
        IMAD.HI.U32 R8, R5, R1, RZ
        IMAD.MOV R6, RZ, RZ, -R8
        IMAD R6, R2, R6, R1
        ISETP.GE.U32.AND P0, PT, R6, R2, PT
        @P0 IMAD.IADD R6, R6, 0x1, -R2
        @P0 VIADD R8, R8, 0x1
        ISETP.GE.U32.AND P1, PT, R6, R2, PT
        @P1 VIADD R8, R8, 0x1
        EXIT
    """)
    assert registers.lanes[8].tolist() == [lane * 1000 // 7 for lane in range(32)]


def test_lanes_part_and_meet(run):
    registers, ((*trace,),) = run(f"""
        {LANE}
        ISETP.LT.AND P0, PT, R0, 0x8, PT
        BSSY B0, -> met
        @P0 BRA -> few
        MOV R1, 0x1
        BSYNC B0
     few:
        MOV R1, 0x2
        BSYNC B0
     met:
        IADD3 R1, R1, 0x10, RZ
        EXIT
    """)
    assert registers.lanes[1].tolist() == 8 * [0x12] + 24 * [0x11]
    assert [e.at for e in trace] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]  # what all do, they do once


def test_a_loop_runs_as_often_as_its_longest_lane(run):
    registers, (trace,) = run(f"""
        {LANE}
        MOV R1, RZ
     loop:
        IADD3 R1, R1, 0x1, RZ
        ISETP.LE.AND P0, PT, R1, R0, PT
        @P0 BRA -> loop
        EXIT
    """)
    assert registers.lanes[1].tolist() == list(range(1, 33)) and sum(e.at == 2 for e in trace) == 32


def test_numbers_of_lanes_are_gone_through_one_by_one(run):
    """As the compiler does where a uniform register is needed and lanes differ."""
    registers, (trace,) = run(f"""
        {LANE}
        LOP3.LUT R1, R0, 0x3, RZ, 0xc0, !PT
        PLOP3.LUT P3, PT, PT, PT, PT, 0x80, 0x0
     again:
        @P3 R2UR P2, UR6, R1
        @P3 IMAD.U32 R2, RZ, RZ, UR6
        @P3 PLOP3.LUT P3, PT, P2, PT, PT, 0x80, 0x0
        @P3 BRA.U.ANY -> again
        EXIT
    """)
    assert sum(e.at == 3 for e in trace) == 4 and registers.lanes[2].tolist()[-1] == 3


def test_a_call_comes_back(run):
    registers, _ = run("""
        MOV R2, 0x20
        CALL.REL.NOINC -> double
        EXIT
     double:
        IADD3 R1, R2, R2, RZ
        RET.REL.NODEC R2 -> kernel
    """)
    assert registers.lanes[1][0] == 0x40


def test_arguments_and_shared_memory(run):
    registers, (trace,) = run(
        f"""
        {LANE}
        LDC.64 R2, c[0x0][0x210]
        ULDC UR4, c[0x0][0x214]
        LEA R4, R0, R2, 0x2
        STS [R4+0x400], R0
        IMAD.SHL.U32 R5, R0, 0x80, RZ
        LDS R6, [R4+0x3fc]
        LDS.128 R8, [R5]
        LDG.E.U16 R12, desc[UR8][R2.64]
        EXIT
    """,
        constants=bytes(0x210) + struct.pack("<II", 0x100, 9),
    )
    assert registers.lanes[6].tolist() == [0, *range(31)] and registers.uniform[4][0] == 9
    assert registers.lanes[12][0] == 0x3C00
    passes = {e.at: e.wavefronts for e in trace}
    assert passes[4] == 1 and passes[7] == 32  # rows of 128 bytes: four lanes' words in one bank each


def test_registers_come_back_from_the_stack(run):
    registers, _ = run(f"""
        {LANE}
        MOV R1, 0x40
        MOV R2, 0x9
        MOV R3, R0
        STL.64 [R1+-0x8], R2
        ISETP.LT.AND P0, PT, R0, 0x4, PT
        @P0 STL [R1+-0x4], R2
        LDL R4, [R1+-0x8]
        LDL.LU R5, [R1+-0x4]
        EXIT
    """)
    assert registers.lanes[4][7] == 9 and registers.lanes[5].tolist() == [9] * 4 + list(range(4, 32))


def test_warps_meet_at_barriers(run):
    """The first warp reads what the second has written before the barrier."""
    registers, traces = run(
        """
        S2R R0, SR_TID.X
        ISETP.LT.AND P0, PT, R0, 0x20, PT
        @P0 BRA -> wait
        MOV R1, 0x5
        STS [RZ], R1
     wait:
        BAR.SYNC.DEFER_BLOCKING 0x0
        LDS R2, [RZ]
        EXIT
    """,
        threads=64,
    )
    assert registers.lanes[2][0] == 5 and len(traces) == 2


def test_a_wait_that_never_ends_is_an_error(run):
    with pytest.raises(Lost, match="wait for ever"):
        run(
            """
            S2R R0, SR_TID.X
            ISETP.LT.AND P0, PT, R0, 0x20, PT
            @P0 BAR.SYNC 0x1, 0x40
            BAR.SYNC 0x2, 0x40
            EXIT
        """,
            threads=64,
        )
    with pytest.raises(Lost, match="does not end"):
        run("loop:\n BRA -> loop")


def test_a_step_is_counted(function, run):
    lines = f"""
        {LANE}
        MOV R1, RZ
     step:
        SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2
        HMMA.16816.F32 R4, R8, R12, RZ
        MOV R2, RZ
     send:
        STAS.128 [R2.64], R4
        IADD3 R2, R2, 0x1, RZ
        ISETP.LT.AND P0, PT, R2, 0x3, PT
        @P0 BRA -> send
        ISETP.LT.AND P2, PT, RZ, RZ, PT
     never:
        @P2 BRA -> never
        IADD3 R1, R1, 0x1, RZ
        ISETP.LT.AND P1, PT, R1, 0x6, PT
        @P1 BRA -> step
        EXIT
    """
    _, traces = run(lines)
    assert Step(function(lines), traces, 12).standing == 10  # two steps a pass
    assert Step(function(lines), traces, 3).standing == 40  # two slices
    step = Step(function(lines), traces, 6)
    assert [(p.what, p.instructions, p.times) for p in step.parts] == [
        ("outside of inner loops", 7, 1),
        ("handing over, cluster", 4, 3),
        ("BRA and others", 1, 1),
    ]
    assert step.standing == 20 and step.executed == 20
