"""Where torch's own path is taken under ``set_backend("auto")``: a committed table of measurements, nothing
else.

``prefers_torch`` is a pure function of its arguments, so the choice never varies from run to run. A row is
added only with the benchmark that shows torch faster on every machine measured; the rows name that result
file.
"""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """Sizes in closed intervals for which torch's own path measured faster; ``source`` names the result
    file."""

    device: str  # "cpu" | "cuda"
    cell: str  # "lstm" | "gru" | "rnn" | "lstm_cell" | "gru_cell" | "rnn_cell"
    dtype: str  # "float32", ...
    train: bool
    H: tuple[int, int]
    B: tuple[int, int]
    T: tuple[int, int]
    source: str


RULES: tuple[Rule, ...] = ()

# GPUs on which the fused kernels were measured against cuDNN; the rows above tell where cuDNN won. While
# there is none, ``auto`` leaves GPUs to torch: ``set_backend("fused")`` asks for the kernels.
MEASURED_GPUS: tuple[str, ...] = ()


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
