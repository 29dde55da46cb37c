"""Check that the inner loops of the kernels keep their vectors in registers: check_spills.py FILE [--list].

FILE is the module before stripping. The kernels of KERNELS are disassembled, in every instruction set that
the module was built for, and of each the innermost loops that multiply and add are read, however short. A
store of a vector register to the stack in such a loop, or a call, is an offence; so is a kernel of which no
loop is found. Reloads of vectors, and stores and reloads of general registers, are counted beside it. --list
prints every loop. x86-64 only.
"""

import argparse
import functools
import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """A function template or method, and into what GCC may have inlined it: a pattern of short names.

    Of such a caller, the loops with at least so many multiply-adds a pass are this kernel's, but not those
    that load or store a part of a vector: they go over the elements of a row, not over what is summed.
    """

    name: str
    caller: str = ""
    multiply_adds: int = 1


# Where a caller has several of these, the one that asks for more multiply-adds comes first.
KERNELS = (
    Kernel("tile_rows"),
    Kernel("tile_columns"),
    Kernel("tile_segments"),
    Kernel("int8_tile"),
    Kernel("weight_only_tile"),
    Kernel("dot_rows", "SmallStepForward<.*>::add_products"),
    Kernel("row_sums", "SmallStepBackward<.*>::run", 8),
    Kernel("outer", "SmallStepBackward<.*>::run"),
)
NAMESPACE = "fusegen"
SETS = ("baseline", "avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_bf16")
# For these only the products of bytes are compiled.
INT8_SETS, INT8 = ("avx2_vnni", "avx512_vnni"), ("int8_tile", "weight_only_tile")
PARTIAL = re.compile(r"\d(load|store)_someI")  # mangled

# What the table shows of one pass through a loop, and what must not be there.
COLUMNS = ("multiply-adds", "vector stores", "vector reloads", "integer stores", "integer reloads", "calls")
OFFENCES = ("vector stores", "calls")


@dataclass
class Instruction:
    address: int
    name: str
    operands: list[str]
    symbol: str  # what a jump or call names as its target


@dataclass
class Function:
    symbol: str
    isa: str
    lines: list[str]

    @functools.cached_property
    def code(self) -> list[Instruction]:
        return [instruction for line in self.lines if (instruction := parse(line))]


@dataclass
class Loop:
    kernel: str
    isa: str
    place: str  # the function, and the loop's first instruction in it
    size: int  # instructions
    counts: Counter  # of one pass, by COLUMNS

    @property
    def offends(self) -> bool:
        return any(self.counts[what] for what in OFFENCES)


# -- Reading objdump ------------------------------------------------------------------------------------

LINE = re.compile(r" *([0-9a-f]+):\t(.+)")
PREFIXES = re.compile(r"(?:(?:lock|repn?z?|notrack|bnd|data16|cs|\{\w+\}) +)+")
COLD = re.compile(r"\.cold(\.\d+)?$")


def parse(line: str) -> Instruction | None:
    """None for what does nothing: padding."""
    found = LINE.match(line)
    if not found:
        return None
    text = PREFIXES.sub("", found[2].split("#", 1)[0].strip(), count=1)
    name, _, rest = text.partition(" ")
    rest, _, symbol = rest.strip().partition("<")
    if name.startswith("nop") or (name == "xchg" and rest == "%ax,%ax"):
        return None
    operands = [operand.strip() for operand in re.split(r",(?![^(]*\))", rest) if operand]
    return Instruction(int(found[1], 16), name, operands, symbol.rstrip(">"))


def disassemble(path: str) -> list[Function]:
    """The functions in the namespaces of the instruction sets."""
    try:
        run = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, text=True)
    except FileNotFoundError:
        raise SystemExit("check_spills: objdump, of the compiler's binutils, is not on the PATH") from None
    if run.returncode:
        raise SystemExit(f"check_spills: {run.stderr.strip() or f'objdump cannot read {path}'}")
    sets = "|".join(f"{len(isa)}{isa}" for isa in sorted(SETS, key=len, reverse=True))
    inside = re.compile(rf"_Z[A-Z]*?{len(NAMESPACE)}{NAMESPACE}({sets})")
    functions: list[Function] = []
    lines: list[str] = []
    for line in run.stdout.splitlines():
        if line.endswith(">:"):
            symbol = line[line.index("<") + 1 : -2]
            lines = []
            if found := inside.match(symbol):
                functions.append(Function(symbol, found[1].lstrip("0123456789"), lines))
        else:
            lines.append(line)
    if not functions:
        raise SystemExit(f"check_spills: no function of {NAMESPACE}::{'|'.join(SETS)} in {path} (stripped?)")
    return functions


def short_names(symbols: Iterable[str]) -> list[str]:
    """Demangled, without namespaces, return type and arguments."""
    run = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True)
    outside = re.compile(rf"\b{NAMESPACE}::(({'|'.join(SETS)})::)?|\(anonymous namespace\)::|^(void|auto) ")
    names = []
    for name in run.stdout.splitlines():
        name = outside.sub("", name)
        depth = 0
        for i, character in enumerate(name):
            depth += (character in "<{") - (character in ">}")
            if character == "(" and depth == 0 and not name.endswith("operator", 0, i):
                name = name[:i]
                break
        names.append(name)
    return names


