"""What instructions on memory, and products of the tensor cores, do to a warp's registers."""

from __future__ import annotations

import numpy as np

from .integers import Operands, put
from .listing import Instruction
from .operands import LANES, Flags, Operand, words
from .warp import SHARED_WINDOW, SMALL, U64, Event, Warp

BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}


def size_of(i: Instruction) -> int:
    return next((BYTES[m] for m in i.modifiers if m in BYTES), 4)


def place(o: Operands) -> Operand:
    return next(x for x in o if x.kind == "memory")


def bank_passes(at: np.ndarray, size: int) -> int:
    """How often the 32 banks of four bytes must be gone through: a bank gives one word a pass."""
    together = LANES // max(1, size // 4)  # lanes that a pass serves at most
    total = 0
    for first in range(0, len(at), together):
        banks: dict[int, set[int]] = {}
        for a in at[first : first + together]:
            for word in range(int(a) // 4, (int(a) + max(size, 4)) // 4):
                banks.setdefault(word % 32, set()).add(word)
        total += max((len(words_of) for words_of in banks.values()), default=0)
    return max(1, total)


def lines(at: np.ndarray) -> int:
    return max(1, len(set((at >> U64(7)).tolist())))


def shared_word(w: Warp, at: np.ndarray, size: int) -> np.ndarray:
    memory = w.block.shared
    return np.array(
        [int.from_bytes(memory[int(a) : int(a) + size].tobytes(), "little") for a in at], np.uint32
    )


def load_shared(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    at, size = w.address(place(o)), size_of(i)
    event.wavefronts = bank_passes(at[mask], size)
    for n in range(max(1, size // 4)):
        w.r.write(o[0], shared_word(w, at + U64(4 * n), min(size, 4)), mask, n)


def store_shared(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    at, size = w.address(place(o)), size_of(i)
    event.wavefronts = bank_passes(at[mask], size)
    source = next(x for x in o if x.kind in ("R", "UR"))
    for n in range(max(1, size // 4)):
        value = w.r.file(source.kind)[source.index + n] if source.index != 255 else words(0)
        for lane in np.flatnonzero(mask):
            a = int(at[lane]) + 4 * n
            data = int(value[lane]).to_bytes(4, "little")[: min(size, 4)]
            w.block.shared[a : a + len(data)] = np.frombuffer(data, np.uint8)


def load_local(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    at = int(w.address(place(o))[np.argmax(mask)])  # the same of each lane
    for n in range(max(1, size_of(i) // 4)):
        w.r.write(o[0], w.local.get(at + 4 * n, words(0)), mask, n)


def store_local(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    at = int(w.address(place(o))[np.argmax(mask)])
    source = next(x for x in o if x.kind == "R")
    for n in range(max(1, size_of(i) // 4)):
        value = w.r.lanes[source.index + n] if source.index != 255 else words(0)
        w.local[at + 4 * n] = np.where(mask, value, w.local.get(at + 4 * n, words(0)))


def load_matrix(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    count = 4 if "4" in i.modifiers else 2 if "2" in i.modifiers else 1
    event.wavefronts = count
    for n in range(count):
        w.r.write(o[0], words(SMALL), mask, n)


def load_global(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    at, size = w.address(place(o)), size_of(i)
    if i.base == "LD" and int(at[np.argmax(mask)] >> U64(32)) == SHARED_WINDOW:
        event.wavefronts = bank_passes(at[mask], size)
    else:
        event.wavefronts = lines(at[mask])
    to = next(x for x in o if x.kind in ("R", "UR"))
    for n in range(max(1, size // 4)):
        w.r.write(to, words(SMALL if size >= 4 else SMALL & (1 << 8 * size) - 1), mask, n)


def store_global(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    event.wavefronts = lines(w.address(place(o))[mask])


def store_async(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    event.wavefronts = -(-int(mask.sum()) * size_of(i) // 128)


def atomic(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    for x in o:
        if x.kind == "P":
            w.r.set_flag(x, np.ones(LANES, bool), mask)
        elif x.kind == "R":
            return w.r.write(x, words(0), mask)
    return None


def load_constant(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    size = size_of(i)
    value = w.constant(o[1], size)
    if size == 8:
        return w.r.write_wide(o[0], value, mask)
    if "S8" in i.modifiers or "S16" in i.modifiers:
        value = value.view(np.int8 if size == 1 else np.int16).astype(np.int32).view(np.uint32)
    return put(w, o, value.astype(np.uint32), mask)


def barrier_of_bytes(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    """SYNCS: what is waited for is there."""
    for x in o:
        if x.kind in ("P", "UP"):
            w.r.set_flag(x, np.ones(LANES, bool), mask)


def product(w: Warp, i: Instruction, o: Operands, mask: Flags, event: Event) -> None:
    if i.base == "HGMMA":
        return
    for n in range(4 if "F32" in i.modifiers else 2):
        w.r.write(o[0], words(SMALL), mask, n)


OF_MEMORY = {
    "LDL": load_local, "STL": store_local,
    "LDS": load_shared, "STS": store_shared, "LDSM": load_matrix, "LDG": load_global, "LD": load_global,
    "STG": store_global, "ST": store_global, "LDGSTS": store_global, "STAS": store_async,
    "LDC": load_constant, "ATOMG": atomic, "ATOMS": atomic, "ATOM": atomic, "SYNCS": barrier_of_bytes,
    "HMMA": product, "HGMMA": product, "IMMA": product,
}  # fmt: skip
