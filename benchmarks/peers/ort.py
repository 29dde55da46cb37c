"""ONNX Runtime's LSTM, GRU and RNN operators (CPU, fp32, inference), called on one-node models built here."""

from __future__ import annotations

import numpy as np
import torch

from peers import BaseRunner, NotCompared, Unavailable

try:
    import onnx
    import onnxruntime
except ImportError as error:
    onnx, missing = None, error

OPS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
# Position of ONNX's gates in torch's order: LSTM i,o,f,c from i,f,g,o; GRU z,r,h from r,z,n.
GATE_ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}


def to_onnx_order(cell: str, weight: torch.Tensor) -> torch.Tensor:
    """Gate blocks along the first dimension from torch's order to ONNX's."""
    blocks = weight.chunk(len(GATE_ORDER[cell]))
    return torch.cat([blocks[i] for i in GATE_ORDER[cell]])


def model(cell: str, weights: list[torch.Tensor]) -> bytes:
    """A model of one recurrent node: x [T,B,I] -> y [T,1,B,H], h_n [1,B,H], c_n [1,B,H] (LSTM)."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    w, r, b_ih, b_hh = (to_onnx_order(cell, weight) for weight in weights)
    initial = {"w": w[None], "r": r[None], "b": torch.cat([b_ih, b_hh])[None]}
    H = r.shape[1]
    outputs = {"y": ["T", 1, "B", H], "h_n": [1, "B", H]} | ({"c_n": [1, "B", H]} if cell == "lstm" else {})
    attributes = {"linear_before_reset": 1} if cell == "gru" else {}
    node = helper.make_node(OPS[cell], ["x", *initial], list(outputs), hidden_size=H, **attributes)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "recurrent",
        [value("x", onnx.TensorProto.FLOAT, ["T", "B", w.shape[1]])],
        [value(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(tensor.contiguous().numpy(), name) for name, tensor in initial.items()],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(built)
    return built.SerializeToString()


class OrtRunner(BaseRunner):
    def __init__(self, problem):
        case = problem.case
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        # Workers spin inside a run, as by default, but not on into the next contestant's turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        built = model(case.cell, problem.weights)
        self.session = onnxruntime.InferenceSession(built, options, providers=["CPUExecutionProvider"])
        self.x = problem.x.numpy()
        self.binding = self.session.io_binding()
        self.binding.bind_cpu_input("x", self.x)
        state = (1, case.B, case.H)
        self.buffers = {"y": np.empty((case.T, *state), np.float32), "h_n": np.empty(state, np.float32)}
        if case.cell == "lstm":
            self.buffers["c_n"] = np.empty(state, np.float32)
        for name, buffer in self.buffers.items():
            self.binding.bind_output(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def results(self) -> dict[str, torch.Tensor]:
        found = {name: torch.from_numpy(buffer) for name, buffer in self.buffers.items()}
        return {name: value.squeeze(1 if name == "y" else 0) for name, value in found.items()}


class OnnxRuntime:
    name = "onnxruntime"

    def prepare(self, problem) -> OrtRunner:
        if problem.case.train or problem.case.dtype != "float32" or problem.case.form != "layer":
            raise NotCompared
        if onnx is None:
            raise Unavailable(f"{missing}; pip install onnxruntime onnx")
        return OrtRunner(problem)
