"""x86-64, in AT&T's notation."""

import functools
import re
from collections import Counter

from .machine import Instruction, Machine

LINE = re.compile(r" *([0-9a-f]+):\t(.+)")
PREFIXES = re.compile(r"(?:(?:lock|repn?z?|notrack|bnd|data16|cs|\{\w+\}) +)+")
MEMORY = re.compile(r"\((%\w+)?(?:,(%\w+))?(?:,\d)?\)")
VECTOR = re.compile(r"%[xyz]mm")
FUSED = re.compile(r"vfn?m(add|sub)\d+p[sd]|vdpbf16ps|vpdpbusd")
PRODUCT, SUM = re.compile(r"v?mulp[sd]|v?pmaddwd"), re.compile(r"v?(add|sub)p[sd]|v?paddd")
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


class X86(Machine):
    number = 62
    names = ("x86_64", "AMD64")
    objdump = "x86_64-linux-gnu-objdump"
    stack = frozenset({"rsp"})

    def parse(self, line: str) -> Instruction | None:
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

    def target(self, i: Instruction) -> int | None:
        if i.name.startswith("j") and re.fullmatch(r"[0-9a-f]+", i.operands[0]):
            return int(i.operands[0], 16)
        return None

    def jumps(self, i: Instruction) -> bool:
        return i.name.startswith(("j", "ret"))

    def jumps_anywhere(self, i: Instruction) -> bool:
        return i.name == "jmp" and self.target(i) is None

    def goes_on(self, i: Instruction) -> bool:
        return not i.name.startswith(("jmp", "ret"))

    def calls(self, i: Instruction) -> bool:
        return i.name.startswith("call")

    def arithmetic(self, i: Instruction) -> str:
        if FUSED.match(i.name):
            return "fused"
        return "products" if PRODUCT.match(i.name) else "sums" if SUM.match(i.name) else ""

    def accesses(self, i: Instruction, pointers: frozenset[str]) -> Counter:
        counts: Counter = Counter()
        if i.operands and not ADDRESS_ONLY.match(i.name):
            kind = "vector" if VECTOR.search(" ".join(i.operands)) else "integer"
            last = in_stack(i.operands[-1], pointers)
            writes = last and not READS_ONLY.match(i.name)
            reads = any(in_stack(operand, pointers) for operand in i.operands[:-1])
            counts[f"{kind} stores"] += writes or i.name.startswith("push")
            counts[f"{kind} reloads"] += reads or (last and not (writes and WRITES_ONLY.match(i.name)))
        return counts

    def pointers_after(self, i: Instruction, pointers: frozenset[str]) -> frozenset[str]:
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
