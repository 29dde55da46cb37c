"""torch.compile of torch.nn.

Dynamo breaks the graph at every nn.RNN, nn.LSTM and nn.GRU (torch 2.13), so layers run eagerly behind its
guards; the cells do compile. Compilation happens in the untimed first run.
"""

from __future__ import annotations

import torch

from peers import NotCompared
from peers.torch_eager import ModuleRunner, module_runner


class TorchCompile:
    name = "compile"

    def prepare(self, problem) -> ModuleRunner:
        case = problem.case
        # A cell takes seconds to compile for each shape: one H stands for all.
        if case.form == "ragged" or case.dtype != "float32" or (case.form == "cell" and case.H != 512):
            raise NotCompared
        torch.compiler.reset()
        runner = module_runner(torch.nn, problem)
        runner.call = torch.compile(runner.module, dynamic=False)
        return runner
