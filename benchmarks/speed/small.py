"""The smallest calls, one step of one row: cells and layers, `frozen` beside them, one thread and two."""

from __future__ import annotations

from dataclasses import dataclass

from harness.bars import Bar, mean_and_worst, ratios, select
from harness.options import Options
from harness.problem import CELLS, Case
from harness.record import Row
from harness.threads import COUNTS, counts, counts_in, sweep_by_threads, with_form, with_threads, word
from peers.ours import Ours
from peers.torch_eager import TorchEager

CELL_SIZES = (32, 64, 128)
LAYER_SIZES = (32, 64, 128, 256, 512)


@dataclass(frozen=True)
class SmallCase(Case):
    threads: int = 1

    @property
    def name(self) -> str:
        return f"{super().name} {word(self.threads)}"


def cases(quick: bool, counts: tuple[int, ...] = COUNTS) -> list[SmallCase]:
    """On each of `counts` threads; quick: the largest cell and the smallest layer, on the fewest."""
    counts = counts[:1] if quick else counts
    cells = [
        SmallCase(cell, H, 1, 1, train, form="cell", threads=count)
        for cell in CELLS
        for H in (CELL_SIZES[-1:] if quick else CELL_SIZES)
        for train in (False, True)
        for count in counts
    ]
    layers = [
        SmallCase(cell, H, 1, 1, form="layer", threads=count)
        for cell in CELLS
        for H in (LAYER_SIZES[:1] if quick else LAYER_SIZES)
        for count in counts
    ]
    return cells + layers


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick, counts(options)))
    peers = [Ours("fused"), Ours("frozen", frozen=True), Ours("auto", backend="auto"), TorchEager()]
    budget = options.budget(len(chosen), 3, 0.3)
    return sweep_by_threads("small", chosen, options.contestants(peers), budget)


def bars(rows: list[Row]) -> list[Bar]:
    made = []
    for count in counts_in(rows):
        those = with_threads(rows, count)
        on = f"{count} thread{'s' if count > 1 else ''}"
        torch, fused = select(those, peer="torch"), select(those, peer="fused")
        made += mean_and_worst(
            f"cells, B 1, {on}, torch.nn / fused", ratios(with_form(torch, "cell")), 1.3, 0.97
        )
        made += mean_and_worst(
            f"layers, B 1, T 1, {on}, torch.nn / fused", ratios(with_form(torch, "layer")), None, 0.97
        )
        for form in ("cell", "layer"):
            frozen = ratios(with_form(fused, form), "frozen")
            made += mean_and_worst(f"  {form}s, {on}, not frozen / frozen", frozen, None, 0.97)
        made += mean_and_worst(f"  {on}, torch.nn / auto", ratios(torch, "auto"), None, 0.99)
    return made
