"""One-node ONNX models of a recurrent layer, for the runtimes that read them."""

from __future__ import annotations

import torch

from harness.peer import Unavailable

try:
    import onnx
except ImportError as error:
    onnx, missing = None, error

OPS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
# Position of ONNX's gates in torch's order: LSTM i,o,f,c from i,f,g,o; GRU z,r,h from r,z,n.
GATE_ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}


def to_onnx_order(cell: str, weight: torch.Tensor) -> torch.Tensor:
    """Gate blocks along the first dimension from torch's order to ONNX's."""
    blocks = weight.chunk(len(GATE_ORDER[cell]))
    return torch.cat([blocks[i] for i in GATE_ORDER[cell]])


def model(cell: str, weights: list[torch.Tensor], given: tuple[str, ...] = ()) -> bytes:
    """A model of one recurrent node: x [T,B,I] -> y [T,1,B,H], h_n [1,B,H], c_n [1,B,H] (LSTM). ``given``:
    ``states_of(cell)`` where a session hands the states in, as from step to step; a state that is zero in the
    model itself lets a runtime drop the recurrent product of a single step."""
    if onnx is None:
        raise Unavailable(f"{missing}; pip install onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    w, r, b_ih, b_hh = (to_onnx_order(cell, weight) for weight in weights)
    initial = {"w": w[None], "r": r[None], "b": torch.cat([b_ih, b_hh])[None]}
    H = r.shape[1]
    outputs = {"y": ["T", 1, "B", H], "h_n": [1, "B", H]} | ({"c_n": [1, "B", H]} if cell == "lstm" else {})
    attributes = {"linear_before_reset": 1} if cell == "gru" else {}
    inputs = ["x", *initial, *(("", *given) if given else ())]  # no sequence lengths
    node = helper.make_node(OPS[cell], inputs, list(outputs), hidden_size=H, **attributes)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "recurrent",
        [value("x", onnx.TensorProto.FLOAT, ["T", "B", w.shape[1]])]
        + [value(name, onnx.TensorProto.FLOAT, [1, "B", H]) for name in given],
        [value(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(tensor.contiguous().numpy(), name) for name, tensor in initial.items()],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(built)
    return built.SerializeToString()


def states_of(cell: str) -> tuple[str, ...]:
    """Names of the states that a model is given."""
    return ("h0", "c0") if cell == "lstm" else ("h0",)


def compared(case) -> bool:
    """fp32 inference of a padded batch."""
    return not case.train and case.dtype == "float32" and case.form == "layer"


def outputs(case) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the model's outputs."""
    state = (1, case.B, case.H)
    names = ("h_n", "c_n") if case.cell == "lstm" else ("h_n",)
    return {"y": (case.T, *state)} | dict.fromkeys(names, state)


def in_torchs_layout(buffers) -> dict[str, torch.Tensor]:
    """Outputs (numpy arrays by name) as Runner.results gives them."""
    found = {name: torch.from_numpy(buffer) for name, buffer in buffers.items()}
    return {name: value.squeeze(1 if name == "y" else 0) for name, value in found.items()}
