"""Where torch's own path is taken under ``set_backend("auto")``: a committed table of measurements, nothing
else.

The choice is a pure function of a call's sizes and dtype, the instruction set, the processor's vendor and the
number of threads, so it never varies from run to run. A row is added only with the benchmark that shows torch
faster; it names that result file, and holds for the instruction set and vendor measured. The tables are in
`_cpu_rules.py` and `_gpu_rules.py`; benchmarks/choice.py writes both.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from . import _cpu_rules
from ._gpu_rules import MEASURED

ANY = (1, 2**31 - 1)
Range = tuple[int, int]


class Rule(NamedTuple):
    """Sizes in closed intervals for which torch's own path measured faster; ``source`` names the result
    file.

    Of a step of a GAN's dense discriminator, ``step_name`` is the cell, H are the weights of the layers (the
    multiply-adds of a sample), B the samples of a half, I the number of layers, and T is 1.
    """

    device: str  # "cpu", or a GPU's name as `slug` writes it: "nvidia-h200"
    cell: str  # "lstm" | "gru" | "rnn" | "lstm_cell" | "gru_cell" | "rnn_cell", or a `step_name`
    dtype: str  # "float32", ...; on a GPU "tf32" is float32 where torch lets recurrent layers round to TF32
    train: bool
    H: Range
    B: Range
    T: Range
    source: str
    I: Range = ANY
    threads: Range = ANY
    isa: str | None = None  # of the engine: "avx2", ...; None: any
    vendor: str | None = None  # of the processor: "intel", "amd", "other"; None: any


CPU_RULES: tuple[Rule, ...] = tuple(
    Rule("cpu", cell, dtype, train, H, B, T=T, source=source, I=I, threads=threads, isa=isa, vendor=vendor)
    for (isa, vendor), rows in _cpu_rules.MEASURED.items()
    for cell, dtype, train, I, H, B, T, threads, source in rows
)

# GPUs on which the fused kernels were measured against cuDNN; their rules tell where cuDNN won. ``auto``
# leaves all others to torch: ``set_backend("fused")`` asks for the kernels.
MEASURED_GPUS: tuple[str, ...] = tuple(MEASURED)

# The same of the discriminator step's kernels, against the whole step in one CUDA graph of eager calls.
MEASURED_STEP_GPUS: tuple[str, ...] = ()

RULES: tuple[Rule, ...] = CPU_RULES + tuple(Rule(gpu, *row) for gpu, rows in MEASURED.items() for row in rows)


def slug(name: str) -> str:
    """A machine's name in lower case, digits and dots kept, the rest one dash."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def step_name(penalty: str) -> str:
    """What the table calls a discriminator step with this penalty: "none", "r1" (R2 alone too) or "gp"."""
    return f"discriminator_step {penalty}"


def of_machine(device: str, isa: str = "", vendor: str = "") -> tuple[Rule, ...]:
    """The rules that hold on this kind of machine; isa and vendor are the CPU's alone."""
    return tuple(
        r for r in RULES if r.device == device and r.isa in (None, isa) and r.vendor in (None, vendor)
    )


def of_call(
    rules: tuple[Rule, ...], cell: str, dtype: str, train: bool, threads: int = 1
) -> tuple[Rule, ...]:
    """Those of ``rules`` that hold for such calls at some size."""
    return tuple(
        r
        for r in rules
        if r.cell == cell
        and r.dtype == dtype
        and r.train == train
        and r.threads[0] <= threads <= r.threads[1]
    )


def holds(H: Range, B: Range, T: Range, I: Range, sizes: tuple[int, int, int, int]) -> bool:
    """Whether these ranges have the sizes H, B, T, I."""
    h, b, t, i = sizes
    return H[0] <= h <= H[1] and B[0] <= b <= B[1] and T[0] <= t <= T[1] and I[0] <= i <= I[1]
