"""64-bit ARM."""

import re
from collections import Counter

from .machine import Instruction, Machine

LINE = re.compile(r" *([0-9a-f]+):\t(\S+)(?:\s+(.*))?")
SEPARATOR = re.compile(r",(?![^\[{]*[\]}])")  # of operands: none inside [x0, #16] and {v0.4s, v1.4s}
BASE = re.compile(r"\[(sp|x\d+)\b")
VECTOR = re.compile(r"\{?[vqdshb]\d")
NUMBERS = re.compile(r"v\d+\.\d[sd]")  # else an instruction is about one number
ARITHMETIC = {"fmul": "products", "fadd": "sums", "fsub": "sums"}
ARITHMETIC |= dict.fromkeys(("fmla", "fmls", "sadalp"), "fused")
CLOBBERED = frozenset(f"x{i}" for i in (*range(19), 30))  # by a call
JUMPS = ("b", "br", "ret", "cbz", "cbnz", "tbz", "tbnz")
# Those that hand on an address that they are given, as it is or a little further.
HAND_ON = frozenset(("mov", "add", "sub", "and", "orr", "csel"))
NO_RESULT = re.compile(r"st|prfm|cmp|cmn|tst|ccm|fcmp|fccmp|b$|b\.|br|ret|cb|tb|dmb|dsb|isb|svc|brk")


def general_register(operand: str) -> str | None:
    """w0 is a part of x0; None if the operand is no general register."""
    found = re.fullmatch(r"[xw](\d+)|sp|wsp", operand)
    return found and (f"x{found[1]}" if found[1] else "sp")


def in_stack(i: Instruction, pointers: frozenset[str]) -> bool:
    """Whether an instruction's memory is one that these registers point into."""
    return any((found := BASE.match(operand)) and found[1] in pointers for operand in i.operands)


class Aarch64(Machine):
    number = 183
    names = ("aarch64", "arm64")
    objdump = "aarch64-linux-gnu-objdump"
    stack = frozenset({"sp"})

    def parse(self, line: str) -> Instruction | None:
        found = LINE.match(line)
        if not found or found[2] == "nop":
            return None
        rest, _, symbol = (found[3] or "").split("//", 1)[0].strip().partition("<")
        operands = [operand.strip() for operand in SEPARATOR.split(rest) if operand]
        return Instruction(int(found[1], 16), found[2], operands, symbol.rstrip(">"))

    def target(self, i: Instruction) -> int | None:
        if self.jumps(i) and i.operands and re.fullmatch(r"[0-9a-f]+", i.operands[-1]):
            return int(i.operands[-1], 16)
        return None

    def jumps(self, i: Instruction) -> bool:
        return i.name in JUMPS or i.name.startswith("b.")

    def jumps_anywhere(self, i: Instruction) -> bool:
        return i.name == "br"

    def goes_on(self, i: Instruction) -> bool:
        return i.name not in ("b", "br", "ret")

    def calls(self, i: Instruction) -> bool:
        return i.name in ("bl", "blr")

    def arithmetic(self, i: Instruction) -> str:
        of_vectors = bool(i.operands) and bool(NUMBERS.match(i.operands[0]))
        return ARITHMETIC.get(i.name, "") if of_vectors else ""

    def accesses(self, i: Instruction, pointers: frozenset[str]) -> Counter:
        counts: Counter = Counter()
        if i.name.startswith(("st", "ld")) and in_stack(i, pointers):
            kind = "vector" if VECTOR.match(i.operands[0]) else "integer"
            counts[f"{kind} stores"] += i.name.startswith("st")
            counts[f"{kind} reloads"] += i.name.startswith("ld")
        return counts

    def pointers_after(self, i: Instruction, pointers: frozenset[str]) -> frozenset[str]:
        if self.calls(i):
            return pointers - CLOBBERED
        if not i.operands or NO_RESULT.match(i.name):
            return pointers
        results = i.operands[:2] if i.name.startswith("ldp") else i.operands[:1]
        to = {r for operand in results if (r := general_register(operand))} - {"sp"}
        holds = i.name in HAND_ON and any(general_register(source) in pointers for source in i.operands[1:])
        return pointers | to if holds else pointers - to
