"""How many instructions a step takes: as they stand in the loop over steps, and as warps execute them."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass

from .flow import Graph, Loop, is_product, is_wait, step_loop, turn_loop
from .listing import Function, Instruction
from .warp import Event


@dataclass(frozen=True)
class Part:
    """A loop inside the step without those inside it; or what is in none."""

    what: str
    header: int
    instructions: int
    times: int


def what_it_does(code: list[Instruction]) -> str:
    bases = Counter(i.base for i in code)
    names = {i.name for i in code}
    if any(map(is_product, code)):
        return "products"
    if bases["STAS"]:
        return "handing over, cluster"
    if any(map(is_wait, code)):
        return "waiting, cluster" if any(n.startswith("SYNCS") for n in names) else "waiting, L2"
    if bases["LDGSTS"] or bases["UBLKCP"]:
        return "gathering, L2"
    if bases["LDS"] and bases["FADD"]:
        return "adding up"
    return f"{bases.most_common(1)[0][0]} and others"


class Step:
    """A kernel's loop over steps, and what the warps of a block execute of it in a steady step."""

    def __init__(self, function: Function, traces: list[list[Event]], steps: int):
        """`steps`: of the launch that the traces are of, the first hand-over counted."""
        self.graph = Graph(function)
        loop = step_loop(self.graph)
        if loop is None:
            raise ValueError(f"{function.symbol}: no loop that multiplies on the tensor cores")
        self.loop: Loop = loop
        self.turn = turn_loop(self.graph, loop)
        place = {i.address: n for n, i in enumerate(function.code)}
        header = place[self.turn.header]
        self.steps = 1.0
        self.warps = [self._steady(trace, header, steps) for trace in traces]

    def _steady(self, trace: list[Event], header: int, steps: int) -> list[Event]:
        """A late pass that others follow; where a launch is a step, all of its pass."""
        starts = [n for n, e in enumerate(trace) if e.at == header]
        if steps == 1:
            return trace[starts[0] :] if starts else trace
        if len(starts) < 4:
            raise ValueError("too few steps to find a steady one")
        ratio = steps / len(starts)  # of a pass: slices go one after another, and the loop may be unrolled
        self.steps = round(ratio) if ratio > 0.8 else 1 / round(1 / ratio)
        return trace[starts[-3] : starts[-2]]

    @functools.cached_property
    def parts(self) -> list[Part]:
        code = self.graph.function.code
        inner = [x for x in self.graph.inside(self.loop) if not x.blocks >= self.turn.blocks]
        visits = [Counter(code[e.at].address for e in warp) for warp in self.warps]
        made, taken = [], set().union(*(x.blocks for x in inner)) if inner else set()
        outside = self.graph.code_of(self.loop.blocks - taken)
        made.append(Part("outside of inner loops", self.loop.header, len(outside), 1))
        for x in inner:
            own = x.blocks.difference(*(y.blocks for y in inner if y.blocks < x.blocks))
            times = max(v[x.header] for v in visits)  # 0 also where a wait ends before its loop begins
            made.append(
                Part(
                    what_it_does(self.graph.code_of(x.blocks)), x.header, len(self.graph.code_of(own)), times
                )
            )
        return made

    @property
    def standing(self) -> int:
        """The body once, inner loops times their trips."""
        return round(sum(part.instructions * part.times for part in self.parts) / self.steps)

    @property
    def busiest(self) -> list[Instruction]:
        """What the warp executes in a pass that executes most."""
        return [self.graph.function.code[e.at] for e in max(self.warps, key=len)]

    @property
    def executed(self) -> int:
        return round(len(self.busiest) / self.steps)
