"""What a forward step of an LSTM in bfloat16 was planned to take on an H200, in microseconds: derived from
the chip's figures before any kernel was written. A design target, not a measurement.
"""

from __future__ import annotations

# H -> at each of BATCHES (through a cluster, through L2); None: too large for one. A range is (from, to).
BATCHES = (1, 16, 64, 256)
STEP = {
    128: ((0.35, (0.75, 1.1)), (0.35, 0.75), (0.4, (0.8, 1.1)), (0.45, (1, 1.3))),
    256: ((0.5, (0.8, 1.1)), (0.5, 0.8), (0.6, (0.8, 1.2)), (0.8, (1.2, 1.5))),
    512: ((0.8, (0.9, 1.2)), (0.8, (0.9, 1.2)), (1.2, (1, 1.4)), (2.8, (2, 2.3))),
    1024: ((None, (1, 1.4)), (None, (1.1, 1.4)), (None, (1.8, 2.2)), (None, (3.8, 4.2))),
    2048: ((None, (1.4, 1.7)), (None, (2, 2.3)), (None, (5.1, 5.4)), (None, 12)),
}


def step(H: int, B: int) -> float | None:
    """The better of the two ways, a range counted as its middle; None for a shape that was not planned."""
    if H not in STEP or B not in BATCHES:
        return None
    ways = STEP[H][BATCHES.index(B)]
    return min(sum(w) / 2 if isinstance(w, tuple) else w for w in ways if w is not None)
