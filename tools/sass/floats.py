"""What instructions on floats do to a warp's registers: plainly, whatever their mode of rounding."""

from __future__ import annotations

import numpy as np

from .integers import Operands, compared, joined, put
from .listing import Instruction
from .operands import LANES, Flags
from .warp import Event, Warp

F32 = np.float32


def store(w: Warp, i: Instruction, o: Operands, value: np.ndarray, mask: Flags) -> None:
    value = np.asarray(value, F32)
    if "SAT" in i.modifiers:
        value = np.clip(value, F32(0), F32(1))
    put(w, o, value.view(np.uint32), mask)


def add(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    store(w, i, o, w.number(o[1]) + w.number(o[2]), mask)


def multiply(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    store(w, i, o, w.number(o[1]) * w.number(o[2]), mask)


def multiply_add(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    store(w, i, o, w.number(o[1]) * w.number(o[2]) + w.number(o[3]), mask)


MUFU = {
    "RCP": np.reciprocal,
    "EX2": np.exp2,
    "LG2": np.log2,
    "TANH": np.tanh,
    "RSQ": lambda x: 1 / np.sqrt(x),
    "SQRT": np.sqrt,
    "SIN": np.sin,
    "COS": np.cos,
}


def function(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    x = w.number(o[1])
    store(w, i, o, MUFU[i.modifiers[0]](x), mask)


def compare(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    name, a, b = i.modifiers[0], w.number(o[2]), w.number(o[3])
    odd = np.isnan(a) | np.isnan(b)
    if name in ("NUM", "NAN"):
        made = odd if name == "NAN" else ~odd
    elif name.endswith("U") and name != "U":
        made = compared(name[:-1], a, b) | odd
    else:
        made = compared(name, a, b) & ~odd
    before = w.r.flag(o[4]) if len(o) > 4 else np.ones(LANES, bool)
    w.r.set_flag(o[0], joined(i, made, before), mask)
    w.r.set_flag(o[1], joined(i, ~made, before), mask)


def least_or_most(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    a, b = w.number(o[1]), w.number(o[2])
    store(w, i, o, np.where(w.r.flag(o[3]), np.fmin(a, b), np.fmax(a, b)), mask)


def select(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    store(w, i, o, np.where(w.r.flag(o[3]), w.number(o[1]), w.number(o[2])), mask)


def test(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    """FCHK: whether a division needs the slow way; it does not."""
    w.r.set_flag(o[0], np.zeros(LANES, bool), mask)


def from_integer(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    bits = w.integer(o[1])
    exact = (bits if any(m.startswith("U") for m in i.modifiers) else bits.view(np.int32)).astype(np.float64)
    if "RP" in i.modifiers:  # of a divisor, which is positive
        exact = bits.astype(np.float64)
    value = exact.astype(F32)
    if "RP" in i.modifiers:
        value = np.where(value < exact, np.nextafter(value, F32(np.inf)), value)
    store(w, i, o, value, mask)


def to_integer(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    value = np.nan_to_num(w.number(o[1]).astype(np.float64))
    value = (
        np.trunc(value)
        if "TRUNC" in i.modifiers
        else np.floor(value)
        if "FLOOR" in i.modifiers
        else np.rint(value)
    )
    unsigned = "U32" in i.modifiers
    value = np.clip(value, 0 if unsigned else -(2.0**31), 2.0**32 - 1 if unsigned else 2.0**31 - 1)
    put(w, o, (value.astype(np.int64) & 0xFFFFFFFF).astype(np.uint32), mask)


def pack(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    """F2FP, F2F: to 16 bits, the second operand in the lower half."""

    def short(value: np.ndarray) -> np.ndarray:
        if any("BF16" in m for m in i.modifiers):
            bits = value.view(np.uint32).astype(np.uint64)
            return (
                bits + np.uint64(0x7FFF) + (bits >> np.uint64(16) & np.uint64(1)) >> np.uint64(16)
            ).astype(np.uint32)
        return value.astype(np.float16).view(np.uint16).astype(np.uint32)

    if len(o) == 2:
        if i.modifiers[:2] in (["F32", "F32"], ["FTZ", "F32"]):
            return store(w, i, o, w.number(o[1]), mask)
        return put(w, o, short(w.number(o[1]).copy()), mask)
    a, b = (np.ascontiguousarray(w.number(x), F32) for x in o[1:3])
    if "TF32" in i.modifiers:
        return put(w, o, b.view(np.uint32), mask)
    return put(w, o, short(a) << np.uint32(16) | short(b), mask)


def packed(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    """HADD2.F32 widens a half; other arithmetic of pairs gives zero."""
    if "F32" in i.modifiers:
        source = o[2] if o[1].index == 255 or o[1].kind == "number" else o[1]
        return store(w, i, o, w.number(source), mask)
    return put(w, o, np.zeros(LANES, np.uint32), mask)


OF_FLOATS = {
    "FADD": add, "FMUL": multiply, "FFMA": multiply_add, "MUFU": function, "FSETP": compare,
    "FMNMX": least_or_most, "FSEL": select, "FCHK": test, "I2F": from_integer, "I2FP": from_integer,
    "F2I": to_integer, "F2FP": pack,
    "F2F": pack, "HADD2": packed, "HFMA2": packed, "HMUL2": packed,
}  # fmt: skip
