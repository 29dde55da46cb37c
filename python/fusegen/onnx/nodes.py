"""fusegen's operators as ONNX's LSTM, GRU and RNN nodes.

By ONNX's definitions (https://onnx.ai/onnx/operators): gates of an LSTM i, o, f, c, of a GRU z, r, h, where
``linear_before_reset`` = 1 is torch's formula; ``sequence_lens`` are int32, and past them the output is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..ops import cells, layers
from ..ops.spec import CELLS, GRU, LSTM, RNN, WEIGHTS_OF_A_CELL, CellSpec

# Of torch's gates, the one that stands at each place in ONNX.
_ORDER = {LSTM: (0, 3, 1, 2), GRU: (1, 0, 2), RNN: (0,)}

_INT32 = 6  # in TensorProto.DataType
NOTHING_INSIDE = "no resets, masks or zoneout, which ONNX's recurrent nodes have not"
NO_PROJECTION = "ONNX's LSTM has no projection (proj_size); export the model without it"

Value = Any  # of the graph that is being built
Weights = Sequence[Value | None]


class Step(NamedTuple):
    """What a call of an operator reads beside x."""

    spec: CellSpec
    states: tuple[Value | None, ...]
    weights: tuple[Weights, ...]  # of each direction
    relu: bool = False
    lengths: Value | None = None


def translation_table() -> dict[Any, Callable[..., Any]]:
    """What torch.onnx.export(dynamo=True) takes as ``custom_translation_table``: of each of fusegen's
    operators the function that writes its nodes.

    Raises ImportError without onnxscript.
    """
    opset()
    written: dict[str, Callable[..., Any]] = {
        "lstm": _lstm, "gru": _gru, "rnn": _rnn,
        "lstm_cell": _lstm_cell, "gru_cell": _gru_cell, "rnn_cell": _rnn_cell,
    }  # fmt: skip
    return {ops[spec].op: written[ops[spec].name] for ops in (layers.OPS, cells.OPS) for spec in CELLS}


def opset() -> Any:
    """The operators that the nodes are written with. Raises ImportError without onnxscript."""
    try:
        from onnxscript import opset18
    except ImportError as error:
        raise ImportError(
            f"fusegen.onnx needs onnxscript, which is not installed ({error}): pip install 'fusegen[onnx]'"
        ) from error
    return opset18


# Each with the parameters of its operator, which the exporter fills by position and by name.


def _lstm(
    x: Value,
    h0: Value,
    c0: Value,
    weights: Weights,
    lengths: Value = None,
    packed: Value = None,
    *inside: Value,
) -> Any:
    _refuse(inside)
    if any(w is not None for w in weights[4::5]):
        raise ValueError(f"fusegen.onnx: {NO_PROJECTION}")
    return _layer(x, Step(LSTM, (h0, c0), _directions(LSTM, weights), lengths=lengths))


def _gru(
    x: Value, h0: Value, weights: Weights, lengths: Value = None, packed: Value = None, *inside: Value
) -> Any:
    _refuse(inside)
    return _layer(x, Step(GRU, (h0,), _directions(GRU, weights), lengths=lengths))


def _rnn(
    x: Value,
    h0: Value,
    weights: Weights,
    relu: bool,
    lengths: Value = None,
    packed: Value = None,
    *inside: Value,
) -> Any:
    _refuse(inside)
    return _layer(x, Step(RNN, (h0,), _directions(RNN, weights), relu, lengths))


def _refuse(inside: tuple[Value, ...]) -> None:
    """Raises ValueError where a layer's op was given resets or zoneout."""
    if inside:
        raise ValueError(f"fusegen.onnx.export: expected {NOTHING_INSIDE}")


def _lstm_cell(x: Value, h: Value, c: Value, weights: Weights, packed: Value = None) -> Any:
    return _cell(x, Step(LSTM, (h, c), (weights,)))


def _gru_cell(x: Value, h: Value, weights: Weights, packed: Value = None) -> Any:
    return _cell(x, Step(GRU, (h,), (weights,)))[0]


