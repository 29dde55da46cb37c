"""How long the warps of a block take for a step: their instructions in order, paced as the compiler wrote it.

A warp issues one instruction after another: as many cycles later as the one before says (that is how fixed
latencies are kept), and not before the scoreboards that it names are free. Warps share four schedulers, each
with its own units for floats, integers, special functions and products; the banks of shared memory, the way
to L2 and the way to other blocks are the SM's. A scheduler issues one instruction a cycle, of the warp that
may go first.

All blocks do the same at the same time, so what a warp waits for was sent when its own block sent it. Not
priced: fetching instructions, other kernels, clocks that fall, traffic of other clusters.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .flow import is_product, is_wait
from .listing import NONE, Instruction
from .warp import Event

SCHEDULERS = 4
FLOATS = frozenset(("FADD", "FMUL", "FFMA", "HADD2", "HFMA2", "HMUL2"))
SPECIAL = frozenset(("MUFU", "I2F", "F2I", "F2F"))
REGISTERS = frozenset(("S2R", "S2UR", "R2UR", "VOTE", "VOTEU", "CS2R", "ELECT"))
GLOBAL_LOADS = frozenset(("LDG", "LD"))
GLOBAL_STORES = frozenset(("STG", "ST", "RED", "REDG", "ATOMG"))


@dataclass(frozen=True)
class Prices:
    """In cycles; benchmarks/gpu/latencies.py has them with their sources."""

    latency: dict[str, float]
    occupies: dict[str, float]
    shared_pass: float
    global_line: float
    bytes_sent: float  # a cycle
    wgmma_of_n: float


def is_publication(i: Instruction) -> bool:
    """What another block waits for: numbers pushed into its shared memory, or a flag."""
    if i.base == "STAS":
        return True
    return i.base in GLOBAL_STORES and "STRONG" in i.modifiers and "GPU" in i.modifiers


def unit_of(i: Instruction) -> str:
    if is_product(i):
        return "tensor core"
    if i.base in FLOATS:
        return "float"
    if i.base in SPECIAL:
        return "special function"
    if i.base == "IMAD":  # on the units of floats, half of which can
        return "multiply"
    lane = not i.base.startswith(("U", "B", "E")) and i.base not in ("NOP", "WARPSYNC", "YIELD", "DEPBAR")
    memory = i.base.startswith(("LD", "ST", "ATOM", "RED", "MEMBAR", "SYNCS", "CCTL", "S2"))
    return "integer" if lane and not memory else "other"


def latency_of(i: Instruction) -> str | None:
    """What a scoreboard waits for, by its name in the table; None where an instruction has other rules."""
    if i.base in ("LDS", "LDSM", "ATOMS"):
        return "shared memory"
    if i.base in GLOBAL_LOADS:
        return "shared memory" if i.base == "LD" else "L2" if "STRONG" in i.modifiers else "global memory"
    if i.base in ("LDC", "ULDC"):
        return "constants"
    if i.base == "SHFL":
        return "shuffle"
    if i.base == "SYNCS":
        return "barrier of bytes"
    if i.base in REGISTERS:
        return "special register"
    if i.base == "ATOMG":
        return "L2"
    return "special function"


@dataclass
class State:
    """Of a warp."""

    trace: list[Event]  # of a pass
    at: int = 0  # in all passes
    ready: float = 0
    issued: float = -1  # when it last was
    free: list[float] = field(default_factory=lambda: [0.0] * 8)  # of each scoreboard
    why: list[str] = field(default_factory=lambda: [""] * 8)
    copies: float = 0  # when the last cp.async is there
    groups: list[float] = field(default_factory=list)
    products: float = 0  # when the last wgmma is done
    looks: int = 0  # at whether others' numbers are there, in a pass
    waits: int = 0  # such looks so far
    asleep: bool = False  # at a block barrier
    because: str = "issue"  # what `ready` stands for
    starts: list[float] = field(default_factory=list)  # of passes
    spent: Counter = field(default_factory=Counter)  # cycles by reason


class Sm:
    """One block on an SM, for `passes` times the traces."""

    def __init__(
        self, code: list[Instruction], traces: list[list[Event]], prices: Prices, slices: int, passes: int
    ):
        self.code, self.prices, self.slices, self.passes = code, prices, slices, passes
        self.warps = [State(trace) for trace in traces]
        self.scheduler = [0.0] * SCHEDULERS
        self.units: list[dict[str, float]] = [{} for _ in range(SCHEDULERS)]
        self.shared = self.lines = self.sends = 0.0
        self.barriers: dict[int, list[int]] = {}
        self.arrived: dict[int, float] = {}
        self.sent: Counter = Counter()
        self.there: dict[int, float] = {}
        for warp in self.warps:
            warp.looks = sum(is_wait(code[e.at]) and e.wavefronts > 0 for e in warp.trace)
        self.waits_of_pass = max(warp.looks for warp in self.warps)
        self.expected = self._expected()

    def _expected(self) -> Counter:
        """How much is published before each wait, counted in waits from the start."""
        total: Counter = Counter()
        for warp in self.warps:
            for n in range(self.passes):
                waits = n * (warp.looks or self.waits_of_pass)
                for event in warp.trace:
                    if event.wavefronts and is_wait(self.code[event.at]):
                        waits += 1
                    if event.wavefronts and is_publication(self.code[event.at]):
                        total[waits] += 1
        return total

    # -- When the next instruction of a warp may be issued, and what holds it --

    def possible(self, number: int) -> tuple[float, str] | None:
        warp = self.warps[number]
        if warp.asleep or warp.at >= len(warp.trace) * self.passes:
            return None
        event = warp.trace[warp.at % len(warp.trace)]
        i = self.code[event.at]
        best, why = warp.ready, warp.because
        for b in range(6):
            if i.pace.waits >> b & 1 and warp.free[b] > best:
                best, why = warp.free[b], warp.why[b]
        if event.wavefronts and is_wait(i):
            needed = warp.waits - (self.slices - 1) * self.waits_of_pass
            if any(self.sent[n] < self.expected[n] for n in range(needed + 1)):
                return None
        if i.base == "DEPBAR" and warp.groups:
            left = int(i.operands[-1], 16) if i.operands[-1].startswith("0x") else 0
            done = warp.groups[: len(warp.groups) - left]
            if done and max(done) > best:
                best, why = max(done), "L2"
        if i.base == "WARPGROUP" and "DEPBAR" in i.modifiers and warp.products > best:
            best, why = warp.products, "tensor core"
        home = number % SCHEDULERS
        busy = max(self.scheduler[home], self.units[home].get(unit_of(i), 0.0) if event.wavefronts else 0.0)
        return (busy, "other warps") if busy > best else (best, why)

    # -- Issue --

    def issue(self, number: int, now: float, why: str) -> None:
        warp = self.warps[number]
        if warp.at % len(warp.trace) == 0:
            warp.starts.append(now)
        event = warp.trace[warp.at % len(warp.trace)]
        i = self.code[event.at]
        home = number % SCHEDULERS
        self.scheduler[home] = now + 1
        if len(warp.starts) == self.passes - 1:
            last = now - warp.spent["now"] if "now" in warp.spent else 0
            warp.spent[why] += last
            warp.spent["now"] = now
        warp.at += 1
        warp.issued = now
        warp.ready, warp.because = now + max(1, i.pace.stall), "issue"
        if not event.wavefronts:
            return
        unit = unit_of(i)
        self.units[home][unit] = now + self.occupied(i, unit)
        self.carry_out(number, warp, i, event, now)

    def occupied(self, i: Instruction, unit: str) -> float:
        if i.base == "HGMMA":
            columns = int(next(m for m in i.modifiers if "x" in m).split("x")[1])
            return max(16.0, columns * self.prices.wgmma_of_n)
        return self.prices.occupies["integer" if unit == "multiply" else unit]

    def carry_out(self, number: int, warp: State, i: Instruction, event: Event, now: float) -> None:
        price = self.prices.latency
        if i.base == "BAR":
            return self.meet(number, i, now)
        if i.base == "STAS":
            return self.send(warp, i, event, now)
        done, what = now + price["operands read"], "operands"
        if i.base in ("LDS", "STS", "LDSM", "ATOMS") or i.base == "LD":
            self.shared = max(self.shared, now) + event.wavefronts * self.prices.shared_pass
            done = self.shared
        elif i.base in GLOBAL_LOADS | GLOBAL_STORES | {"LDGSTS"}:
            self.lines = max(self.lines, now) + event.wavefronts * self.prices.global_line
            done = self.lines
        if i.base == "MEMBAR":
            fence = (
                "sequential fence"
                if "SC" in i.modifiers
                else f"fence of the {'system' if 'SYS' in i.modifiers else 'GPU'}"
            )
            done, what = now + (0 if "CTA" in i.modifiers else price[fence]), "fence"
            if i.pace.reads == NONE and i.pace.sets == NONE:
                warp.ready, warp.because = max(warp.ready, done), what
        elif i.base == "CCTL":
            warp.ready, warp.because = max(warp.ready, now + price["invalidated L1"]), "invalidated L1"
        elif i.base == "LDGSTS":
            warp.copies = max(warp.copies, done + price["L2"])
        elif i.base == "LDGDEPBAR":
            warp.groups.append(warp.copies)
            return
        elif i.base == "HGMMA":
            warp.products = now + self.occupied(i, "tensor core") + price["wgmma"]
        elif is_publication(i):
            self.publish(warp, done + price["to L2"])
        self.set_scoreboards(warp, i, done, what, now)

    def set_scoreboards(self, warp: State, i: Instruction, done: float, what: str, now: float) -> None:
        if i.pace.reads != NONE:
            self.hold(
                warp,
                i.pace.reads,
                done if what == "fence" else now + self.prices.latency["operands read"],
                what,
            )
        if i.pace.sets == NONE:
            return
        name = latency_of(i) or "special function"
        begun = done if i.base in ("LDS", "LDSM", "LDG", "LD") else now
        result = begun + self.prices.latency[name]
        if is_wait(i):
            result, name = max(result, self.handed_over(warp, i)), "hand-over"
            warp.waits += 1
        self.hold(warp, i.pace.sets, result, name)

    @staticmethod
    def hold(warp: State, scoreboard: int, until: float, why: str) -> None:
        if until > warp.free[scoreboard]:
            warp.free[scoreboard], warp.why[scoreboard] = until, why

    def handed_over(self, warp: State, i: Instruction) -> float:
        """When a look finds what it looks for: at once or, through L2, on average half a look later."""
        needed = warp.waits - (self.slices - 1) * self.waits_of_pass
        there = max((t for n, t in self.there.items() if n <= needed), default=0.0)
        if i.base == "SYNCS":
            return there + self.prices.latency["barrier of bytes"]
        return there + 2 * self.prices.latency["to L2"]

    def send(self, warp: State, i: Instruction, event: Event, now: float) -> None:
        count = event.wavefronts * 128
        self.sends = max(self.sends, now) + count / self.prices.bytes_sent
        self.publish(warp, self.sends + self.prices.latency["another block's shared memory"])
        if i.pace.reads != NONE:
            self.hold(warp, i.pace.reads, self.sends, "sending")

    def publish(self, warp: State, there: float) -> None:
        n = warp.waits if warp.looks else (warp.at - 1) // len(warp.trace) * self.waits_of_pass
        self.sent[n] += 1
        self.there[n] = max(self.there.get(n, 0.0), there)

    def meet(self, number: int, i: Instruction, now: float) -> None:
        if i.modifiers[:1] not in (["SYNC"], ["ARV"], ["RED"]):
            return
        numbers = [int(o, 16) for o in i.operands if o.startswith("0x")]
        barrier = numbers[0] if numbers else 0
        count = numbers[1] // 32 if len(numbers) > 1 else len(self.warps)
        self.barriers.setdefault(barrier, []).append(number)
        self.arrived[barrier] = max(self.arrived.get(barrier, 0.0), now)
        warp = self.warps[number]
        warp.asleep = i.modifiers[0] != "ARV"
        if len(self.barriers[barrier]) < count:
            return
        for n in self.barriers.pop(barrier):
            other = self.warps[n]
            if other.asleep:
                other.asleep = False
                other.ready = max(other.ready, self.arrived[barrier] + self.prices.latency["block barrier"])
                other.because = "block barrier"
        del self.arrived[barrier]

    def run(self) -> None:
        known: list[tuple[float, str] | None] = [None] * len(self.warps)
        home = -1
        while True:
            for n, way in enumerate(known):
                if way is None or n % SCHEDULERS == home:  # no other way has changed
                    known[n] = self.possible(n)
            ways = [(way, n) for n, way in enumerate(known) if way]
            if not ways:
                break
            # of those that may go, the one that has waited longest
            (now, why), number = min(ways, key=lambda way: (way[0][0], self.warps[way[1]].issued))
            self.issue(number, now, why)
            home = number % SCHEDULERS
        if any(w.at < len(w.trace) * self.passes for w in self.warps):
            raise RuntimeError("the model's warps wait for each other for ever")


@dataclass(frozen=True)
class Modelled:
    cycles: float  # of a pass
    spent: dict[str, float]  # by the warp that issues most, on what


def model(code: list[Instruction], traces: list[list[Event]], prices: Prices, slices: int = 1) -> Modelled:
    """Of a pass in the long run: read behind four passes, over whole turns of the slices."""
    read = slices * -(-4 // slices)
    sm = Sm(code, traces, prices, slices, 5 + read)
    sm.run()
    first = sm.warps[0].starts
    busiest = max(sm.warps, key=lambda w: len(w.trace))
    spent = {why: cycles for why, cycles in busiest.spent.items() if why != "now" and cycles > 0}
    return Modelled((first[-1] - first[4]) / read, spent)
