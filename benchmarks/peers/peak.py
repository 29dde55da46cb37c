"""The machine's limits as contestants: the time that a case's matrix work alone would take.

Peak is the practical peak: the larger of a register-only multiply-add loop and the engine's packed GEMM.
Matmul is torch's product of the same size, all steps at once, which no recurrence allows. Both are read in
the same rounds as the rest, since a shared machine's speed drifts.
"""

from __future__ import annotations

import torch

from fusegen import _C
from harness.peer import BaseRunner, NotCompared
from harness.problem import GATES


class PeakRunner(BaseRunner):
    def __init__(self, problem):
        self.flops = problem.flops

    def run(self) -> float:
        return self.flops / (_C.peak_gflops(torch.get_num_threads()) * 1e9)

    def results(self) -> dict:
        return {}


class MatmulRunner(PeakRunner):
    def __init__(self, problem):
        case = problem.case
        self.rows = torch.randn(case.T * case.B, case.I + case.H)
        self.weight = torch.randn(GATES[case.cell] * case.H, case.I + case.H)

    def run(self) -> None:
        with torch.inference_mode():
            torch.nn.functional.linear(self.rows, self.weight)


class Peak:
    name, runner = "peak", PeakRunner

    def prepare(self, problem) -> BaseRunner:
        case = problem.case
        if case.train or case.dtype != "float32" or case.H < 256 or case.B < 32:
            raise NotCompared
        return self.runner(problem)


class Matmul(Peak):
    name, runner = "matmul", MatmulRunner
