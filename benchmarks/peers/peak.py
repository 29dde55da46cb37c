"""The machine's practical peak as a contestant: the time that a case's matrix work would take at it.

Read in the same rounds as the rest, since a shared machine's peak drifts: the larger of a register-only
multiply-add loop and the engine's packed GEMM (fusegen._C.peak_gflops).
"""

from __future__ import annotations

import torch

from fusegen import _C
from peers import BaseRunner, NotCompared


class PeakRunner(BaseRunner):
    def __init__(self, problem):
        self.flops = problem.flops

    def run(self) -> float:
        return self.flops / (_C.peak_gflops(torch.get_num_threads()) * 1e9)

    def results(self) -> dict:
        return {}


class Peak:
    name = "peak"

    def prepare(self, problem) -> PeakRunner:
        case = problem.case
        if case.train or case.dtype != "float32" or case.H < 256 or case.B < 32:
            raise NotCompared
        return PeakRunner(problem)