# -- Control flow ---------------------------------------------------------------------------------------


def target(instruction: Instruction) -> int | None:
    """Where a direct jump goes."""
    if instruction.name.startswith("j") and re.fullmatch(r"[0-9a-f]+", instruction.operands[0]):
        return int(instruction.operands[0], 16)
    return None


class Graph:
    """The basic blocks of a function, by the address of their first instruction, and what may follow each."""

    def __init__(self, function: Function, cold: dict[int, Function]):
        """`cold`: by the address of each instruction, what GCC has moved out of a function's body."""
        parts = [function.code]
        for part in parts:
            for i in part:
                other = cold.get(target(i) or 0)
                if other and all(other.code is not known for known in parts):
                    parts.append(other.code)
        known = {i.address for part in parts for i in part}
        leaders = {t for part in parts for i in part if (t := target(i)) in known}
        self.blocks: dict[int, list[Instruction]] = {}
        self.follows: dict[int, set[int]] = {}
        for part in parts:
            block: list[Instruction] = []
            for i in part:
                ended = not block or block[-1].name.startswith(("j", "ret"))
                if ended or i.address in leaders:
                    if block and not block[-1].name.startswith(("jmp", "ret")):
                        self.follows[block[0].address].add(i.address)
                    block = self.blocks[i.address] = []
                    self.follows[i.address] = set()
                block.append(i)
        for start, block in self.blocks.items():
            self.follows[start] |= {target(block[-1])} & self.blocks.keys()
        # A jump through a table may go wherever nothing else leads.
        led_to = set().union(*self.follows.values()) | {function.code[0].address}
        for start, block in self.blocks.items():
            if block[-1].name == "jmp" and target(block[-1]) is None:
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


# -- What an instruction does ---------------------------------------------------------------------------

MEMORY = re.compile(r"\((%\w+)?(?:,(%\w+))?(?:,\d)?\)")
VECTOR = re.compile(r"%[xyz]mm")
FUSED = re.compile(r"vfn?m(add|sub)\d+p[sd]|vdpbf16ps|vpdpbusd")
PRODUCT, SUM = re.compile(r"v?(mulp[sd]|pmaddwd)"), re.compile(r"v?((add|sub)p[sd]|paddd)")
# What becomes of the last operand; of none of these: it is read and written.
READS_ONLY = re.compile(r"cmp|test|bt[bwlq]?$|push|call|jmp|i?(mul|div)[bwlq]$")
ADDRESS_ONLY = re.compile(r"lea|prefetch|clflush")
WRITES_ONLY = re.compile(r"[vk]?(mask)?mov|set|pop|stos|v?extract|v?pextr|vcvtps2ph")
CLOBBERED = frozenset(("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"))  # by a call


@functools.cache
def general_register(operand: str) -> str | None:
    """%eax, %ax and %al are parts of rax; None if the operand is no general register."""
    if found := re.fullmatch(r"%(r\d+)[dwb]?", operand):
        return found[1]
    if found := re.fullmatch(r"%[re]?(?:([abcd])[xlh]|(si|di|bp|sp)l?)", operand):
        return f"r{found[1]}x" if found[1] else f"r{found[2]}"
    return None


def in_stack(operand: str, pointers: frozenset[str]) -> bool:
    """Whether an operand is memory that one of these registers points into."""
    found = MEMORY.search(operand)
    return bool(found) and any(general_register(r) in pointers for r in found.groups() if r)


def pointers_after(i: Instruction, pointers: frozenset[str]) -> frozenset[str]:
    """The registers that may hold an address in the stack after an instruction, of those that do before."""
    if i.name.startswith("call"):
        return pointers - CLOBBERED
    to = general_register(i.operands[-1]) if i.operands else None
    if to is None or to == "rsp" or READS_ONLY.match(i.name):
        return pointers
    if i.name.startswith("lea"):
        holds = in_stack(i.operands[0], pointers)
    else:
        holds = i.name.startswith(("mov", "add", "sub", "and", "cmov")) and any(
            general_register(operand) in pointers
            for operand in (i.operands[:1] if i.name.startswith("mov") else i.operands)
        )
    return pointers | {to} if holds else pointers - {to}


def stack_pointers(graph: Graph) -> dict[int, frozenset[str]]:
    """For each block the registers that may hold an address in the stack where it begins."""
    before = {block: frozenset({"rsp"}) for block in graph.blocks}
    todo = [*reversed(graph.blocks)]
    while todo:
        block = todo.pop()
        pointers = before[block]
        for i in graph.blocks[block]:
            pointers = pointers_after(i, pointers)
        for after in graph.follows[block]:
            if not pointers <= before[after]:
                before[after] |= pointers
                todo.append(after)
    return before


