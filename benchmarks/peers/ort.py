"""ONNX Runtime's LSTM, GRU and RNN operators (CPU, fp32, inference)."""

from __future__ import annotations

import numpy as np
import torch

from harness.peer import BaseRunner, NotCompared, Unavailable
from peers import onnx_model

try:
    import onnxruntime
except ImportError as error:
    onnxruntime, missing = None, error


class OrtRunner(BaseRunner):
    def __init__(self, problem):
        case = problem.case
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        # Workers that spin hold the cores in the next contestant's turn, which took up to twice its time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        built = onnx_model.model(case.cell, problem.weights)
        self.session = onnxruntime.InferenceSession(built, options, providers=["CPUExecutionProvider"])
        self.x = problem.x.numpy()
        self.binding = self.session.io_binding()
        self.binding.bind_cpu_input("x", self.x)
        self.buffers = {name: np.empty(shape, np.float32) for name, shape in onnx_model.outputs(case).items()}
        for name, buffer in self.buffers.items():
            self.binding.bind_output(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def results(self) -> dict[str, torch.Tensor]:
        return onnx_model.in_torchs_layout(self.buffers)


class OnnxRuntime:
    name = "onnxruntime"

    def prepare(self, problem) -> OrtRunner:
        if not onnx_model.compared(problem.case):
            raise NotCompared
        if onnxruntime is None:
            raise Unavailable(f"{missing}; pip install onnxruntime onnx")
        return OrtRunner(problem)
