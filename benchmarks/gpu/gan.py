"""One discriminator step on a GPU against the ways to write it in plain torch, ours and eager also as one
CUDA graph.
"""

from __future__ import annotations

from harness.bars import Bar, mean_and_worst, ratios, select
from harness.options import Options
from harness.peer import NotCompared
from harness.record import Row
from harness.sweep import sweep
from networks.gan_problem import GanCase, GanProblem
from peers import graph
from peers.discriminator import Compiled, Concatenated, Eager, Functional, Ours, Step
from speed.gan import MLPS, cases, is_dense, path

DTYPES = ("float32", "tf32")
COMPILED = (MLPS[0], 64)  # stages are short, and compiling takes longer than timing


class InGraph(graph.InGraph):
    """The whole step as one CUDA graph; what draws interpolates on the way cannot be captured."""

    def prepare(self, problem: GanProblem) -> graph.GraphRunner:
        if problem.case.penalty == "gp":
            raise NotCompared
        return graph.GraphRunner(self.peer.prepare(problem))


def _compiled(case: GanCase) -> bool:
    return (case.widths, case.B) == COMPILED


PEERS = [  # without "auto", which leaves a GPU's step to plain torch
    Step("fused", Ours),
    Step("eager", Eager),
    Step("concatenated", Concatenated, lambda case: case.cell != "dcgan"),
    Step("compile", Compiled, lambda case: _compiled(case) and case.penalty == "none"),
    Step("func", Functional, lambda case: _compiled(case) and case.penalty != "none"),
    InGraph("graph", Step("fused", Ours)),
    InGraph("eager graph", Step("eager", Eager)),
]


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick, DTYPES, "cuda"))
    budget = options.budget(len(chosen), 4, 1)
    return sweep("gan", chosen, options.contestants(PEERS), budget, make=GanProblem, note=path)


def bars(rows: list[Row]) -> list[Bar]:
    rows = select(rows, suite="gan")
    dense = select(rows, cell=is_dense)
    made = []
    for dtype in DTYPES:
        part = select(dense, dtype=dtype)
        plain, r1 = select(part, form="none"), select(part, form="r1")
        made += mean_and_worst(f"MLP step, {dtype}, eager / fused", ratios(select(plain, peer="eager")), 6)
        for what, of, limit in (("MLP step", plain, 2), ("MLP step with R1", r1, 2.5)):
            graphs = ratios(select(of, peer="eager graph"), "graph")
            made += mean_and_worst(f"{what}, {dtype}, one CUDA graph each", graphs, limit)
    for cell in ("lstm", "dcgan"):
        made += mean_and_worst(
            f"{cell} step, eager / fused", ratios(select(rows, cell=cell, peer="eager")), None
        )
    return made
