"""torch.ao's quantize_dynamic, which torch has declared deprecated: LSTM and GRU alone."""

from __future__ import annotations

import warnings

import torch

from harness.peer import NotCompared, Unavailable
from harness.problem import CLASSES
from harness.runners import LayerRunner

TAKES = ("lstm", "gru")  # of nn.RNN it changes nothing


class QuantizedRunner(LayerRunner):
    compared = "benchmark of 8 bits"

    def __init__(self, problem):
        own = problem.module(torch.nn)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its deprecation
            # The module itself is not looked at, only what lies in it.
            made = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(own), {type(own)})[0]
        if type(made) is type(own):
            raise Unavailable(f"quantize_dynamic left {CLASSES[problem.case.cell]} as it was")
        super().__init__(made, problem)
        self.remark = f"quantized engine {torch.backends.quantized.engine}"


class TorchQuantized:
    name = "torch.ao"

    def prepare(self, problem) -> QuantizedRunner:
        if problem.case.cell not in TAKES:
            raise NotCompared
        if not hasattr(torch.ao.quantization, "quantize_dynamic"):
            raise Unavailable(f"torch {torch.__version__} has no torch.ao.quantization.quantize_dynamic")
        return QuantizedRunner(problem)
