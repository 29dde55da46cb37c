"""ONNX Runtime's LSTM, GRU and RNN operators (CPU, fp32, inference), and its DynamicQuantizeLSTM."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import torch

from harness.peer import BaseRunner, NotCompared, Unavailable
from peers import onnx_model

try:
    import onnxruntime
except ImportError as error:
    onnxruntime, missing = None, error


class OrtRunner(BaseRunner):
    def __init__(self, problem, model: bytes | None = None, given: tuple[str, ...] = ()):
        case = problem.case
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        # Workers that spin hold the cores in the next contestant's turn, which took up to twice its time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        built = model or onnx_model.model(case.cell, problem.weights, given)
        self.session = onnxruntime.InferenceSession(built, options, providers=["CPUExecutionProvider"])
        self.x = problem.x.numpy()
        self.binding = self.session.io_binding()
        self.binding.bind_cpu_input("x", self.x)
        self.states = np.zeros((1, case.B, case.H), np.float32)
        for name in given:
            self.binding.bind_cpu_input(name, self.states)
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
        return self.runner(problem)

    def runner(self, problem) -> OrtRunner:
        return OrtRunner(problem)


class OnnxRuntimeStep(OnnxRuntime):
    """The states are inputs, as a stream hands them from step to step."""

    def runner(self, problem) -> OrtRunner:
        return OrtRunner(problem, given=onnx_model.states_of(problem.case.cell))


def quantized(model: bytes) -> tuple[bytes, list[str]]:
    """What onnxruntime.quantization.quantize_dynamic makes of a model, and the operators that are in it."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        logging.disable(logging.WARNING)  # it recommends a step before, for convolutions and batch norms
        try:
            quantize_dynamic(onnx.load_model_from_string(model), path, weight_type=QuantType.QInt8)
        finally:
            logging.disable(logging.NOTSET)
        return path.read_bytes(), [node.op_type for node in onnx.load(path).graph.node]


class OrtQuantizedRunner(OrtRunner):
    """The states are inputs. Of GRU and RNN it has no form of 8 bits: float32 runs, and the row says so."""

    def __init__(self, problem):
        given = onnx_model.states_of(problem.case.cell)
        model, operators = quantized(onnx_model.model(problem.case.cell, problem.weights, given))
        if "DynamicQuantizeLSTM" in operators:
            self.compared = "benchmark of 8 bits"
        else:
            self.remark = f"ONNX Runtime has no int8 {problem.case.cell.upper()}: its float32 one ran"
        super().__init__(problem, model, given)


class OnnxRuntimeQuantized(OnnxRuntime):
    def runner(self, problem) -> OrtQuantizedRunner:
        return OrtQuantizedRunner(problem)
