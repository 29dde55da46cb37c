"""The operands of an instruction, and the registers of a warp that they name."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np

LANES = 32
RZ, PT = 255, 7

Words = np.ndarray  # [32] uint32, of a lane each
Flags = np.ndarray  # [32] bool


def words(value: int) -> Words:
    return np.full(LANES, value & 0xFFFFFFFF, np.uint32)


@dataclass(frozen=True)
class Operand:
    kind: str  # R, UR, P, UP, constant, memory, number, special, other
    index: int = 0
    text: str = ""
    negative: bool = False  # of a number; of a predicate: not
    inverted: bool = False  # ~
    absolute: bool = False
    half: str = ""  # H0_H0, H1_H1, B1, ...
    bits: int = 0  # of a number, as it stands in a register
    terms: tuple[tuple[str, int], ...] = ()  # of an address: ("R", n), ("UR", n), ("R64", n), ("", bytes)


ADDRESS = re.compile(r"(?:c\[0x[0-9a-f]+\]|cx\[\w+\]|desc\[\w+\])?\[([^\]]*)\]$")
NAME = re.compile(r"(U?R|U?P|B)(\d+|Z|T)((?:\.\w+)*)$")
FLOATS = {
    "+INF": 0x7F800000,
    "-INF": 0xFF800000,
    "INF": 0x7F800000,
    "+QNAN": 0x7FFFFFFF,
    "-QNAN": 0xFFFFFFFF,
    "QNAN": 0x7FFFFFFF,
}


def address_terms(text: str) -> tuple[tuple[str, int], ...]:
    terms: list[tuple[str, int]] = []
    for part in text.replace("+-", "+~").split("+"):
        part = part.strip()
        if not part:
            continue
        if found := NAME.match(part):
            kind = found[1] + ("64" if ".64" in found[3] else "")
            scale = re.search(r"\.X(\d+)", found[3])
            terms.append((kind, RZ if found[2] == "Z" else int(found[2])))
            if scale:
                terms.append(("scale", int(scale[1])))
        else:
            terms.append(("", -int(part[1:], 16) if part.startswith("~") else int(part, 16)))
    return tuple(terms)


def parse(text: str) -> Operand:
    text = text.partition(" `(")[0]  # RET names its function behind the register
    if found := ADDRESS.match(text):
        kind = "constant" if text.startswith(("c[", "cx[")) else "memory"
        return Operand(kind, text=text, terms=address_terms(found[1]))
    rest, negative, inverted, absolute = text, False, False, False
    while rest[:1] in ("-", "~", "!", "|"):
        if rest[0] == "|":
            absolute, rest = True, rest[1:].replace("|", "", 1)
        elif re.match(r"-(0x)?[\d.]", rest) or rest in FLOATS:
            break
        else:
            negative |= rest[0] in "-!"
            inverted |= rest[0] == "~"
            rest = rest[1:]
    signs = {"negative": negative, "inverted": inverted, "absolute": absolute}
    if rest.startswith(("c[", "cx[")):
        found = ADDRESS.match(re.sub(r"(\.\w+)+$", "", rest))
        terms = address_terms(found[1] if found else "0x0")
        return Operand("constant", text=rest, terms=terms, **signs)
    if found := NAME.match(rest):
        index = (RZ if found[1].endswith("R") else PT) if found[2] in "ZT" else int(found[2])
        half = next((m for m in found[3].split(".") if m[:1] in ("H", "B") and m != "B"), "")
        return Operand(found[1], index, half=half, text=rest, **signs)
    if re.match(r"-?0x[0-9a-f]+$", rest):
        return Operand("number", text=rest, bits=int(rest, 16) & 0xFFFFFFFFFFFFFFFF)
    if rest in FLOATS:
        return Operand("number", text=rest, bits=FLOATS[rest])
    try:
        return Operand("number", text=rest, bits=struct.unpack("<I", struct.pack("<f", float(rest)))[0])
    except (ValueError, OverflowError):
        return Operand("special" if rest.startswith("SR_") else "other", text=rest)


class Registers:
    """Of a warp. Those of the uniform path hold the same number for each lane."""

    def __init__(self) -> None:
        self.lanes = np.zeros((RZ + 1, LANES), np.uint32)
        self.uniform = np.zeros((RZ + 1, LANES), np.uint32)
        self.flags = np.zeros((8, LANES), bool)
        self.uniform_flags = np.zeros((8, LANES), bool)
        self.flags[PT] = self.uniform_flags[PT] = True

    def file(self, kind: str) -> np.ndarray:
        return self.lanes if kind == "R" else self.uniform

    def write(self, o: Operand, value: Words, mask: Flags, offset: int = 0) -> None:
        if o.kind not in ("R", "UR") or o.index == RZ:
            return
        if o.kind == "UR":
            self.uniform[o.index + offset] = value[np.argmax(mask)]
        else:
            self.lanes[o.index + offset][mask] = value[mask]

    def write_wide(self, o: Operand, value: np.ndarray, mask: Flags) -> None:
        value = value.astype(np.uint64)
        self.write(o, (value & np.uint64(0xFFFFFFFF)).astype(np.uint32), mask)
        self.write(o, (value >> np.uint64(32)).astype(np.uint32), mask, 1)

    def flag(self, o: Operand) -> Flags:
        known = self.flags if o.kind == "P" else self.uniform_flags
        return ~known[o.index] if o.negative else known[o.index].copy()

    def set_flag(self, o: Operand, value: Flags, mask: Flags) -> None:
        if o.index == PT:
            return
        if o.kind == "UP":
            self.uniform_flags[o.index] = value[np.argmax(mask)]
        else:
            self.flags[o.index][mask] = value[mask]

    def wide(self, kind: str, index: int) -> np.ndarray:
        if index == RZ:
            return np.zeros(LANES, np.uint64)
        file = self.file(kind)
        return file[index].astype(np.uint64) | file[index + 1].astype(np.uint64) << np.uint64(32)
