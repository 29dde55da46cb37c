"""fusegen's recurrence on a GPU alone, without the products that come before and after it."""

from __future__ import annotations

import torch

from fusegen.ops import gpu
from harness.peer import BaseRunner, NotCompared

LAYERS = {"lstm": gpu.LSTM, "gru": gpu.GRU, "rnn": gpu.RNN}


class RecurrenceRunner(BaseRunner):
    """fusegen's kernels on gate inputs that are there already; in training, their backward alone."""

    def __init__(self, problem):
        case = problem.case
        self.cell, self.problem = LAYERS[case.cell], problem
        weights = [w.to(case.device) for w in problem.weights]
        self.R = [weights[1]]
        self.gx, self.b_hn = gpu.gate_inputs(self.cell, problem.x, weights)
        self.forward(case.train)

    def forward(self, train: bool) -> None:
        self.y, self.h_n, self.c_n, self.gates, self.cells = gpu.recurrence(
            self.cell, self.gx, self.R, [], self.b_hn, None, None, None, False, train
        )

    def run(self) -> None:
        if not self.problem.case.train:
            self.forward(False)
            return
        gpu.recurrence_backward(
            self.cell, self.problem.dy, None, None, self.R, [], self.y, None, None, None, self.gates,
            self.cells, False,
        )  # fmt: skip

    def results(self) -> dict[str, torch.Tensor]:
        found = {"y": self.y, "h_n": self.h_n[0]}
        return found if self.c_n is None else found | {"c_n": self.c_n[0]}


class Recurrence:
    """Compared with the plan, not with a peer."""

    name = "recurrence"

    def prepare(self, problem) -> RecurrenceRunner:
        if problem.case.form != "layer":
            raise NotCompared
        return RecurrenceRunner(problem)
