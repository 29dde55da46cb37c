"""What instructions on integers, bits and predicates do to a warp's registers."""

from __future__ import annotations

import numpy as np

from .listing import Instruction
from .operands import LANES, Flags, Operand, Words, words
from .warp import LOW, U64, Event, Warp

Operands = list[Operand]
SIGNED = ("S32", "S64", "S16", "S8")


def low(value: np.ndarray) -> Words:
    return (value & LOW).astype(np.uint32)


def extended(value: Words, signed: bool) -> np.ndarray:
    return value.view(np.int32).astype(np.int64).view(U64) if signed else value.astype(U64)


def exact(w: Warp, o: Operand) -> np.ndarray:
    """For sums with a carry: -b is ~b + 1 in 33 bits."""
    value = w.bits(o).astype(U64)
    if o.negative:
        return (~value & LOW) + U64(1)
    return ~value & LOW if o.inverted else value


def carry_in(w: Warp, carries: Operands) -> np.ndarray:
    total = np.zeros(LANES, U64)
    for c in carries:
        total = total + w.r.flag(c).astype(U64)
    return total


def put(w: Warp, o: Operands, value: Words, mask: Flags) -> None:
    w.r.write(o[0], value, mask)


def move(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    if i.modifiers[:1] == ["64"] or i.modifiers[:1] == ["64"]:
        w.r.write_wide(o[0], w.wide(o[1]), mask)
    else:
        put(w, o, w.integer(o[1]), mask)


def add3(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    out, terms, carries = w.first(i, o)
    if "64" in i.modifiers:
        return w.r.write_wide(o[0], sum((w.wide(t) for t in terms), np.zeros(LANES, U64)), mask)
    total = carry_in(w, carries if "X" in i.modifiers else [])
    for t in terms:
        total = total + exact(w, t)
    put(w, o, low(total), mask)
    for n, flag in enumerate(out):
        w.r.set_flag(flag, total >> U64(32) > n, mask)
    return None


def multiply_add(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    out, (a, b, *rest), carries = w.first(i, o)
    signed = "U32" not in i.modifiers
    c = rest[0] if rest else Operand("number")
    if "WIDE" in i.modifiers or "HI" in i.modifiers:
        product = extended(w.integer(a), signed) * extended(w.integer(b), signed)
        total = product + w.wide(c)
        if "WIDE" in i.modifiers:
            w.r.write_wide(o[0], total, mask)
        else:
            put(w, o, (total >> U64(32)).astype(np.uint32), mask)
        for flag in out:
            w.r.set_flag(flag, total < product, mask)
        return
    total = w.integer(a).astype(U64) * w.integer(b).astype(U64) + exact(w, c)
    put(w, o, low(total + carry_in(w, carries if "X" in i.modifiers else [])), mask)


def shift_add(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    """LEA: (a << s) + b; its HI: the upper half of a shifted, or of c:a."""
    out, operands, carries = w.first(i, o)
    extra = carry_in(w, carries if "X" in i.modifiers else [])
    if "HI" not in i.modifiers:
        a, b, *rest = operands
        s = U64(rest[0].bits if rest else 0)
        total = ((w.integer(a).astype(U64) << s) & LOW) + exact(w, b) + extra
    else:
        if "SX32" in i.modifiers:
            a, b, *rest = operands
            value = extended(w.integer(a), True)
        else:
            a, b, c, *rest = operands
            value = w.integer(a).astype(U64) | w.integer(c).astype(U64) << U64(32)
        s = U64(rest[0].bits if rest else 0)
        total = ((value << s) >> U64(32)) + exact(w, b) + extra
    put(w, o, low(total), mask)
    for flag in out:
        w.r.set_flag(flag, total >> U64(32) != 0, mask)


def shift(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    """SHF: of the 64 bits c:a, one half."""
    a, s, c = w.integer(o[1]), w.integer(o[2]), w.integer(o[3])
    wide = any(m in ("U64", "S64") for m in i.modifiers)
    s64 = (
        (s & np.uint32(63 if wide else 31)).astype(U64)
        if "W" in i.modifiers
        else np.minimum(s, 64).astype(U64)
    )
    value = a.astype(U64) | c.astype(U64) << U64(32)
    signed = any(m in SIGNED for m in i.modifiers)
    gone = s64 > U64(63)
    s64 = np.minimum(s64, U64(63))
    if "L" in i.modifiers:
        moved = value << s64
        if "HI" not in i.modifiers:  # of a alone
            moved = a.astype(U64) << s64
        moved = np.where(gone, U64(0), moved)
    elif "HI" in i.modifiers:  # of c alone
        upper = extended(c, True).view(np.int64) >> s64.astype(np.int64) if signed else c.astype(U64) >> s64
        return put(w, o, low(upper.view(U64) if signed else upper), mask)
    else:
        moved = (value.view(np.int64) >> s64.astype(np.int64)).view(U64) if signed else value >> s64
        return put(w, o, low(moved), mask)
    return put(w, o, low(moved >> U64(32) if "HI" in i.modifiers else moved), mask)


def lut3(a: np.ndarray, b: np.ndarray, c: np.ndarray, table: int) -> np.ndarray:
    total = np.zeros_like(a)
    for n in range(8):
        if table >> n & 1:
            total |= (a if n & 4 else ~a) & (b if n & 2 else ~b) & (c if n & 1 else ~c)
    return total


def logic(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    flag = o[0] if o[0].kind in ("P", "UP") else None
    rest = o[1:] if flag else o
    value = lut3(w.integer(rest[1]), w.integer(rest[2]), w.integer(rest[3]), rest[4].bits)
    w.r.write(rest[0], value, mask)
    if flag:
        before = w.r.flag(rest[5]) if len(rest) > 5 else np.zeros(LANES, bool)
        w.r.set_flag(flag, (value != 0) | before, mask)


def flag_logic(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    a, b, c = (w.r.flag(x) for x in o[2:5])
    for n, target in enumerate(o[:2]):
        if len(o) > 5 + n:
            w.r.set_flag(target, lut3(a, b, c, o[5 + n].bits), mask)


def joined(i: Instruction, made: Flags, before: Flags) -> Flags:
    if "OR" in i.modifiers:
        return made | before
    return made ^ before if "XOR" in i.modifiers else made & before


def compared(name: str, a: np.ndarray, b: np.ndarray) -> Flags:
    with np.errstate(invalid="ignore"):
        return {
            "LT": a < b, "LE": a <= b, "GT": a > b, "GE": a >= b, "EQ": a == b, "NE": a != b, "T": a == a,
        }[name]  # fmt: skip


def compare(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    a, b = w.integer(o[2]), w.integer(o[3])
    if "U32" not in i.modifiers:
        a, b = a.view(np.int32), b.view(np.int32)
    made = compared(i.modifiers[0], a, b)
    if "EX" in i.modifiers:  # the lower words decide where the upper ones are equal
        lower = w.r.flag(o[5]) if len(o) > 5 else np.ones(LANES, bool)
        equal = a == b
        name = i.modifiers[0]
        made = (
            (equal & lower)
            if name == "EQ"
            else (~equal | lower)
            if name == "NE"
            else np.where(equal, lower, made)
        )
    before = w.r.flag(o[4]) if len(o) > 4 else np.ones(LANES, bool)
    w.r.set_flag(o[0], joined(i, made, before), mask)
    w.r.set_flag(o[1], joined(i, ~made, before), mask)


def select(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    put(w, o, np.where(w.r.flag(o[3]), w.integer(o[1]), w.integer(o[2])), mask)


def least_or_most(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    """VIMNMX of two, VIMNMX3 of three, IMNMX: the least where the predicate holds."""
    values = np.array([w.integer(x) for x in o[1:] if x.kind not in ("P", "UP")])
    if "U32" not in i.modifiers:
        values = values.view(np.int32)
    made = np.where(w.r.flag(o[-1]), values.min(axis=0), values.max(axis=0))
    put(w, o, made.view(np.uint32), mask)


def add_least_or_most(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    total = w.integer(o[1]) + w.integer(o[2])
    values = [total, w.integer(o[3])]
    if "U32" not in i.modifiers:
        values = [v.view(np.int32) for v in values]
    made = np.where(w.r.flag(o[-1]), np.minimum(*values), np.maximum(*values))
    put(w, o, made.view(np.uint32), mask)


def absolute(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    put(w, o, np.abs(w.integer(o[1]).view(np.int32)).view(np.uint32), mask)


def permute(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    a, s, c = w.integer(o[1]), w.integer(o[2]), w.integer(o[3])
    both = a.astype(U64) | c.astype(U64) << U64(32)
    total = np.zeros(LANES, U64)
    for n in range(4):
        pick = (s >> np.uint32(4 * n)) & np.uint32(15)
        byte = (both >> (U64(8) * (pick & np.uint32(7)).astype(U64))) & U64(255)
        byte = np.where(pick & np.uint32(8), np.where(byte & U64(128), U64(255), U64(0)), byte)
        total |= byte << U64(8 * n)
    put(w, o, low(total), mask)


def sign_extend(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    value, n = w.integer(o[1]).astype(np.int64), w.integer(o[2]).astype(np.int64)
    value &= (1 << n) - 1
    if "U32" not in i.modifiers:
        value = np.where(value >> np.maximum(n - 1, 0) & 1, value - (1 << n), value)
    put(w, o, (value & 0xFFFFFFFF).astype(np.uint32), mask)


def bit_mask(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    start, n = w.integer(o[1]).astype(U64), np.minimum(w.integer(o[2]), 32).astype(U64)
    put(w, o, low(((U64(1) << n) - U64(1)) << start), mask)


def count_bits(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    put(w, o, np.array([int(v).bit_count() for v in w.integer(o[1])], np.uint32), mask)


def find_bit(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    put(w, o, np.array([(int(v).bit_length() - 1) & 0xFFFFFFFF for v in w.integer(o[1])], np.uint32), mask)


def reverse_bits(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    put(w, o, np.array([int(f"{int(v):032b}"[::-1], 2) for v in w.integer(o[1])], np.uint32), mask)


def flags_to_register(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    packed = sum((w.r.flags[n].astype(np.uint32) << np.uint32(n) for n in range(7)), words(0))
    keep = w.integer(o[3])
    part = next((int(m[1]) for m in i.modifiers if m in ("B1", "B2", "B3")), 0)
    keep, packed = keep << np.uint32(8 * part), packed << np.uint32(8 * part)
    put(w, o, (w.integer(o[2]) & ~keep) | (packed & keep), mask)


def register_to_flags(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    value = w.integer(o[1])
    if o[1].half.startswith("B"):
        value = value >> np.uint32(8 * int(o[1].half[1]))
    for n in range(7):
        if o[2].bits >> n & 1:
            w.r.set_flag(Operand("P", n), (value >> np.uint32(n) & np.uint32(1)).astype(bool), mask)


def special(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    name = o[1].text
    if name == "SR_TID.X":
        value = np.arange(LANES, dtype=np.uint32) + np.uint32(LANES * w.index)
    elif name == "SR_LANEID":
        value = np.arange(LANES, dtype=np.uint32)
    else:
        value = words(w.block.special.get(name, 0))
    if "64" in i.modifiers:
        return w.r.write_wide(o[0], value.astype(U64), mask)
    return put(w, o, value, mask)


def clear_or_clock(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    """CS2R: zero from SRZ, else a clock, which stands still here."""
    if "32" in i.modifiers:
        return put(w, o, words(0), mask)
    return w.r.write_wide(o[0], np.zeros(LANES, U64), mask)


def elect(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    one = np.zeros(LANES, bool)
    one[np.argmax(mask)] = True
    flag = next(x for x in o if x.kind in ("P", "UP"))
    w.r.set_flag(flag, one, mask)


def vote(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    """Of the lanes' predicate: the ballot in a register, whether all or any in a predicate."""
    said = w.r.flag(o[-1]) & mask
    ballot = int(sum(1 << n for n in range(LANES) if said[n]))
    answer = bool(said[mask].all()) if "ALL" in i.modifiers else bool(said.any())
    for x in o[:-1]:
        if x.kind in ("R", "UR"):
            w.r.write(x, words(ballot), mask)
        elif x.kind in ("P", "UP"):
            w.r.set_flag(x, np.full(LANES, answer), mask)


def shuffle(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    value, by = w.integer(o[2]), w.integer(o[3]).astype(np.int64)
    lane = np.arange(LANES)
    source = {"BFLY": lane ^ by, "IDX": by, "UP": lane - by, "DOWN": lane + by}[i.modifiers[0]]
    fine = (source >= 0) & (source < LANES)
    w.r.write(o[1], value[np.where(fine, source, lane)], mask)
    w.r.set_flag(o[0], fine, mask)


def to_uniform(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    """R2UR: of the first lane; a predicate tells the lanes that have another number, which come later."""
    source, to = o[-1], next(x for x in o if x.kind == "UR")
    value = w.integer(source)
    w.r.write(to, value, mask)
    if o[0].kind == "P":
        w.r.set_flag(o[0], value != value[np.argmax(mask)], mask)


OF_INTEGERS = {
    "MOV": move, "IADD3": add3, "IADD": add3, "VIADD": add3, "IMAD": multiply_add, "LEA": shift_add,
    "SHF": shift, "LOP3": logic, "PLOP3": flag_logic, "ISETP": compare, "SEL": select,
    "VIMNMX": least_or_most, "VIMNMX3": least_or_most, "IMNMX": least_or_most,
    "VIADDMNMX": add_least_or_most, "IABS": absolute, "PRMT": permute, "SGXT": sign_extend,
    "BMSK": bit_mask, "POPC": count_bits, "FLO": find_bit, "BREV": reverse_bits, "P2R": flags_to_register,
    "R2P": register_to_flags, "S2R": special, "CS2R": clear_or_clock, "ELECT": elect, "VOTE": vote,
    "SHFL": shuffle, "R2UR": to_uniform,
}  # fmt: skip
