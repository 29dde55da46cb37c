"""What a GPU does at best: a copy in its own memory, and a large product in each precision."""

from __future__ import annotations

import torch

from harness.cuda import CudaClock, precision
from harness.peer import BaseRunner
from harness.problem import torch_dtype
from harness.record import Row
from harness.timing import interleaved

SIZE = 8192  # of the square matrices
COPY_BYTES = 1 << 32
DTYPES = ("bfloat16", "float16", "tf32", "float32")


class Copy(BaseRunner):
    def __init__(self):
        self.source = torch.randint(0, 256, (COPY_BYTES,), dtype=torch.uint8, device="cuda")
        self.target = torch.empty_like(self.source)

    def run(self) -> None:
        self.target.copy_(self.source)


class Product(BaseRunner):
    """Of random matrices: zeros would run faster."""

    def __init__(self, dtype: str):
        self.a, self.b = (torch.randn(SIZE, SIZE, device="cuda").to(torch_dtype(dtype)) for _ in range(2))

    def run(self) -> None:
        torch.mm(self.a, self.b)


def measure(when: str) -> list[Row]:
    """Rows of the suite "ceilings": GB/s, read and written, of the copy; TFLOP/s of the products."""
    clock, rows = CudaClock(), []

    def add(peer: str, dtype: str, unit: str, amount: float, runner: BaseRunner) -> None:
        timing = interleaved({peer: runner}, seconds=0.3, clock=clock)[peer]
        low, high = (amount / timing.quantile(q) for q in (0.8, 0.2))
        figures = {"value": amount / timing.median, "p20": low, "p80": high, "rounds": len(timing.samples)}
        rows.append(Row("ceilings", dtype=dtype, H=SIZE, peer=peer, unit=unit, note=when, **figures))

    add("copy", "", "GB/s", 2 * COPY_BYTES / 1e9, Copy())
    for dtype in DTYPES:
        with precision(dtype):
            add(f"product {dtype}", dtype, "TFLOP/s", 2 * SIZE**3 / 1e12, Product(dtype))
    print(f"ceilings {when}: " + "  ".join(f"{r.peer} {r.value:.4g} {r.unit}" for r in rows), flush=True)
    return rows


def peak(rows: list[Row], peer: str) -> float | None:
    """The larger of the readings before and after, or None."""
    return max(
        (entry.value for entry in rows if entry.suite == "ceilings" and entry.peer == peer), default=None
    )
