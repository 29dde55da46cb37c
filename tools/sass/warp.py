"""Runs a kernel's machine code for one block, to know which instructions each of its warps executes.

Integers, predicates, branches and shared memory are carried out; so are floats, plainly. Global memory gives
the same small number everywhere, a product of the tensor cores too; whatever a warp waits for is there. So
the way through the code is that of a case in which nothing is odd: no NaN, no wait in vain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .listing import Function, Instruction
from .operands import LANES, RZ, Flags, Operand, Registers, Words, parse, words

SHARED_WINDOW = 0x7FFF  # upper half of the generic addresses of shared memory
SMALL = 0x3C003C00  # what global memory holds: 1.0 in float16, 2^-7 in bfloat16 and float32

U64 = np.uint64
LOW = U64(0xFFFFFFFF)


@dataclass
class Event:
    """An instruction that a warp has executed."""

    at: int  # its place in the function's code
    wavefronts: int = 1  # passes through the banks of shared memory, or cache lines; 0: no lane takes part


# What changes nothing that the way depends on.
NOTHING = frozenset(
    (
        "NOP", "WARPSYNC", "YIELD", "NANOSLEEP", "ERRBAR", "CGAERRBAR", "MEMBAR", "CCTL", "FENCE", "DEPBAR",
        "LDGDEPBAR", "UCGABAR_ARV", "UCGABAR_WAIT", "RED", "REDG", "PREEXIT", "ACQBULK", "WARPGROUP",
        "WARPGROUPSET", "ENDCOLLECTIVE", "UBLKCP", "UTMALDG", "UTMASTG", "UTMAPF", "UTMACMDFLUSH", "UTMACCTL",
        "BMOV", "ARRIVES", "CCTLL", "USETMAXREG",
    )
)  # fmt: skip


class Lost(RuntimeError):
    """The code goes where it cannot be followed."""


@dataclass
class Block:
    """A block's threads, its shared memory, and the constant bank of its launch."""

    function: Function
    constants: bytes
    special: dict[str, int]
    does: dict[
        str, Callable[[Warp, Instruction, list[Operand], Flags, Event], None]
    ]  # by the name's first part
    threads: int = 256
    shared: np.ndarray = field(default_factory=lambda: np.zeros(256 * 1024, np.uint8))
    unknown: Counter = field(default_factory=Counter)  # instructions that were passed over
    parsed: dict[int, list[Operand]] = field(default_factory=dict)
    guards: dict[str, Operand] = field(default_factory=dict)

    def run(self, limit: int = 400_000) -> list[list[Event]]:
        """The trace of each warp."""
        warps = [Warp(self, index, limit) for index in range(self.threads // LANES)]
        ways = [warp.run() for warp in warps]
        arrived: dict[int, int] = {}
        waiting: dict[int, tuple[int, int]] = {}  # warp -> barrier, threads
        alive = set(range(len(warps)))
        while alive:
            for n in sorted(alive - waiting.keys()):
                for barrier, count, stays in ways[n]:
                    arrived[barrier] = arrived.get(barrier, 0) + LANES
                    if stays:
                        waiting[n] = (barrier, count)
                        break
                else:
                    alive.discard(n)
            full = {b for b, count in waiting.values() if arrived.get(b, 0) >= min(count, LANES * len(alive))}
            if alive and not full and alive <= waiting.keys():
                raise Lost(f"warps wait for ever at barriers {sorted(set(waiting.values()))}")
            for barrier in full:
                arrived[barrier] = 0
                waiting = {n: w for n, w in waiting.items() if w[0] != barrier}
        return [warp.trace for warp in warps]


Wait = tuple[int, int, bool]  # barrier, threads, whether the warp stays


class Warp:
    def __init__(self, block: Block, index: int, limit: int):
        self.block, self.index, self.limit = block, index, limit
        self.code = block.function.code
        self.place = {i.address: n for n, i in enumerate(self.code)}
        self.r = Registers()
        self.local: dict[int, Words] = {}  # of the stack, by address
        self.trace: list[Event] = []
        self.pc = np.zeros(LANES, np.int64)
        self.common: int | None = 0  # that of all lanes, if they are together
        self.alive = np.ones(LANES, bool)
        self.joins: dict[int, Flags] = {}  # of BSSY: the lanes that are to meet
        self.meets_at: dict[int, int] = {}  # and where they go on
        self.joined: dict[int, Flags] = {}  # those that have

    # -- The way through the code --

    def run(self) -> Iterator[Wait]:
        while self.alive.any():
            if self.common is not None:
                yield from self.execute(self.common, self.alive)
                continue
            held = np.zeros(LANES, bool)
            for lanes in self.joined.values():
                held |= lanes
            ready = self.alive & ~held
            if not ready.any():
                raise Lost(f"warp {self.index}: all lanes wait to meet")
            at = int(self.pc[ready].min())
            yield from self.execute(at, ready & (self.pc == at))

    def execute(self, at: int, lanes: Flags) -> Iterator[Wait]:
        i = self.code[at]
        o = self.block.parsed.get(at)
        if o is None:
            o = self.block.parsed[at] = [parse(text) for text in i.operands]
        mask = lanes & self.guard(i.guard) if i.guard else lanes
        event = Event(at)
        self.trace.append(event)
        if len(self.trace) > self.limit:
            raise Lost(f"warp {self.index} does not end; now at {i.address:#x}")
        if i.base in JUMPS:
            self.pc[lanes] = at + 1
            JUMPS[i.base](self, i, o, lanes, mask)
            pc = self.pc[self.alive]
            self.common = int(pc[0]) if len(pc) and not self.joined and (pc == pc[0]).all() else None
            return
        if self.common is None:
            self.pc[lanes] = at + 1
        else:
            self.common = at + 1
        if i.guard and not mask.any():
            event.wavefronts = 0
        elif i.base == "BAR":
            if i.modifiers[0] in ("SYNC", "RED", "ARV"):
                barrier = o[0].bits if o and o[0].kind == "number" else 0
                counted = len(o) > 1 and o[1].kind == "number"
                yield barrier, o[1].bits if counted else self.block.threads, i.modifiers[0] != "ARV"
        elif do := self.block.does.get(i.base):
            do(self, i, o, mask, event)
        elif i.base not in NOTHING:
            self.block.unknown[i.name] += 1

    def guard(self, text: str) -> Flags:
        known = self.block.guards
        if text not in known:
            known[text] = parse(text)
        return self.r.flag(known[text])

    # -- Operands --

    def bits(self, o: Operand) -> Words:
        """As they stand in a register, before signs."""
        if o.kind in ("R", "UR"):
            return self.r.file(o.kind)[o.index] if o.index != RZ else words(0)
        if o.kind == "number":
            return words(o.bits)
        if o.kind == "constant":
            return self.constant(o, 4)
        return words(0)

    def integer(self, o: Operand) -> Words:
        value = self.bits(o)
        if o.absolute:
            value = np.abs(value.view(np.int32)).view(np.uint32)
        if o.inverted:
            value = ~value
        return (~value + np.uint32(1)) if o.negative else value

    def number(self, o: Operand) -> np.ndarray:
        """As float32."""
        bits = self.bits(o)
        if o.half.startswith("H"):
            half = (bits >> np.uint32(16) if o.half.startswith("H1") else bits).astype(np.uint16)
            value = half.view(np.float16).astype(np.float32)
        else:
            value = bits.view(np.float32)
        value = np.abs(value) if o.absolute else value
        return -value if o.negative else value

    def wide(self, o: Operand) -> np.ndarray:
        """64 bits."""
        if o.kind in ("R", "UR"):
            value = self.r.wide(o.kind, o.index)
            return (~value + U64(1)) if o.negative else ~value if o.inverted else value
        if o.kind == "constant":
            return self.constant(o, 8)
        return np.full(LANES, o.bits, U64)

    def address(self, o: Operand) -> np.ndarray:
        total = np.zeros(LANES, U64)
        for kind, value in o.terms:
            if kind == "":
                total = total + U64(value & 0xFFFFFFFFFFFFFFFF)
            elif kind == "scale":
                total = total * U64(value)
            elif kind.endswith("64"):
                total = total + self.r.wide(kind[:-2], value)
            elif value != RZ:
                total = total + self.r.file(kind)[value].astype(U64)
        return total

    def constant(self, o: Operand, size: int) -> np.ndarray:
        at = self.address(o)
        known = self.block.constants
        kind = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[size]
        read = [int.from_bytes(known[int(a) : int(a) + size].ljust(size, b"\0"), "little") for a in (at[0],)]
        if (at == at[0]).all():
            return np.full(LANES, read[0], kind)
        return np.array([int.from_bytes(known[int(a) : int(a) + size], "little") for a in at], kind)

    def first(self, i: Instruction, o: list[Operand]) -> tuple[list[Operand], list[Operand], list[Operand]]:
        """Carries that go out, the three operands, carries that come in; all behind the result."""
        n = 1
        while n < len(o) and o[n].kind in ("P", "UP"):
            n += 1
        last = len(o)
        while last > n and o[last - 1].kind in ("P", "UP"):
            last -= 1
        return o[1:n], o[n:last], o[last:]


# -- Jumps ----------------------------------------------------------------------------------------------


def jump(w: Warp, i: Instruction, o: list[Operand], lanes: Flags, mask: Flags) -> None:
    if "DIV" in i.modifiers:  # lanes that do not run together: they do
        return
    for operand in o:
        if operand.kind in ("P", "UP"):
            mask = mask & w.r.flag(operand)
    if "ANY" in i.modifiers and mask.any():  # all go where one goes
        mask = lanes
    w.pc[mask] = w.place[w.block.function.labels[i.target]]


def leave(w: Warp, i: Instruction, o: list[Operand], lanes: Flags, mask: Flags) -> None:
    w.alive &= ~mask
    for b, joined in list(w.joined.items()):
        meet(w, b, joined)


def bssy(w: Warp, i: Instruction, o: list[Operand], lanes: Flags, mask: Flags) -> None:
    w.joins[o[0].index] = mask.copy()
    w.meets_at[o[0].index] = w.place[w.block.function.labels[i.target]]


def bsync(w: Warp, i: Instruction, o: list[Operand], lanes: Flags, mask: Flags) -> None:
    b = o[0].index
    if b in w.meets_at:
        w.pc[mask] = w.meets_at[b]
    meet(w, b, w.joined.get(b, np.zeros(LANES, bool)) | mask)


def meet(w: Warp, b: int, joined: Flags) -> None:
    wanted = w.joins.get(b, joined) & w.alive
    if (wanted & ~joined).any():
        w.joined[b] = joined & w.alive
    else:
        w.joined.pop(b, None)


def leave_join(w: Warp, i: Instruction, o: list[Operand], lanes: Flags, mask: Flags) -> None:
    for operand in o:
        if operand.kind in ("P", "UP"):
            mask = mask & w.r.flag(operand)
    b = next(operand.index for operand in o if operand.kind == "B")
    if b in w.joins:
        w.joins[b] = w.joins[b] & ~mask
        if b in w.joined:
            meet(w, b, w.joined[b])


def call(w: Warp, i: Instruction, o: list[Operand], lanes: Flags, mask: Flags) -> None:
    w.pc[mask] = w.place[w.block.function.labels[i.target]]


def back(w: Warp, i: Instruction, o: list[Operand], lanes: Flags, mask: Flags) -> None:
    to = w.bits(o[0])
    w.pc[mask] = [w.place[int(a)] for a in to[mask]]


JUMPS: dict[str, Callable[[Warp, Instruction, list[Operand], Flags, Flags], None]] = {
    "BRA": jump, "JMP": jump, "EXIT": leave, "KILL": leave, "BSSY": bssy, "BSYNC": bsync, "BREAK": leave_join,
    "CALL": call, "RET": back,
}  # fmt: skip