def count(blocks: Iterable[int], graph: Graph, before: dict[int, frozenset[str]]) -> Counter:
    """What one pass through these blocks does, by COLUMNS."""
    counts: Counter = Counter()
    for block in blocks:
        pointers = before[block]
        for i in graph.blocks[block]:
            counts["fused"] += bool(FUSED.match(i.name))
            counts["products"] += bool(PRODUCT.match(i.name))
            counts["sums"] += bool(SUM.match(i.name))
            counts["calls"] += i.name.startswith("call")
            if i.operands and not ADDRESS_ONLY.match(i.name):
                kind = "vector" if VECTOR.search(" ".join(i.operands)) else "integer"
                last = in_stack(i.operands[-1], pointers)
                writes = last and not READS_ONLY.match(i.name)
                reads = any(in_stack(operand, pointers) for operand in i.operands[:-1])
                counts[f"{kind} stores"] += writes or i.name.startswith("push")
                counts[f"{kind} reloads"] += reads or (last and not (writes and WRITES_ONLY.match(i.name)))
            pointers = pointers_after(i, pointers)
    counts["multiply-adds"] = counts["fused"] + min(counts["products"], counts["sums"])
    return counts


# -- The check ------------------------------------------------------------------------------------------


def is_kernel(kernel: Kernel, name: str) -> bool:
    return bool(re.search(rf"(^|::){kernel.name}(<|$)", name))


def loops_of(function: Function, name: str, kernels: list[Kernel], graph: Graph) -> Iterator[Loop]:
    """The loops of a function that are some kernel's: its own code, or perhaps inlined into it."""

    def multiplies(blocks: Iterable[int]) -> bool:
        names = {i.name for block in blocks for i in graph.blocks[block]}
        return any(map(FUSED.match, names)) or (any(map(PRODUCT.match, names)) and any(map(SUM.match, names)))

    if not multiplies(graph.blocks):
        return
    before = stack_pointers(graph)
    for blocks in innermost_loops(graph.follows, multiplies):
        counts = count(blocks, graph, before)
        code = [i for block in blocks for i in graph.blocks[block]]
        elementwise = any(i.name == "call" and PARTIAL.search(i.symbol) for i in code)
        inlined = counts["multiply-adds"] if not elementwise else 0
        for kernel in kernels:
            if is_kernel(kernel, name) or inlined >= kernel.multiply_adds:
                place = f"{name} +{min(blocks) - function.code[0].address:#x}"
                yield Loop(kernel.name, function.isa, place, len(code), counts)
                break


def read_loops(path: str) -> tuple[list[Loop], list[str]]:
    """The loops of KERNELS in every instruction set of a module, and a line on each that has none in one."""
    functions = disassemble(path)
    cold = {i.address: part for part in functions if COLD.search(part.symbol) for i in part.code}
    loops: list[Loop] = []
    for function, name in zip(functions, short_names(f.symbol for f in functions), strict=True):
        kernels = [k for k in KERNELS if is_kernel(k, name) or (k.caller and re.fullmatch(k.caller, name))]
        if kernels and function.code and not COLD.search(function.symbol):
            loops += loops_of(function, name, kernels, Graph(function, cold))
    found = {(loop.isa, loop.kernel) for loop in loops}
    present = {function.isa for function in functions}
    missing = [
        f"{isa}: no loop of {kernel.name} found: renamed, or inlined where KERNELS does not say?"
        for isa in SETS
        for kernel in KERNELS
        if isa in present
        and (isa, kernel.name) not in found
        and (isa not in INT8_SETS or kernel.name in INT8)
    ]
    return loops, missing


def print_table(loops: list[Loop]) -> None:
    rows = [("instruction set", "loop", "instructions", *COLUMNS)]
    rows += [(loop.isa, loop.place, loop.size, *(loop.counts[c] for c in COLUMNS)) for loop in loops]
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:{'<' if i < 2 else '>'}{widths[i]}}" for i, cell in enumerate(row)))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="check_spills", description=__doc__.split(":", 1)[0])
    parser.add_argument("file", help="the module, with its symbols")
    parser.add_argument("--list", action="store_true", help="print every loop, not those alone that offend")
    options = parser.parse_args(arguments)
    if platform.machine() not in ("x86_64", "AMD64"):
        print(f"{platform.machine()}: one instruction set, nothing to check")
        return 0
    loops, missing = read_loops(options.file)
    offenders = [loop for loop in loops if loop.offends]
    if shown := loops if options.list else offenders:
        print_table(shown)
    print(*missing, sep="\n", end="\n" * bool(missing))
    sets = " ".join(isa for isa in SETS if any(loop.isa == isa for loop in loops))
    numbers = {what: sum(loop.counts[what] > 0 for loop in loops) for what in COLUMNS}
    print(
        f"{len(loops)} inner loops ({sets}): {numbers['vector stores']} store vectors to the stack, "
        f"{numbers['calls']} call; {numbers['integer stores']} store integers; "
        f"{len(missing)} kernels not found"
    )
    return 1 if offenders or missing else 0


if __name__ == "__main__":
    sys.exit(main())
