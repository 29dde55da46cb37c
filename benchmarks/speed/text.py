"""A whole training step of two text models, Adam included, on fusegen and on torch.nn: the demo's, and one
with H 512 (two layers, embeddings of 512, batches of 32 x 64 bytes)."""

from __future__ import annotations

import copy

import torch

import fusegen
from fusegen.data import pydocs
from fusegen.train import TextOptions, TextTask
from fusegen.train.options import FitOptions
from fusegen.train.update import make_optimizer, training_step
from fusegen.train.workers import Shard
from harness.bars import Bar, mean_and_worst, ratios, select
from harness.options import Options
from harness.peer import BaseRunner
from harness.problem import CELLS, Case
from harness.record import Row
from harness.sweep import sweep

FIT = FitOptions()


LARGE = {"H": 512, "B": 32, "T": 64, "I": 512}


class TextProblem:
    """A text model of the case's sizes with seeded weights, and its first batch of pydocs."""

    flops = 0  # not reckoned: the step is more than its matrix products

    def __init__(self, case: Case):
        self.case, self.tokens = case, case.T * case.B
        torch.manual_seed(0)
        sizes = {"hidden": case.H, "embedding": case.I, "batch": case.B, "chunk": case.T}
        self.task = TextTask.make(pydocs(), TextOptions(cell=case.cell, **sizes))
        self.batch, _ = next(self.task.data(Shard()))

    def reference(self) -> dict[str, torch.Tensor]:
        """Loss and all gradients of torch.nn in float64."""
        double = fusegen.revert(copy.deepcopy(self.task.model)).double()
        return loss_and_gradients(self, double)


def loss_and_gradients(problem: TextProblem, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    loss, _ = problem.task.loss(model, problem.batch, None)
    loss.backward()
    found = {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


class StepRunner(BaseRunner):
    def __init__(self, problem: TextProblem, backend: str):
        self.problem, self.backend = problem, backend
        self.model = copy.deepcopy(problem.task.model)
        self.before = fusegen.get_backend()
        if backend == "torch.nn":
            fusegen.revert(self.model)
        self.reset()
        self.checked = loss_and_gradients(problem, self.model)
        self.optimizer = make_optimizer(self.model, FIT.lr)

    def reset(self) -> None:
        if self.backend != "torch.nn":
            fusegen.set_backend(self.backend)

    def run(self) -> None:
        problem = self.problem
        training_step(problem.task, self.model, self.optimizer, problem.batch, None, FIT.clip)

    def results(self) -> dict[str, torch.Tensor]:
        """Before the first step: a step moves the weights."""
        return self.checked

    def close(self) -> None:
        fusegen.set_backend(self.before)


class TextStep:
    def __init__(self, name: str, backend: str):
        self.name, self.backend = name, backend

    def prepare(self, problem: TextProblem) -> StepRunner:
        return StepRunner(problem, self.backend)


def run(options: Options) -> list[Row]:
    model = TextOptions()
    shape = {"H": model.hidden, "B": model.batch, "T": model.chunk, "I": model.embedding}
    shapes = [shape] if options.quick else [shape, LARGE]
    chosen = options.cases([Case(cell, train=True, form="text", **each) for each in shapes for cell in CELLS])
    peers = [TextStep("fused", "fused"), TextStep("auto", "auto"), TextStep("torch", "torch.nn")]
    budget = options.budget(len(chosen), 3, 0.2)
    return sweep("text", chosen, options.contestants(peers), budget, make=TextProblem)


def bars(rows: list[Row]) -> list[Bar]:
    torch_rows, large = select(rows, peer="torch"), {"H": LARGE["H"], "B": LARGE["B"]}
    made = mean_and_worst("training step of a text model, torch.nn / fused", ratios(torch_rows), None)
    for cell, limit in (("lstm", 1.2), ("gru", 1.5), ("rnn", None)):
        one = select(torch_rows, cell=cell)
        small = [entry for entry in one if entry not in select(one, **large)]
        made += mean_and_worst(f"  {cell.upper()}, the demo's", ratios(small), limit)
        made += mean_and_worst(f"  {cell.upper()}, H {LARGE['H']}", ratios(select(one, **large)), limit)
    return made
