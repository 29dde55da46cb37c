"""One discriminator step, forward and backward, against the ways to write it in plain torch
(peers/discriminator.py).
"""

from __future__ import annotations

from harness.bars import Bar, mean_and_worst, ratios, select
from harness.options import Options
from harness.peer import BaseRunner
from harness.record import Row
from harness.sweep import OURS, sweep
from networks.gan_problem import PENALTIES, GanCase, GanProblem
from peers.discriminator import Auto, Compiled, Concatenated, Eager, Functional, Ours, Step, Unpenalised

MLPS = ((784, 256, 256, 1), (784, 512, 256, 128, 1), (784, 1024, 512, 256, 1), (3072, 1024, 1024, 1))


def is_dense(cell: str) -> bool:
    return cell.startswith("mlp")


PEERS = [
    Step("fused", Ours),
    Step("eager", Eager),
    Step("concatenated", Concatenated, lambda case: case.cell != "dcgan"),
    Step("compile", Compiled, lambda case: is_dense(case.cell) and case.penalty == "none"),
    Step("func", Functional, lambda case: is_dense(case.cell) and case.penalty != "none"),
    Step("auto", Auto),
    Step("fused plain", Unpenalised, lambda case: is_dense(case.cell) and case.penalty == "r1"),
]


def cases(quick: bool, dtypes: tuple[str, ...] = ("float32",), device: str = "cpu") -> list[GanCase]:
    sizes = [MLPS[0], MLPS[1]] if quick else MLPS
    dense = [
        GanCase("-".join(["mlp", *map(str, widths)]), B, penalty, 0, dtype, device)
        for dtype in dtypes
        for widths in sizes
        for B in ((64,) if quick else (64, 256))
        for penalty in PENALTIES
    ]
    return [*dense, GanCase("dcgan", 64, device=device), GanCase("lstm", 32, T=100, device=device)]


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick))
    budget = options.budget(len(chosen), 4, 1)
    return sweep("gan", chosen, options.contestants(PEERS), budget, make=GanProblem, note=path)


def path(name: str, problem: GanProblem, runner: BaseRunner) -> str:
    """Of our rows, which way the step took."""
    return runner.path if name in ("fused", "auto") else ""


def best_of_all(rows: list[Row], ours: str = "fused") -> list[float]:
    """Of each case the time of the fastest peer over ours."""
    best: dict[tuple, float] = {}
    for entry in select(rows, peer=lambda name: name.split()[0] not in OURS):
        ratio, case = getattr(entry, f"ratio_{ours}"), (entry.cell, entry.form, entry.B)
        if ratio != "":
            best[case] = min(best.get(case, ratio), ratio)
    return list(best.values())


def bars(rows: list[Row]) -> list[Bar]:
    dense = select(rows, cell=is_dense)
    plain, r1, gp = (select(dense, form=form) for form in PENALTIES)
    made = [
        *mean_and_worst("MLP step, eager / fused", ratios(select(plain, peer="eager")), 1.45),
        *mean_and_worst("MLP step, best peer / fused", best_of_all(plain), 1.15),
        *mean_and_worst("MLP step, best peer / auto", best_of_all(plain, "auto"), None, 0.98),
        *mean_and_worst("MLP step with R1, eager / fused", ratios(select(r1, peer="eager")), 1.85),
        *mean_and_worst("MLP step with WGAN-GP, eager / fused", ratios(select(gp, peer="eager")), None),
    ]
    costs = [1 / ratio for ratio in ratios(select(r1, peer="fused plain"))]
    if costs:
        made.append(Bar("MLP step, with R1 / without, fused, largest", max(costs), 1.38, at_most=True))
    for cell, mean in (("lstm", 1.4), ("dcgan", 1.3)):
        made += mean_and_worst(
            f"{cell} step, eager / fused", ratios(select(rows, cell=cell, peer="eager")), mean
        )
    return made
