"""What a GPU does at best: a copy in its own memory, and a large product in each precision."""

from __future__ import annotations

import torch

from peers import BaseRunner
from peers.gpu import precision
from problem import Case
from record import Row
from timing import CudaClock, interleaved

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

    def __init__(self, case: Case):
        self.a, self.b = (torch.randn(SIZE, SIZE, device="cuda").to(case.torch_dtype) for _ in range(2))

    def run(self) -> None:
        torch.mm(self.a, self.b)


def measure(when: str) -> list[Row]:
    """Rows of the suite "ceilings": GB/s, read and written, of the copy; TFLOP/s of the products."""
    clock, rows = CudaClock(), []

    def add(dtype: str, peer: str, unit: str, amount: float, timing) -> None:
        low, high = (amount / timing.quantile(q) for q in (0.8, 0.2))
        rows.append(
            Row(
                "ceilings", "", "", "", dtype, 0, SIZE, 0, 0, 0, peer, amount / timing.median, unit=unit,
                p20=low, p80=high, rounds=len(timing.samples), note=when,
            )
        )  # fmt: skip

    add(
        "",
        "copy",
        "GB/s",
        2 * COPY_BYTES / 1e9,
        interleaved({"copy": Copy()}, seconds=0.3, clock=clock)["copy"],
    )
    for dtype in DTYPES:
        case = Case("rnn", SIZE, 1, 1, dtype=dtype, device="cuda")
        with precision(case):
            timing = interleaved({dtype: Product(case)}, seconds=0.3, clock=clock)[dtype]
        add(dtype, f"product {dtype}", "TFLOP/s", 2 * SIZE**3 / 1e12, timing)
    print(f"ceilings {when}: " + "  ".join(f"{r.peer} {r.value:.4g} {r.unit}" for r in rows), flush=True)
    return rows


def peak(rows: list[Row], peer: str) -> float | None:
    """The larger of the readings before and after, or None."""
    return max(
        (entry.value for entry in rows if entry.suite == "ceilings" and entry.peer == peer), default=None
    )
