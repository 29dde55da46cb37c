"""Gradients of each sample: torch.func's vmap over grad and Opacus' GradSampleModule on fusegen's layers,
beside our own plain training step and Opacus' DPLSTM, DPGRU and DPRNN."""

from __future__ import annotations

import importlib.util
from time import perf_counter

import torch
from torch.func import functional_call, grad, vmap

import fusegen
from harness.bars import Bar, select
from harness.options import Options
from harness.peer import BaseRunner, Unavailable
from harness.problem import CELLS, CLASSES, Case, Problem
from harness.record import Row, row
from harness.sweep import sweep

DP_LIMIT = 10.0
PLAIN_LIMIT = 1.5
WRITING = "ms, bytes of dW"  # what writing the samples' weight gradients takes alone


class Samples(Problem):
    """The loss is sum(y * dy), and the answer each weight's gradient a sample, [B, ...]."""

    def reference(self) -> dict[str, torch.Tensor]:
        module = self.module(torch.nn).double()
        names, weights = zip(*module.named_parameters(), strict=True)
        each = [
            torch.autograd.grad((module(x)[0] * dy).sum(), weights)
            for x, dy in zip(self.x.double().split(1, 1), self.dy.double().split(1, 1), strict=True)
        ]
        return {name: torch.stack(g) for name, g in zip(names, zip(*each, strict=True), strict=True)}


class Func(BaseRunner):
    """vmap over grad."""

    def __init__(self, problem: Samples):
        fusegen.set_backend("fused")
        module = problem.module(fusegen.nn)
        self.params = {name: p.detach() for name, p in module.named_parameters()}
        self.given = problem.x, problem.dy

        def loss(params: dict[str, torch.Tensor], x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
            return (functional_call(module, params, (x,))[0] * dy).sum()

        self.each = vmap(grad(loss), in_dims=(None, 1, 1))

    def run(self) -> None:
        self.found = self.each(self.params, *self.given)

    def results(self) -> dict[str, torch.Tensor]:
        return self.found


class Plain(BaseRunner):
    """Training without: nothing to check."""

    def __init__(self, problem: Samples):
        fusegen.set_backend("fused")
        self.module, self.problem = problem.module(fusegen.nn), problem

    def reset(self) -> None:
        self.module.zero_grad(set_to_none=True)

    def run(self) -> None:
        (self.module(self.problem.x)[0] * self.problem.dy).sum().backward()

    def results(self) -> dict[str, torch.Tensor]:
        return {}


class Opacus(BaseRunner):
    """GradSampleModule on a layer: fusegen's, or Opacus' own of cells in Python."""

    def __init__(self, problem: Samples, own: bool):
        if importlib.util.find_spec("opacus") is None:
            raise Unavailable("opacus is not installed (pip install 'fusegen[privacy]')")
        from opacus import GradSampleModule, layers

        fusegen.set_backend("fused")
        case, trained = problem.case, problem.module(fusegen.nn)
        layer = trained
        if not own:
            layer = getattr(layers, f"DP{CLASSES[case.cell]}")(case.I, case.H)
            layer.load_state_dict(trained.state_dict())
        self.names = [name for name, _ in trained.named_parameters()]
        self.layer, self.problem = layer, problem
        self.module = GradSampleModule(layer, batch_first=False, loss_reduction="sum")

    def reset(self) -> None:
        for p in self.module.parameters():
            p.grad = p.grad_sample = None

    def run(self) -> None:
        (self.module(self.problem.x)[0] * self.problem.dy).sum().backward()

    def results(self) -> dict[str, torch.Tensor]:
        found = {name: p.grad_sample for name, p in self.layer.named_parameters()}
        flat = {name: g for name, g in found.items() if name in self.names}
        return flat or dict(zip(self.names, found.values(), strict=True))


class Peer:
    def __init__(self, name: str, runner: type[BaseRunner], **options: bool):
        self.name, self.runner, self.options = name, runner, options

    def prepare(self, problem: Samples) -> BaseRunner:
        return self.runner(problem, **self.options)


PEERS = (
    Peer("fused", Func),
    Peer("fused plain", Plain),
    Peer("fused Opacus", Opacus, own=True),
    Peer("Opacus", Opacus, own=False),
)


def writing(problem: Samples) -> float:
    """Milliseconds that fresh memory for the samples' gradients takes to be written, least of ten."""
    B, taken = problem.case.B, []
    for _ in range(10):
        begin = perf_counter()
        held = [torch.empty(B, *w.shape).fill_(0) for w in problem.weights]
        taken.append(perf_counter() - begin)
        del held
    return min(taken) * 1e3


def run(options: Options) -> list[Row]:
    cells = CELLS[:1] if options.quick else CELLS
    chosen = options.cases([Case(cell, 128, 32, 64, True) for cell in cells])
    budget = options.budget(len(chosen), 4, 1.0)
    rows = sweep("samples", chosen, options.contestants(list(PEERS)), budget, make=Samples)
    for case in chosen:
        problem = Samples(case)
        rows.append(row("samples", problem, "fused plain", writing(problem), unit=WRITING))
    return rows


def bars(rows: list[Row]) -> list[Bar]:
    made = []
    for entry in select(rows, unit="ms", peer="Opacus"):
        what = f"samples {entry.cell}, Opacus' own / vmap of grad"
        limit = DP_LIMIT if entry.cell == "lstm" else None
        made.append(Bar(what, entry.ratio_fused, limit))
        for ours in select(rows, unit="ms", peer="fused Opacus", cell=entry.cell):
            what = f"samples {entry.cell}, Opacus' own / fused Opacus"
            made.append(Bar(what, entry.value / ours.value, limit))
    for plain in select(rows, unit="ms", peer="fused plain"):
        for wrote in select(rows, unit=WRITING, cell=plain.cell):
            step = plain.value / plain.ratio_fused  # of vmap over grad
            what = f"samples {plain.cell}, vmap of grad less the writing of dW / plain training"
            made.append(Bar(what, (step - wrote.value) / plain.value, PLAIN_LIMIT, at_most=True))
    return made
