"""The basic blocks of a function, and its innermost loops."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from .machine import Instruction, Machine


@dataclass
class Function:
    symbol: str
    isa: str
    lines: list[str]
    machine: Machine

    @functools.cached_property
    def code(self) -> list[Instruction]:
        return [instruction for line in self.lines if (instruction := self.machine.parse(line))]


class Graph:
    """The basic blocks of a function, by the address of their first instruction, and what may follow each."""

    def __init__(self, function: Function, cold: dict[int, Function]):
        """`cold`: by the address of each instruction, what GCC has moved out of a function's body."""
        machine = self.machine = function.machine
        parts = [function.code]
        for part in parts:
            for i in part:
                other = cold.get(machine.target(i) or 0)
                if other and all(other.code is not known for known in parts):
                    parts.append(other.code)
        known = {i.address for part in parts for i in part}
        leaders = {t for part in parts for i in part if (t := machine.target(i)) in known}
        self.blocks: dict[int, list[Instruction]] = {}
        self.follows: dict[int, set[int]] = {}
        for part in parts:
            block: list[Instruction] = []
            for i in part:
                ended = not block or machine.jumps(block[-1])
                if ended or i.address in leaders:
                    if block and machine.goes_on(block[-1]):
                        self.follows[block[0].address].add(i.address)
                    block = self.blocks[i.address] = []
                    self.follows[i.address] = set()
                block.append(i)
        for start, block in self.blocks.items():
            self.follows[start] |= {machine.target(block[-1])} & self.blocks.keys()
        # A jump through a table may go wherever nothing else leads.
        led_to = set().union(*self.follows.values()) | {function.code[0].address}
        for start, block in self.blocks.items():
            if machine.jumps_anywhere(block[-1]):
                self.follows[start] |= self.blocks.keys() - led_to


Blocks = frozenset[int]
Follows = dict[int, set[int]]


def reached(start: int, follows: Follows, inside: Iterable[int]) -> set[int]:
    """The blocks among `inside` to which some way leads from `start`, which is one of them."""
    found, todo = {start}, [start]
    while todo:
        new = (follows.get(todo.pop(), set()) & inside) - found
        found |= new
        todo += new
    return found


def cycles(follows: Follows) -> Iterator[Blocks]:
    """The largest sets of blocks that each lead to each other."""
    comes_from: Follows = {block: set() for block in follows}
    for block, after in follows.items():
        for other in after:
            comes_from[other].add(block)
    left = set(follows)
    while left:
        block = min(left)
        forward = reached(block, follows, left)
        cycle = reached(block, comes_from, forward)
        if len(cycle) > 1 or block in follows[block]:
            yield frozenset(cycle)
        left -= cycle


def innermost_loops(follows: Follows, multiplies: Callable[[Iterable[int]], bool]) -> Iterator[Blocks]:
    """The loops that multiply and add, and hold no smaller one that does.

    A loop is a cycle; those inside it are the cycles that are left when nothing leads back to where it is
    entered: one block or, of a loop that is jumped into, several. Loops that begin at the same block are told
    apart by where they jump back from.
    """
    for cycle in cycles(follows):
        if not multiplies(cycle):
            continue
        entries = {b for a, after in follows.items() if a not in cycle for b in after & cycle} or {min(cycle)}
        inner = list(innermost_loops({a: (follows[a] & cycle) - entries for a in cycle}, multiplies))
        comes_from = {a: {b for b in cycle if a in follows[b]} for a in cycle - entries}
        lasts = [a for a in cycle if follows[a] & entries] if len(entries) == 1 else []
        bodies = {frozenset(reached(last, comes_from, cycle) | entries) for last in lasts}
        shared = [
            body
            for body in bodies
            if body != cycle
            and multiplies(body)
            and not any(other < body and multiplies(other) for other in [*bodies, *inner])
        ]
        yield from inner
        yield from shared
        rest = cycle.difference(*inner, *shared)
        if not inner and not shared:
            yield cycle
        elif shared and multiplies(rest):  # a branch of the same loop, or one around it: read it too
            yield rest


def stack_pointers(graph: Graph) -> dict[int, frozenset[str]]:
    """For each block the registers that may hold an address in the stack where it begins."""
    machine = graph.machine
    before = dict.fromkeys(graph.blocks, machine.stack)
    todo = [*reversed(graph.blocks)]
    while todo:
        block = todo.pop()
        pointers = before[block]
        for i in graph.blocks[block]:
            pointers = machine.pointers_after(i, pointers)
        for after in graph.follows[block]:
            if not pointers <= before[after]:
                before[after] |= pointers
                todo.append(after)
    return before
