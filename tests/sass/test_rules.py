"""Every rule of tools/sass/rules.py is seen to be broken, and to be kept."""

import pytest
from sass.flow import step_loop
from sass.rules import Limits, findings

WAIT = "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2 # sets=1"
PRODUCT = "HMMA.16816.F32 R4, R8, R12, RZ"
CHAIN = "HMMA.16816.F32 R4, R8, R12, R4\n"
OTHER = "HMMA.16816.F32 R12, R8, R12, RZ\n"
LEAN = f"step:\n LDG.E.U16 R20, desc[UR8][R2.64] # sets=0\n {WAIT}\n {PRODUCT}\n @P1 BRA -> step\n EXIT"


def of_step(before="", after="", more=""):
    """A step that keeps all rules, with something before its wait, behind its product, behind the loop."""
    return f"""
     step:
        LDG.E.U16 R20, desc[UR8][R2.64] # sets=0
        {before}
        {WAIT}
        {PRODUCT}
        {after}
        FADD R30, R20, R4 # waits=1
        @P1 BRA -> step
        EXIT
        {more}
    """


# What breaks each rule, most of it as it stood in the kernels of 147aea8.
BROKEN = {
    "CALL": of_step(after="CALL.REL.NOINC -> slow", more="slow:\n RET.REL.NODEC R2"),
    "integer division": of_step(after="I2F.RP R5, R6\n MUFU.RCP R5, R5\n F2I.FTZ.U32.TRUNC.NTZ R5, R5"),
    "local memory": of_step(after="STL [R1], R4"),
    "generic load or store": of_step(after="LD.E.128 R40, desc[UR8][R2.64]"),
    "fences": of_step(after="MEMBAR.SC.GPU\n MEMBAR.ALL.GPU\n STG.E.STRONG.GPU desc[UR8][R2.64], R4"),
    "chained products": of_step(after=8 * CHAIN),
    "moves": of_step(after="IMAD.MOV.U32 R8, RZ, RZ, R9\n MOV R9, R10"),
    "loads behind the wait": of_step(
        after="LDG.E.U16 R21, desc[UR8][R2.64] # sets=2\n FADD R1, R21, R21 # waits=4"
    ),
    "loads waited for before the wait": of_step(before="IMAD.U32 R20, R20, 0x10000, RZ # waits=1"),
    "instructions of a step": of_step(),
}
# What looks like it and breaks none.
KEPT = {
    "a call elsewhere": of_step(more="CALL.REL.NOINC -> slow\n slow:\n RET.REL.NODEC R2"),
    "a conversion": of_step(after="I2F R5, R6"),
    "shared memory": of_step(after="LDS.128 R40, [R2]\n STS [R2], R40"),
    "a fence for a flag": of_step(after="MEMBAR.ALL.GPU\n STG.E.STRONG.GPU desc[UR8][R2.64], R4"),
    "a fence of the block": of_step(after="MEMBAR.ALL.CTA"),
    "eight in a chain": of_step(after=7 * CHAIN),
    "chains beside each other": of_step(after=7 * CHAIN + OTHER + 7 * CHAIN.replace("R4", "R12")),
    "a chain that was added up": of_step(after=7 * CHAIN + "FADD R4, R4, R5\n" + 7 * CHAIN),
    "a load of the next pass": of_step(after="LDG.E.U16 R21, desc[UR8][R2.64] # sets=2"),
    "one move": of_step(after="MOV R9, R10"),
    "a scoreboard of another": of_step(before="LDS R50, [R2] # sets=3\n FADD R51, R50, R50 # waits=8"),
}  # fmt: skip


def broken(graph, text, instructions=10):
    g = graph(text)
    return [f.rule for f in findings(g, step_loop(g), Limits(instructions=10), instructions) if f.broken]


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(graph, rule):
    assert broken(graph, BROKEN[rule], 11 if rule == "instructions of a step" else 10) == [rule]


@pytest.mark.parametrize("case", KEPT)
def test_what_keeps_the_rules_passes(graph, case):
    assert broken(graph, KEPT[case]) == []


def test_moves_are_those_that_a_step_executes(graph):
    g = graph(of_step(before="@P3 BRA -> on\n MOV R9, R10\n MOV R10, R9\n on:"))
    code = g.function.code
    both = [[i for i in code if i.base != skipped] for skipped in ("MOV", "BRA")]
    for executed, kept in zip(both, (True, False), strict=True):
        (found,) = (f for f in findings(g, step_loop(g), Limits(), 10, executed) if f.rule == "moves")
        assert found.broken != kept


def test_a_chain_goes_on_through_branches_and_moves(graph):
    skipped = of_step(after=4 * CHAIN + "@P2 BRA -> on\n MOV R16, R4\n on:\n" + 4 * CHAIN)
    assert broken(graph, skipped) == ["chained products"]
    moved = of_step(after=4 * CHAIN + "MOV R16, R4\n" + 4 * CHAIN.replace("R4", "R16"))
    assert broken(graph, moved) == ["chained products"]


def test_a_load_waited_for_in_another_block_is_found(graph):
    text = of_step(before="@P3 BRA -> on\n IADD3 R1, R1, 0x1, RZ\n on:\n FADD R51, R20, R20 # waits=1")
    assert broken(graph, text) == ["loads waited for before the wait"]


@pytest.mark.parametrize("waits, early", [("before", 1), ("behind", 0)])
def test_a_load_waited_for_before_warpgroups_multiply_is_found(graph, waits, early):
    """Theirs stand before the products, whatever the kernel waits for behind them."""
    use = "FADD R51, R20, R20 # waits=1"
    text = of_step(before=use if waits == "before" else "", after=use if waits == "behind" else "")
    g = graph(text.replace(PRODUCT, "HGMMA.64x64x16.F32.BF16 R4, R8, gdesc[UR4], RZ, !UPT"))
    found = findings(g, step_loop(g), Limits(waited_loads=None), 10)
    assert [len(f.where) for f in found if f.rule == "loads waited for before the products"] == [early]
    assert not any(f.broken for f in found if f.rule == "loads waited for before the wait")


def test_the_next_pass_is_not_this_one(graph):
    """What is loaded behind the back edge is used in the next pass, where it was long under way."""
    assert broken(graph, LEAN) == []
