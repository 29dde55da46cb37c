"""tract's LSTM, GRU and RNN (CPU, fp32, inference), by its Python package: one thread, one row, the states
given."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from harness.peer import BaseRunner, NotCompared, Unavailable
from peers import onnx_model

try:
    import tract
except ImportError as error:
    tract, missing = None, error


class TractRunner(BaseRunner):
    def __init__(self, problem):
        case = problem.case
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            given = onnx_model.states_of(case.cell)
            path.write_bytes(onnx_model.model(case.cell, problem.weights, given))
            model = tract.onnx().load(path)
        model.set_input_fact(0, f"{case.T},{case.B},{case.I},f32")
        for i in range(len(given)):
            model.set_input_fact(1 + i, f"1,{case.B},{case.H},f32")
        self.state = model.into_model().into_runnable().spawn_state()
        zeros = np.zeros((1, case.B, case.H), np.float32)
        self.x = [tract.Tensor.from_numpy(a) for a in (problem.x.numpy(), *(zeros for _ in given))]
        self.names = list(onnx_model.outputs(case))

    def run(self) -> None:
        self.out = self.state.run(self.x)

    def results(self) -> dict[str, torch.Tensor]:
        return onnx_model.in_torchs_layout(
            {name: each.to_numpy() for name, each in zip(self.names, self.out, strict=True)}
        )


class Tract:
    name = "tract"

    def prepare(self, problem) -> TractRunner:
        if not onnx_model.compared(problem.case) or torch.get_num_threads() > 1:
            raise NotCompared
        if problem.case.B > 1:
            raise Unavailable("of several rows, tract 0.23 fails on an LSTM whose model leaves T and B open")
        if tract is None:
            raise Unavailable(f"{missing}; pip install tract")
        return TractRunner(problem)
