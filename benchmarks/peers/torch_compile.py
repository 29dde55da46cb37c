"""torch.compile of torch.nn.

Dynamo breaks the graph at every nn.RNN, nn.LSTM and nn.GRU (torch 2.13), so layers run eagerly behind its
guards; the cells do compile. Compilation happens in the untimed first run.
"""

from __future__ import annotations

import torch

from harness.peer import NotCompared
from harness.runners import ModuleRunner, module_runner

# (H, B) that is compiled on a GPU, in bfloat16: it takes seconds a shape.
ON_GPU = ((128, 16), (512, 16), (512, 64), (1024, 64))


class TorchCompile:
    name = "compile"

    def prepare(self, problem) -> ModuleRunner:
        case = problem.case
        if case.device == "cuda":
            shapes = ((512, 32),) if case.form == "cell" else ON_GPU
            wanted = case.dtype == "bfloat16" and (case.H, case.B) in shapes
        else:  # a cell takes seconds to compile for each shape: one H stands for all
            wanted = case.dtype == "float32" and (case.form != "cell" or case.H == 512)
        if not wanted or case.form == "ragged":
            raise NotCompared
        torch.compiler.reset()
        runner = module_runner(torch.nn, problem)
        runner.call = torch.compile(runner.module, dynamic=False)
        return runner
