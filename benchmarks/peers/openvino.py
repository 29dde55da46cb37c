"""OpenVINO's LSTM, GRU and RNN sequences (CPU, fp32, inference): a newer oneDNN than torch's."""

from __future__ import annotations

import numpy as np
import torch

from harness.peer import BaseRunner, NotCompared, Unavailable
from peers import onnx_model

try:
    import openvino
except ImportError as error:
    openvino, missing = None, error


def compiled(problem):
    """The model for the case's shapes alone, in float32 (the default may be bfloat16), on torch's threads."""
    case = problem.case
    core = openvino.Core()
    model = core.read_model(onnx_model.model(case.cell, problem.weights))
    model.reshape({"x": [case.T, case.B, case.I]})
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # the caller's thread takes part, and is the others' too
    }
    return core.compile_model(model, "CPU", options)


class OpenvinoRunner(BaseRunner):
    # TBB's workers were seen to spin on for 1.0 ms after a call.
    rest = 2e-3

    def __init__(self, problem):
        self.request = compiled(problem).create_infer_request()
        self.x = problem.x.numpy()
        self.buffers = {
            name: np.empty(shape, np.float32) for name, shape in onnx_model.outputs(problem.case).items()
        }
        for name, array in {"x": self.x, **self.buffers}.items():
            self.request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def run(self) -> None:
        self.request.infer(share_outputs=True)

    def results(self) -> dict[str, torch.Tensor]:
        return onnx_model.in_torchs_layout(self.buffers)


class Openvino:
    name = "openvino"

    def prepare(self, problem) -> OpenvinoRunner:
        if not onnx_model.compared(problem.case):
            raise NotCompared
        if openvino is None:
            raise Unavailable(f"{missing}; pip install openvino onnx")
        return OpenvinoRunner(problem)
