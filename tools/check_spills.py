"""Check that the inner loops of the kernels keep their vectors in registers: check_spills.py FILE [--list].

FILE is the module before stripping. The kernels of KERNELS are disassembled, in every instruction set that
the module was built for, and of each the innermost loops that multiply and add are read, however short. A
store of a vector register to the stack in such a loop, or a call, is an offence; so is a kernel of which no
loop is found. Reloads of vectors, and stores and reloads of general registers, are counted beside it. --list
prints every loop. FILE is of x86-64 or of 64-bit ARM, on either (tools/spills).
"""

import argparse
import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from spills.aarch64 import Aarch64
from spills.flow import Function, Graph, innermost_loops, stack_pointers
from spills.machine import Machine
from spills.x86 import X86

MACHINES: tuple[Machine, ...] = (X86(), Aarch64())


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

COLD = re.compile(r"\.cold(\.\d+)?$")


def machine_of(path: str) -> Machine:
    """By the file's header; what is no ELF file of a machine known here is left to this machine's objdump."""
    try:
        with open(path, "rb") as file:
            header = file.read(20)
    except OSError as error:
        raise SystemExit(f"check_spills: {path}: {error.strerror}") from None
    number = int.from_bytes(header[18:20], "little") if header.startswith(b"\x7fELF") else None
    here = (m for m in MACHINES if platform.machine() in m.names)
    return next((m for m in MACHINES if m.number == number), None) or next(here, MACHINES[0])


def disassemble(path: str) -> list[Function]:
    """The functions in the namespaces of the instruction sets."""
    machine = machine_of(path)
    objdump = "objdump" if platform.machine() in machine.names else machine.objdump
    try:
        run = subprocess.run([objdump, "-d", "--no-show-raw-insn", path], capture_output=True, text=True)
    except FileNotFoundError:
        raise SystemExit(f"check_spills: {objdump}, of the compiler's binutils, is not on the PATH") from None
    if run.returncode:
        raise SystemExit(f"check_spills: {run.stderr.strip() or f'{objdump} cannot read {path}'}")
    sets = "|".join(f"{len(isa)}{isa}" for isa in sorted(SETS, key=len, reverse=True))
    inside = re.compile(rf"_Z[A-Z]*?{len(NAMESPACE)}{NAMESPACE}({sets})")
    functions: list[Function] = []
    lines: list[str] = []
    for line in run.stdout.splitlines():
        if line.endswith(">:"):
            symbol = line[line.index("<") + 1 : -2]
            lines = []
            if found := inside.match(symbol):
                functions.append(Function(symbol, found[1].lstrip("0123456789"), lines, machine))
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


# -- The check ------------------------------------------------------------------------------------------


def count(blocks: Iterable[int], graph: Graph, before: dict[int, frozenset[str]]) -> Counter:
    """What one pass through these blocks does, by COLUMNS."""
    counts: Counter = Counter()
    machine = graph.machine
    for block in blocks:
        pointers = before[block]
        for i in graph.blocks[block]:
            counts[machine.arithmetic(i)] += 1
            counts["calls"] += machine.calls(i)
            counts += machine.accesses(i, pointers)
            pointers = machine.pointers_after(i, pointers)
    counts["multiply-adds"] = counts["fused"] + min(counts["products"], counts["sums"])
    return counts


def is_kernel(kernel: Kernel, name: str) -> bool:
    return bool(re.search(rf"(^|::){kernel.name}(<|$)", name))


def loops_of(function: Function, name: str, kernels: list[Kernel], graph: Graph) -> Iterator[Loop]:
    """The loops of a function that are some kernel's: its own code, or perhaps inlined into it."""
    machine = function.machine

    def multiplies(blocks: Iterable[int]) -> bool:
        kinds = {machine.arithmetic(i) for block in blocks for i in graph.blocks[block]}
        return "fused" in kinds or {"products", "sums"} <= kinds

    if not multiplies(graph.blocks):
        return
    before = stack_pointers(graph)
    for blocks in innermost_loops(graph.follows, multiplies):
        counts = count(blocks, graph, before)
        code = [i for block in blocks for i in graph.blocks[block]]
        elementwise = any(machine.calls(i) and PARTIAL.search(i.symbol) for i in code)
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
