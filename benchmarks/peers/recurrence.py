"""fusegen's recurrence on a GPU alone, without the products that come before and after it."""

from __future__ import annotations

import torch

from fusegen.ops.cuda.engine import ENGINE
from fusegen.ops.cuda.layers import Steps, gate_inputs, recurrence, recurrence_backward
from fusegen.ops.spec import CELLS
from harness.peer import BaseRunner, NotCompared

SPECS = {spec.name: spec for spec in CELLS}


class RecurrenceRunner(BaseRunner):
    """fusegen's kernels on gate inputs that are there already; in training, their backward alone."""

    def __init__(self, problem, engine):
        case = problem.case
        self.engine, self.spec, self.problem = engine, SPECS[case.cell], problem
        weights = [w.to(case.device) for w in problem.weights]
        self.gx, b_hn = gate_inputs(self.spec, problem.x, weights)
        self.steps = Steps([weights[1]], b_hn=b_hn)
        self.forward(case.train)

    def forward(self, train: bool) -> None:
        self.y, self.h_n, self.c_n, *self.saved = recurrence(
            self.engine, self.spec, self.gx, self.steps, train
        )

    def run(self) -> None:
        if not self.problem.case.train:
            self.forward(False)
            return
        grads = (self.problem.dy, None, None)
        recurrence_backward(self.engine, self.spec, self.steps, (self.y, *self.saved), grads)

    def results(self) -> dict[str, torch.Tensor]:
        found = {"y": self.y, "h_n": self.h_n[0]}
        return found if self.c_n is None else found | {"c_n": self.c_n[0]}


class Recurrence:
    """Compared with the plan, not with a peer."""

    name = "recurrence"

    def __init__(self, engine=ENGINE):
        self.engine = engine

    def prepare(self, problem) -> RecurrenceRunner:
        if problem.case.form != "layer":
            raise NotCompared
        return RecurrenceRunner(problem, self.engine)
