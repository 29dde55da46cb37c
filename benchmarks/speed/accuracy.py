"""Error against float64 in fp32, ours over torch.nn's own: outputs, every gradient; RMS over five seeds."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from math import sqrt

import torch

import fusegen
from harness.bars import Bar, select
from harness.check import relative_error
from harness.cuda import precision
from harness.options import Options
from harness.problem import CELLS, Case, Problem
from harness.record import Row, row
from harness.runners import PARAMETERS

SEEDS = 5
LIMIT = 2.0
SHAPES = [(64, 8, 10), (64, 8, 100), (64, 4, 1000), (256, 32, 100), (512, 1, 100)]
QUICK_SHAPES = SHAPES[:2]


def step(namespace, problem: Problem, state: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Outputs and all gradients, those of the initial state (h [1,B,H], LSTM: and c) included."""
    module = problem.module(namespace)
    x, state = problem.leaf(problem.x), [problem.leaf(s) for s in state]
    y, last = module(x, tuple(state) if len(state) == 2 else state[0])
    last = list(last) if isinstance(last, tuple) else [last]
    # Any fixed gradient serves for the last state; the initial state's values are at hand.
    torch.autograd.backward([y, *last], [problem.dy, *(s.detach() for s in state)])
    found = {"y": y.detach(), "dx": x.grad}
    for name, initial, final in zip("hc", state, last, strict=False):
        found |= {name + "_n": final.detach(), f"d{name}0": initial.grad}
    return found | {"d" + n: p.grad for n, p in zip(PARAMETERS, module.parameters(), strict=True)}


def double(problem: Problem) -> Problem:
    """The same numbers in float64."""
    wide = Problem(replace(problem.case, dtype="float64"))
    wide.weights = [weight.double() for weight in problem.weights]
    wide.x, wide.dy = problem.x.double(), problem.dy.double()
    return wide


def rms_errors(case: Case) -> dict[str, dict[str, float]]:
    """Peer -> name of the tensor -> RMS over the seeds of its relative error."""
    squares: dict[str, dict[str, float]] = {"fused": {}, "torch": {}}
    for seed in range(SEEDS):
        problem = Problem(case, seed)
        g = torch.Generator(case.device).manual_seed(seed + SEEDS)
        state = [
            torch.randn(1, case.B, case.H, generator=g, device=case.device).to(case.torch_dtype)
            for _ in range(2 if case.cell == "lstm" else 1)
        ]
        exact = step(torch.nn, double(problem), [s.double() for s in state])
        for peer, namespace in (("fused", fusegen.nn), ("torch", torch.nn)):
            for name, value in step(namespace, problem, state).items():
                error = relative_error(value, exact[name])
                squares[peer][name] = squares[peer].get(name, 0.0) + error**2
    return {peer: {n: sqrt(total / SEEDS) for n, total in sums.items()} for peer, sums in squares.items()}


def run(options: Options) -> list[Row]:
    return measured(options.cases(cases(options.quick)))


def cases(quick: bool, dtype: str = "float32", device: str = "cpu") -> list[Case]:
    shapes = QUICK_SHAPES if quick else SHAPES
    return [Case(cell, H, B, T, True, dtype, device=device) for cell in CELLS for H, B, T in shapes]


def measured(cases: list[Case]) -> list[Row]:
    """Rows of both sides' errors, a tensor each."""
    fusegen.set_backend("fused")
    rows = []
    for case in cases:
        with precision(case.dtype) if case.device == "cuda" else nullcontext():
            found = rms_errors(case)
        for peer, errors in found.items():
            rows += [
                row("accuracy", Problem(case), peer, error, unit="relative error", rounds=SEEDS, note=name)
                for name, error in errors.items()
            ]
        ratios = {name: found["fused"][name] / found["torch"][name] for name in found["torch"]}
        print(
            f"{case.name:44}  ours / torch:  " + "  ".join(f"{n} {r:.2f}" for n, r in ratios.items()),
            flush=True,
        )
    return rows


def bars(rows: list[Row]) -> list[Bar]:
    return [bar for cell in CELLS for bar in largest(cell, select(rows, cell=cell), LIMIT)]


def largest(what: str, rows: list[Row], limit: float) -> list[Bar]:
    """The largest of our errors over torch.nn's; nothing if there are no rows."""
    pairs = zip(select(rows, peer="fused"), select(rows, peer="torch"), strict=True)
    found = [(ours.value / theirs.value, f"{ours.note}, H{ours.H} T{ours.T}") for ours, theirs in pairs]
    if not found:
        return []
    ratio, where = max(found)
    return [Bar(f"{what}: error / torch.nn's own, largest ({where})", ratio, limit, at_most=True)]
