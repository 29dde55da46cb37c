"""What must hold inside the loop over steps of a kernel's machine code."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .flow import Graph, Loop, is_product, is_wait, turn_loop
from .listing import NONE, Instruction

REGISTER = re.compile(r"\bR(\d+)\b")
# An instruction that only copies a register, or a constant into one.
MOVE = re.compile(r"MOV|IMAD\.MOV\.U32|UMOV")


@dataclass(frozen=True)
class Limits:
    """How much of each may stand in the loop."""

    calls: int = 0
    divisions: int = 0  # of integers, whose expansion takes a reciprocal of floats
    spills: int = 0  # loads and stores of local memory
    generic: int = 0  # loads and stores whose memory is found out at run time
    fences: float = 1  # of the GPU or the system, for each flag that is published
    chain: int = 8  # products of the tensor cores that wait for each other's sums
    moves: float = 1  # for each product, of a step as it runs or, unknown that, of the blocks that multiply
    late_loads: int = 0  # from global memory behind the wait for the other blocks
    waited_loads: int | None = 0  # whose numbers are waited for before it; None: they may be
    early_loads: int = 0  # whose numbers are waited for before warpgroups multiply, if they do
    instructions: int | None = None  # of a step


# -- Single instructions --------------------------------------------------------------------------------


def is_call(i: Instruction) -> bool:
    return i.base == "CALL"


def is_division(i: Instruction) -> bool:
    """Its first instruction: the divisor to float, rounded up (signed and unsigned, 32 and 64 bits)."""
    return i.base == "I2F" and "RP" in i.modifiers


def is_spill(i: Instruction) -> bool:
    return i.base in ("LDL", "STL")


def is_generic(i: Instruction) -> bool:
    return i.base in ("LD", "ST", "ATOM")


def is_move(i: Instruction) -> bool:
    if MOVE.fullmatch(i.name):
        return True
    # a register of the uniform path into one of the lane
    return i.name == "IMAD.U32" and i.operands[1:3] == ("RZ", "RZ")


def is_fence(i: Instruction) -> bool:
    return i.base == "MEMBAR" and not i.name.endswith(".CTA")


def is_published_flag(i: Instruction) -> bool:
    return (
        i.base in ("STG", "ST", "RED", "REDG", "ATOMG") and "STRONG" in i.modifiers and "GPU" in i.modifiers
    )


def is_plain_load(i: Instruction) -> bool:
    return i.base == "LDG" and "STRONG" not in i.modifiers


# -- Registers ------------------------------------------------------------------------------------------


def number(operand: str) -> int | None:
    found = REGISTER.search(operand)
    return int(found[1]) if found else None


def width(i: Instruction) -> int:
    """Registers of the result."""
    if is_product(i):
        return 4 if "F32" in i.modifiers else 2
    if "128" in i.modifiers:
        return 4
    return 2 if any(m in i.modifiers for m in ("64", "WIDE", "F64")) or i.base == "CS2R" else 1


def written(i: Instruction) -> range:
    """The registers of a lane that an instruction writes."""
    if not i.operands or i.base in ("STG", "STS", "ST", "STL", "STAS", "RED", "REDG", "BRA", "LDGSTS"):
        return range(0)
    first = number(i.operands[0]) if i.operands[0].startswith("R") else None
    return range(0) if first is None else range(first, first + width(i))


def longest_chain(graph: Graph, loop: Loop) -> int:
    """Of products that take the sums of one before; a loop inside is gone through once."""
    depth: dict[int, dict[int, int]] = {start: {} for start in loop.blocks}
    longest = 0
    place = {start: n for n, start in enumerate(graph.order)}
    for start in sorted(loop.blocks, key=lambda s: place[s]):
        of = dict(depth[start])
        for i in graph.blocks[start].code:
            given = 0
            if is_product(i):
                taken = number(i.operands[-1]) if i.operands[-1].startswith("R") else None
                given = of.get(taken, 0) + 1 if taken is not None else 1
                longest = max(longest, given)
            elif is_move(i) and (taken := number(i.operands[-1])) is not None:
                given = of.get(taken, 0)
            for register in written(i):
                of[register] = given
        for after in graph.follows[start]:
            if after in loop.blocks and place[after] > place[start]:
                for register, n in of.items():
                    depth[after][register] = max(depth[after].get(register, 0), n)
    return longest


# -- Order ----------------------------------------------------------------------------------------------


def ahead(graph: Graph, loop: Loop, start: int) -> set[int]:
    """The blocks that one pass of the loop can reach from `start`."""
    seen: set[int] = set()
    todo = [start]
    while todo:
        new = (graph.follows[todo.pop()] & loop.blocks) - seen - {loop.header}
        seen |= new
        todo += new
    return seen


def is_waited_for(load: Instruction, code: Iterable[Instruction]) -> bool:
    return load.pace.sets != NONE and any(i.pace.waits >> load.pace.sets & 1 for i in code)


def late_loads(graph: Graph, loop: Loop) -> list[Instruction]:
    """Plain loads behind the wait that the same pass waits for; those of the next pass may stand there."""
    waiting = [b for b in loop.blocks if any(is_wait(i) for i in graph.blocks[b].code)]
    behind = set().union(*(ahead(graph, loop, b) for b in waiting))
    late = []
    for b in sorted(behind | set(waiting)):
        code = graph.blocks[b].code
        first = 0 if b in behind else next(n for n, i in enumerate(code) if is_wait(i))
        for n, load in enumerate(code[first:], first):
            if is_plain_load(load):
                rest = code[n + 1 :] + graph.code_of(ahead(graph, loop, b))
                late += [load] * is_waited_for(load, rest)
    return late


def until_wait(code: Iterable[Instruction]) -> list[Instruction]:
    return list(itertools.takewhile(lambda i: not is_wait(i), code))


def waited_loads(graph: Graph, loop: Loop) -> list[Instruction]:
    """Plain loads before the wait whose scoreboard an instruction waits for before it, too."""
    waiting = {b for b in loop.blocks if any(is_wait(i) for i in graph.blocks[b].code)}
    before = {b for b in loop.blocks - waiting if ahead(graph, loop, b) & waiting} | waiting
    found = []
    for b in sorted(before):
        code = until_wait(graph.blocks[b].code)
        further = ahead(graph, loop, b) & before if b not in waiting else set()
        later = [i for other in sorted(further) for i in until_wait(graph.blocks[other].code)]
        found += [
            load
            for n, load in enumerate(code)
            if is_plain_load(load) and is_waited_for(load, code[n + 1 :] + later)
        ]
    return found


def early_loads(code: list[Instruction]) -> list[Instruction]:
    """Plain loads before a warpgroup's first product that are waited for before it, in the code's order."""
    first = next((n for n, i in enumerate(code) if i.base == "HGMMA"), 0)
    return [
        load
        for n, load in enumerate(code[:first])
        if is_plain_load(load) and is_waited_for(load, code[n + 1 : first])
    ]


# -- All of them ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    rule: str
    found: float
    limit: float
    where: tuple[Instruction, ...] = ()

    @property
    def broken(self) -> bool:
        return self.found > self.limit


def findings(
    graph: Graph,
    loop: Loop,
    limits: Limits,
    instructions: int | None = None,
    executed: list[Instruction] | None = None,
) -> list[Finding]:
    """Every rule, kept or broken. Of a case that was run: how many instructions a step is, and those that the
    busiest warp executes.
    """
    code = graph.code_of(loop.blocks)
    multiplying = [b for b in loop.blocks if any(map(is_product, graph.blocks[b].code))]
    run = executed if executed is not None else graph.code_of(multiplying)
    moves = tuple(i for i in run if is_move(i))

    def all_of(rule: str, test: Callable[[Instruction], bool], limit: float) -> Finding:
        hits = tuple(i for i in code if test(i))
        return Finding(rule, len(hits), limit, hits)

    turn = turn_loop(graph, loop)
    late, early = late_loads(graph, turn), early_loads(code)
    waited = waited_loads(graph, turn) if limits.waited_loads is not None else []
    flags = sum(is_published_flag(i) for i in code)
    made = [
        all_of("CALL", is_call, limits.calls),
        all_of("integer division", is_division, limits.divisions),
        all_of("local memory", is_spill, limits.spills),
        all_of("generic load or store", is_generic, limits.generic),
        all_of("fences", is_fence, limits.fences * flags),
        Finding("chained products", longest_chain(graph, loop), limits.chain),
        Finding("moves", len(moves), limits.moves * sum(map(is_product, run)), moves),
        Finding("loads behind the wait", len(late), limits.late_loads, tuple(late)),
        Finding("loads waited for before the wait", len(waited), limits.waited_loads or 0, tuple(waited)),
        Finding("loads waited for before the products", len(early), limits.early_loads, tuple(early)),
    ]
    if instructions is not None and limits.instructions is not None:
        made.append(Finding("instructions of a step", instructions, limits.instructions))
    return made