def _rnn_cell(x: Value, h: Value, weights: Weights, relu: bool, packed: Value = None) -> Any:
    return _cell(x, Step(RNN, (h,), (weights,), relu))[0]


def _layer(x: Value, step: Step) -> tuple[Value, ...]:
    """(y [T, B, D*H], final states [D, B, H])."""
    op = opset()
    y, *final = _node(x, step)  # y [T, D, B, H]
    if len(step.weights) == 1:
        y = op.Squeeze(y, _constant([1]))
    else:
        y = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), _constant([0, 0, -1]))
    if step.lengths is not None:
        final = [_kept(s, start, step.lengths) for s, start in zip(final, step.states, strict=True)]
    return y, *final


def _cell(x: Value, step: Step) -> list[Value]:
    """The states [B, H] after one step of x [B, I]: a sequence of one."""
    op, first = opset(), _constant([0])
    states = tuple(None if s is None else op.Unsqueeze(s, first) for s in step.states)
    _, *final = _node(op.Unsqueeze(x, first), step._replace(states=states))
    return [op.Squeeze(s, first) for s in final]


def _node(x: Value, step: Step) -> Any:
    op, spec = opset(), step.spec
    W, R, b_ih, b_hh = zip(*(w[:WEIGHTS_OF_A_CELL] for w in step.weights), strict=True)
    H = W[0].shape[0] // spec.gates
    given = (
        x, _joined(spec, W), _joined(spec, R), _biases(spec, b_ih, b_hh),
        None if step.lengths is None else op.Cast(step.lengths, to=_INT32), *step.states,
    )  # fmt: skip
    options = {"hidden_size": H, "direction": "forward" if len(W) == 1 else "bidirectional"}
    if spec is LSTM:
        return op.LSTM(*given, **options)
    if spec is GRU:
        return op.GRU(*given, **options, linear_before_reset=1)
    return op.RNN(*given, **options, activations=["Relu" if step.relu else "Tanh"] * len(W))


def _directions(spec: CellSpec, weights: Weights) -> tuple[Weights, ...]:
    per = len(spec.weights)
    return tuple(weights[i : i + per] for i in range(0, len(weights), per))


def _joined(spec: CellSpec, weights: Weights) -> Value:
    """[D, G*H, ...] in ONNX's order of gates."""
    op, order, found = opset(), _ORDER[spec], []
    for w in weights:
        assert w is not None
        GH, *rest = w.shape
        if len(order) > 1:
            gates = op.Reshape(w, _constant([len(order), GH // len(order), *rest]))
            w = op.Gather(gates, _constant(list(order)), axis=0)
        found.append(op.Reshape(w, _constant([1, GH, *rest])))
    return found[0] if len(found) == 1 else op.Concat(*found, axis=0)


def _biases(spec: CellSpec, b_ih: Weights, b_hh: Weights) -> Value | None:
    """[D, 2*G*H]: torch's pair, one behind the other; beside one alone, zeros. None where there are none."""
    if all(b is None for b in (*b_ih, *b_hh)):
        return None
    sides = [
        _joined(spec, [_zeros(o) if b is None else b for b, o in zip(one, other, strict=True)])
        for one, other in ((b_ih, b_hh), (b_hh, b_ih))
    ]
    return opset().Concat(*sides, axis=1)


def _kept(final: Value, start: Value | None, lengths: Value) -> Value:
    """``final`` [D, B, H], or of a sequence without steps what it began with, of which ONNX says nothing."""
    op = opset()
    empty = op.Unsqueeze(op.Equal(lengths, _constant(0)), _constant([0, 2]))
    return op.Where(
        empty, op.CastLike(op.Constant(value_float=0.0), final) if start is None else start, final
    )


def _zeros(like: Value) -> Value:
    op = opset()
    return op.Expand(op.CastLike(op.Constant(value_float=0.0), like), op.Shape(like))


def _constant(value: int | list[int]) -> Value:
    op = opset()
    return op.Constant(value_ints=value) if isinstance(value, list) else op.Constant(value_int=value)
