"""Where torch's own path is taken under ``set_backend("auto")``: a committed table of measurements, nothing
else.

``prefers_torch`` is a pure function of its arguments, so the choice never varies from run to run. A row is
added only with the benchmark that shows torch faster on every machine measured; the rows name that result
file. GPUs have a table each, in `_gpu_rules.py`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ._gpu_rules import MEASURED


class Rule(NamedTuple):
    """Sizes in closed intervals for which torch's own path measured faster; ``source`` names the result
    file."""

    device: str  # "cpu", or a GPU's name as `slug` writes it: "nvidia-h200"
    cell: str  # "lstm" | "gru" | "rnn" | "lstm_cell" | "gru_cell" | "rnn_cell"
    dtype: str  # "float32", ...; on a GPU "tf32" is float32 where torch lets recurrent layers round to TF32
    train: bool
    H: tuple[int, int]
    B: tuple[int, int]
    T: tuple[int, int]
    source: str


CPU_RULES: tuple[Rule, ...] = ()

# GPUs on which the fused kernels were measured against cuDNN; their rules tell where cuDNN won. ``auto``
# leaves all others to torch: ``set_backend("fused")`` asks for the kernels.
MEASURED_GPUS: tuple[str, ...] = tuple(MEASURED)

RULES: tuple[Rule, ...] = CPU_RULES + tuple(Rule(gpu, *row) for gpu, rows in MEASURED.items() for row in rows)


def slug(name: str) -> str:
    """A machine's name in lower case, digits and dots kept, the rest one dash."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def prefers_torch(cell: str, I: int, H: int, B: int, T: int, dtype: str, device: str, train: bool) -> bool:
    """True where a committed measurement says that torch's own path is the faster one. T is 1 for cells."""
    return any(
        r.device == device
        and r.cell == cell
        and r.dtype == dtype
        and r.train == train
        and r.H[0] <= H <= r.H[1]
        and r.B[0] <= B <= r.B[1]
        and r.T[0] <= T <= r.T[1]
        for r in RULES
    )
