"""Blocks, natural loops and the loop over steps of a function."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from .listing import Function, Instruction

LEAVES = frozenset(("EXIT", "RET", "KILL", "BPT"))
BRANCHES = frozenset(("BRA", "JMP", "BRX", "JMX"))


@dataclass
class Block:
    start: int  # address of its first instruction
    code: list[Instruction]


@dataclass(frozen=True)
class Loop:
    header: int
    blocks: frozenset[int]


def unconditional(i: Instruction) -> bool:
    return not i.guard or i.guard in ("PT", "UPT")


class Graph:
    """The blocks of a function by their start, and what may follow each.

    BSYNC goes on where the BSSY of its barrier register says, which stands right behind it in most code and
    is a label of its own in some. A CALL comes back; what it calls is no part of the caller's flow.
    """

    def __init__(self, function: Function):
        self.function = function
        code = function.code
        at = {i.address: n for n, i in enumerate(code)}
        goes = {i.address: self._targets(i) for i in code}
        leaders = {code[0].address} | set(function.labels.values())
        leaders |= {t for targets in goes.values() for t in targets}
        for before, i in itertools.pairwise(code):
            if before.base in LEAVES | BRANCHES | {"BSYNC"}:
                leaders.add(i.address)
        self.blocks: dict[int, Block] = {}
        for i in code:
            if i.address in leaders:
                block = self.blocks[i.address] = Block(i.address, [])
            block.code.append(i)
        self.follows: dict[int, set[int]] = {}
        for start, block in self.blocks.items():
            last = block.code[-1]
            after = set(goes[last.address])
            next_at = at[last.address] + 1
            ends = last.base in LEAVES or last.base in BRANCHES
            if not (ends and unconditional(last)) and next_at < len(code) and last.base != "BSYNC":
                after.add(code[next_at].address)
            self.follows[start] = after
        self._follow_barriers(at)

    def _targets(self, i: Instruction) -> set[int]:
        if i.base in BRANCHES and i.target:
            return {self.function.labels[i.target]}
        return set()

    def _follow_barriers(self, at: dict[int, int]) -> None:
        """BSYNC B: to the targets of the BSSYs of B that reach it."""
        Reach = dict[str, frozenset[int]]
        before: dict[int, Reach] = {start: {} for start in self.blocks}
        todo = [min(self.blocks)]
        seen = set(todo)
        while todo:
            start = todo.pop()
            state = dict(before[start])
            for i in self.blocks[start].code:
                if i.base == "BSSY":
                    state[i.operands[0]] = frozenset({self.function.labels[i.target]})
                elif i.base == "BSYNC":
                    targets = state.get(i.operands[0], frozenset())
                    code = self.function.code
                    self.follows[start] |= targets or {code[at[i.address] + 1].address}
            for after in self.follows[start]:
                merged = {b: before[after].get(b, frozenset()) | t for b, t in state.items()}
                grown = {**before[after], **merged}
                if grown != before[after] or after not in seen:
                    before[after] = grown
                    seen.add(after)
                    todo.append(after)

    @functools.cached_property
    def comes_from(self) -> dict[int, set[int]]:
        before: dict[int, set[int]] = {start: set() for start in self.blocks}
        for start, after in self.follows.items():
            for other in after:
                before[other].add(start)
        return before

    @functools.cached_property
    def order(self) -> list[int]:
        """Reverse postorder of what can be reached."""
        done: list[int] = []
        seen: set[int] = set()
        stack: list[tuple[int, Iterable[int]]] = [(min(self.blocks), iter(()))]
        seen.add(min(self.blocks))
        stack = [(min(self.blocks), iter(sorted(self.follows[min(self.blocks)])))]
        while stack:
            start, rest = stack[-1]
            for other in rest:
                if other not in seen:
                    seen.add(other)
                    stack.append((other, iter(sorted(self.follows[other]))))
                    break
            else:
                done.append(start)
                stack.pop()
        return done[::-1]

    @functools.cached_property
    def dominator(self) -> dict[int, int]:
        """The immediate one of each block (Cooper, Harvey and Kennedy, 2001)."""
        place = {start: n for n, start in enumerate(self.order)}
        entry = self.order[0]
        found = {entry: entry}

        def meet(a: int, b: int) -> int:
            while a != b:
                while place[a] > place[b]:
                    a = found[a]
                while place[b] > place[a]:
                    b = found[b]
            return a

        changed = True
        while changed:
            changed = False
            for start in self.order[1:]:
                known = [b for b in self.comes_from[start] if b in found]
                new = functools.reduce(meet, known)
                if found.get(start) != new:
                    found[start] = new
                    changed = True
        return found

    def dominates(self, a: int, b: int) -> bool:
        while b != a and b != self.dominator[b]:
            b = self.dominator[b]
        return a == b

    @functools.cached_property
    def loops(self) -> list[Loop]:
        """Natural loops, those of one header joined; the larger first."""
        bodies: dict[int, set[int]] = {}
        reachable = set(self.order)
        for last in self.order:
            for header in self.follows[last]:
                if not self.dominates(header, last):
                    continue
                body = bodies.setdefault(header, {header})
                todo = [last]
                while todo:
                    block = todo.pop()
                    if block not in body:
                        body.add(block)
                        todo += self.comes_from[block] & reachable
        loops = [Loop(header, frozenset(body)) for header, body in bodies.items()]
        return sorted(loops, key=lambda loop: -len(loop.blocks))

    def code_of(self, blocks: Iterable[int]) -> list[Instruction]:
        return [i for start in sorted(blocks) for i in self.blocks[start].code]

    def inside(self, loop: Loop) -> list[Loop]:
        """The loops in a loop, of all depths."""
        return [other for other in self.loops if other.blocks < loop.blocks]


def is_product(i: Instruction) -> bool:
    """Of the tensor cores."""
    return i.base in ("HMMA", "IMMA", "DMMA", "HGMMA", "QGMMA", "IGMMA")


def is_wait(i: Instruction) -> bool:
    """A look at whether others' numbers are there."""
    if i.base == "SYNCS":
        return "PHASECHK" in i.modifiers
    return i.base in ("LDG", "LD") and "STRONG" in i.modifiers


def step_loop(graph: Graph) -> Loop | None:
    """The loop over steps: the outermost one that multiplies on the tensor cores, or all of the code where no
    loop does; None where nothing is multiplied.
    """
    for loop in graph.loops:
        if any(map(is_product, graph.code_of(loop.blocks))):
            return loop
    if any(map(is_product, graph.function.code)):
        return Loop(min(graph.blocks), frozenset(graph.order))
    return None


def turn_loop(graph: Graph, step: Loop) -> Loop:
    """Within the loop over steps the one of which each pass waits, multiplies and publishes: over slices."""

    def whole(loop: Loop) -> bool:
        code = graph.code_of(loop.blocks)
        return any(map(is_product, code)) and any(map(is_wait, code))

    return min(
        (loop for loop in [step, *graph.inside(step)] if whole(loop)),
        key=lambda loop: len(loop.blocks),
        default=step,
    )
