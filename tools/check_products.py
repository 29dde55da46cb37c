"""Check the machine code of products by warpgroups: check_products.py [--built FOLDER] [--only WORDS].

Compiles the 16-bit instantiations of csrc/kernels/cuda/discriminator for sm_90a, or takes the objects of a
CUDA build, disassembles them, and holds every loop over stages of a product (64 numbers along K a pass) to
RULES. A loop is told by what brings its operands: bulk copies ("boxes"), lanes, or one of either.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from check_sass import ARCHITECTURE, KERNELS, ROOT, cubins
from sass.flow import Graph, Loop
from sass.listing import Function, Instruction, disassemble, tool
from sass.rules import is_call, is_division, is_generic, is_spill

FORMATS = ("bf16", "f16")
# With 1 of plain chains, else with 0.
KERNEL = re.compile(
    r"\dstep_kernelI.*?Format(?:Bf16|F16)\D.*?TileSizeILi128ELi128EEE(?:Li\d+E)+Lb1EEELb([01])E"
)

# What may stand in no loop, and what in none whose operands all come by bulk copies: an address for each
# word, loads of numbers, an L1 that is emptied by an acquire of more than the block, a fence of the proxy.
NEVER: dict[str, Callable[[Instruction], bool]] = {
    "CALL": is_call,
    "integer division": is_division,
    "local memory": is_spill,
    "generic load or store": is_generic,
}
NOT_IN_BOXES: dict[str, Callable[[Instruction], bool]] = {
    "copy by lanes": lambda i: i.base == "LDGSTS",
    "load or store of numbers": lambda i: i.base in ("LDG", "STG", "LDS", "STS"),
    "emptied L1": lambda i: i.base == "CCTL",
    "fence": lambda i: i.base in ("MEMBAR", "FENCE"),
}

# What brings the operands -> how many such loops a kernel has, and the instructions that each may take: about
# a twentieth more than they do.
LOOPS: dict[str, tuple[int, int]] = {
    "boxes": (2, 134),  # of a layer, and of adjoints
    "boxes and lanes": (1, 775),  # of a weight gradient: s H + c T is worked out between the products
    "lanes": (2, 320),  # of both, where rows do not begin on 16 bytes
}
# Of the kernel with options: a weight gradient has a second product, R' H.
WITH_OPTIONS = {**LOOPS, "boxes and lanes": (2, 775)}


def multiplies(i: Instruction) -> bool:
    return i.base == "HGMMA"


def product_loops(graph: Graph) -> list[Loop]:
    """The innermost ones that multiply."""
    loops = [loop for loop in graph.loops if any(map(multiplies, graph.code_of(loop.blocks)))]
    return [loop for loop in loops if not any(other.blocks < loop.blocks for other in loops)]


def kind_of(code: list[Instruction]) -> str:
    if not any(i.base == "UTMALDG" for i in code):
        return "lanes"
    return "boxes and lanes" if any(i.base == "STS" for i in code) else "boxes"


def broken(
    function: Function, loops: dict[str, tuple[int, int]] = LOOPS
) -> tuple[list[str], Counter[str], list[str]]:
    """The rules that a kernel breaks, which may have such loops; its loops by kind; and a line on each."""
    graph = Graph(function)
    found, kinds, lines = [], Counter[str](), []
    for loop in product_loops(graph):
        code = graph.code_of(loop.blocks)
        kind = kind_of(code)
        kinds[kind] += 1
        lines.append(
            f"{kind}: {len(code)} instructions, {sum(map(multiplies, code))} products ({loop.header:#x})"
        )
        for rule, test in {**NEVER, **(NOT_IN_BOXES if kind == "boxes" else {})}.items():
            hits = [i for i in code if test(i)]
            if hits:
                found.append(f"{kind}: {rule}: {len(hits)}, at most 0 ({hits[0].address:#x} {hits[0]})")
        if len(code) > loops[kind][1]:
            found.append(f"{kind}: instructions: {len(code)}, at most {loops[kind][1]}")
    for kind, (times, _) in loops.items():
        if kinds[kind] != times:
            found.append(f"{kind}: loops: {kinds[kind]}, expected {times}")
    return found, kinds, lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="check_products", description=__doc__.split(":", 1)[0])
    parser.add_argument("--built", type=Path, help="the folder of a CUDA build, whose objects are read")
    parser.add_argument("--only", default="", help="formats: 'discriminator bf16'; others' words choose none")
    parser.add_argument("--list", action="store_true", help="print the loops, too")
    options, _ = parser.parse_known_args(arguments)
    words = set(options.only.split())
    formats = [f for f in FORMATS if words <= {"discriminator", f}]
    if not formats:
        return 0
    if tool("nvdisasm") is None:
        raise SystemExit("check_products: no nvdisasm: pip install -c constraints.txt nvidia-cuda-nvdisasm")
    names = [f"{f}{of}" for f in formats for of in ("", "_options")]
    sources = [KERNELS / f"discriminator/instantiations/{name}.cu" for name in names]
    kernels = wrong = 0
    for name, cubin in zip(names, cubins(sources, ROOT / "build/sass", options.built), strict=True):
        for function in disassemble(cubin):
            if not (kernel := KERNEL.search(function.symbol)):
                continue
            found, _, lines = broken(function, LOOPS if kernel[1] == "1" else WITH_OPTIONS)
            kernels += 1
            wrong += len(found)
            for line in [*(lines if options.list else ()), *found]:
                print(f"discriminator {name}: {line}")
    print(f"{kernels} kernels of products by warpgroups for {ARCHITECTURE}, {wrong} rules broken")
    return 1 if wrong or kernels != len(names) else 0


if __name__ == "__main__":
    sys.exit(main())
