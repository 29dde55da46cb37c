"""tools/sass reads what nvdisasm prints, and finds the loop over steps."""

import struct

import pytest
from sass import cases, listing
from sass.flow import Graph, step_loop, turn_loop

# As nvdisasm 13.5 prints two instructions of backward_bf16: a label, a guard, bits on two lines.
PRINTED = """
//--------------------- .text._Z1k --------------------------
\t.section\t.text._Z1k,"ax",@progbits
\t.align\t128
        .global         _Z1k
_Z1k:
.text._Z1k:
        /*0000*/                   HMMA.16816.F32.BF16 R28, R28, R164, RZ ;      /* 0x000000a41c1c723c */
                                                                                 /* 0x004fde00000418ff */
.L_x_1:
        /*0010*/              @!P2 BRA `(.L_x_1) ;                               /* 0xfffffffc00faa947 */
                                                                                 /* 0x000fde000083ffff */
        /*0020*/                   LDL R3, [R1+0x4] (*"SpillRefill"*) ;          /* 0x0000040001037983 */
                                                                                 /* 0x000ea20000100800 */
        /*0030*/                   LDG.E.U16 R2, desc[UR8][R2.64+0x10] ;         /* 0x0000100802027981 */
                                                                                 /* 0x000ea2000c1e1500 */
"""


def test_a_listing_is_read():
    (function,) = listing.read(PRINTED)
    product, branch, refill, load = function.code
    assert refill.operands == ("R3", "[R1+0x4]")
    assert function.symbol == "_Z1k" and function.labels[".L_x_1"] == 0x10
    assert product.operands == ("R28", "R28", "R164", "RZ") and product.base == "HMMA"
    assert product.pace == listing.Pace(stall=15, sets=7, reads=7, waits=4)
    assert branch.guard == "!P2" and branch.target == ".L_x_1"
    assert load.pace.sets == 2 and load.operands == ("R2", "desc[UR8][R2.64+0x10]")
    assert str(load) == "LDG.E.U16 R2, desc[UR8][R2.64+0x10]"


STEP = """
    MOV R1, 0x1
 step:
    SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2
 look:
    @P0 BRA -> there
    SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2
    BRA -> look
 there:
    HMMA.16816.F32 R4, R8, R12, RZ
    BSSY B0, -> met
    @P1 BRA -> other
 send:
    STAS.128 [R2.64], R4
    @P2 BRA -> send
    BSYNC B0
 other:
    IADD3 R1, R1, 0x1, RZ
    BSYNC B0
 met:
    @P3 BRA -> step
    EXIT
"""


def test_the_step_and_the_loops_inside_it_are_found(graph):
    g = graph(STEP)
    step = step_loop(g)
    assert step.header == 0x10 and turn_loop(g, step) == step
    assert [(len(x.blocks), x.header) for x in g.inside(step)] == [(2, 0x20), (1, 0x80)]
    # BSYNC goes where BSSY said, from both places
    assert g.follows[0xA0] == g.follows[0xB0] == {0xD0}


def test_the_loop_over_slices_is_the_turn(graph):
    g = graph("""
     step:
        MOV R1, RZ
     slice:
        SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2
        HMMA.16816.F32 R4, R8, R12, RZ
        @P1 BRA -> slice
        @P2 BRA -> step
        EXIT
    """)
    step = step_loop(g)
    assert step.header == 0 and turn_loop(g, step).header == 0x10


def test_products_in_no_loop_are_all_of_a_step(graph):
    g = graph("HMMA.16816.F32 R4, R8, R12, RZ\n @P0 BRA -> on\n NOP\n on:\n EXIT")
    assert step_loop(g).blocks == {0, 0x20, 0x30}


def test_code_without_products_has_no_step(graph):
    assert step_loop(graph("loop:\n IADD3 R1, R1, 0x1, RZ\n @P0 BRA -> loop\n EXIT")) is None


def test_constant_banks_are_read_from_the_cubin(tmp_path):
    names = b"\0.nv.constant0.k\0.shstrtab\0"
    header = struct.pack("<40xQ10xHHH", 64 + len(names), 64, 3, 2)
    section = lambda name, offset, size: struct.pack("<IIQQQQ24x", name, 1, 0, 0, offset, size)
    table = section(0, 0, 0) + section(1, 0, 0x3B8) + section(16, 64, len(names))
    (tmp_path / "a.cubin").write_bytes(header.ljust(64, b"\0")[:64] + names + table)
    assert cases.constant_bytes(tmp_path / "a.cubin") == {"k": 0x3B8}


def test_a_tool_that_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(listing, "tool", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install .* nvidia-cuda-nvdisasm"):
        listing.disassemble(tmp_path / "a.cubin")


def test_reachable_blocks_alone_have_loops(graph):
    g = Graph(graph("EXIT\n lost:\n HMMA.16816.F32 R4, R8, R12, RZ\n BRA -> lost").function)
    assert g.loops == []
