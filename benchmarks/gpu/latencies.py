"""What the model of time (model.py) takes for granted of an H200: a table of cycles, each with its source.

Fixed before any kernel was rewritten for it, and not fitted to anything. Instructions whose latency is fixed
need no entry: the compiler writes how long they take into the code. (A product of m16n8k16 is 24 cycles ahead
of one that takes its sums, in what nvcc 13.0 makes of forward_bf16, and two that do not wait are 6 apart.)

[L24] Luo et al., arXiv 2402.13499, of an H800: tables IV and VII, section on distributed shared memory.
[L25] Luo et al., arXiv 2501.12084, the longer version: L2's two halves, wgmma by N.
[G]   CUDA C++ Programming Guide, throughput of native arithmetic instructions, compute capability 9.0.
[D]   derived from one of these, as it says. [A] assumed: nobody has published it, or it was not found.
"""

from __future__ import annotations

from dataclasses import dataclass

# Of the datasheet's 989 TFLOP/s: 132 SMs of 4096 operations a cycle. [D]
GHZ = 1.83


@dataclass(frozen=True)
class Cost:
    cycles: float
    source: str


# From the issue of an instruction to the cycle in which one that waits for it can be issued.
LATENCY: dict[str, Cost] = {
    "shared memory": Cost(29.0, "[L24] table IV"),
    "L2": Cost(263.0, "[L24] table IV; [L25]: 258 in the near half, 414 in the far one"),
    "global memory": Cost(478.8, "[L24] table IV; a layer's inputs are too many for L2"),
    "another block's shared memory": Cost(
        180.0, "[L24]; of a load's round trip, taken for st.async's one way"
    ),
    "to L2": Cost(131.5, "[D] half of a load's way there and back: a store that another SM will see"),
    "constants": Cost(29.0, "[A] LDC as a load of shared memory"),
    "special function": Cost(
        24.0, "[A] MUFU, and conversions on its unit: 18 on Volta (Jia et al., 1804.06826)"
    ),
    "special register": Cost(24.0, "[A] S2R, S2UR, R2UR, VOTE into a register"),
    "shuffle": Cost(24.0, "[A] through the path of shared memory, without its banks"),
    "block barrier": Cost(30.0, "[A] from the last warp's arrival to the next instruction"),
    "barrier of bytes": Cost(29.0, "[A] a look at an mbarrier as a load of shared memory"),
    "fence of the GPU": Cost(
        263.0, "[A] MEMBAR waits until what was stored has reached L2 and is acknowledged"
    ),
    "fence of the system": Cost(526.0, "[A] two of these"),
    "sequential fence": Cost(526.0, "[A] MEMBAR.SC: a fence, and one more way to L2 for its order"),
    "invalidated L1": Cost(29.0, "[A] CCTL.IVALL"),
    "operands read": Cost(12.0, "[A] of a store, until its registers may be written again"),
    "wgmma": Cost(32.0, "[A] beyond the cycles that it occupies the tensor cores"),
}

# Cycles for which one instruction of a warp keeps its part of an SM: a quarter, with its own scheduler...
OCCUPIES: dict[str, Cost] = {
    "float": Cost(1.0, "[G] 128 results a cycle and SM"),
    "integer": Cost(2.0, "[G] 64: add, compare, shift, logic, multiply; moves between registers likewise"),
    "special function": Cost(8.0, "[G] 16: MUFU, conversions"),
    "tensor core": Cost(
        6.4, "[D] m16n8k16 and TF32's m16n8k8: mma reaches 62.9 % of the peak, 4 cycles [L24]"
    ),
    "other": Cost(1.0, "[A]"),
}
# ... or all of it: a pass through the banks of shared memory, a line of L1 or L2.
SHARED_PASS = Cost(1.0, "[G] 32 banks of 4 bytes a cycle")
GLOBAL_LINE = Cost(3.7, "[D] 128 bytes at 34.6 a cycle and SM: 3942 a cycle for 114 SMs, from L2 [L24]")
# wgmma m64nNk16: [L25] 128 cycles at N = 256, and no less than 16 below N = 32.
WGMMA_CYCLES_OF_N = Cost(0.5, "[L24] table VIII, 128 cycles at N = 256; at least 16")
# Bytes a cycle that an SM sends to others of its cluster: 3.27 TB/s at clusters of two, 2.65 of four, for 114
# SMs at 1.755 GHz. [D] of [L24]; larger clusters were not measured and are taken as four.
SENDS = {2: Cost(16.3, "[D]"), 4: Cost(13.2, "[D]")}
