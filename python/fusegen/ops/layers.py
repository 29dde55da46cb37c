"""torch.ops.fusegen.lstm, gru and rnn: one layer over a whole sequence, and its gradient; and a stack of
layers on them, or on torch's own operators.

The shapes are those of ``fusegen.ops.functional``. ``lstm`` and ``gru`` save nothing; ``lstm_train`` and
``gru_train`` also give the post-activation gates (and cell states) that their gradients need. An RNN needs
only its own output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _C, _backend, reference
from .._inside import Inside
from . import checks, random, torch_path
from .cuda import layers as cuda_layers
from .cuda.engine import ENGINE
from .inside import Asked
from .layout import dense, dense_all, empty_grads, present, rows, wider
from .recurrent import Call, Outputs, Passes, Shapes, Weights, ops_of
from .spec import LAYER, LSTM, CellSpec
from .transform.per_sample import Gates

# In place of an op, what is called for each layer of a stack in its turn: fusegen.inspect looks on there.
Tap = Callable[[Any], Callable[..., Any]]

_threads = torch.get_num_threads


def empty_outputs(spec: CellSpec) -> Shapes:
    """A function that gives (y, h_n, c_n, gates, cells) of a layer (x, weights, train, recompute), not yet
    written; None for what there is not."""
    name, G, per = spec.name, spec.gates, len(spec.weights)
    has_c, saves = len(spec.states) == 2, bool(spec.saved)

    def empty(x: Tensor, weights: Weights, train: bool, recompute: int = 0) -> Outputs:
        R, D = checks.recurrent_weight(name, weights, per, 2 * per), len(weights) // per
        (T, B, _), (GH, P) = x.shape, R.shape
        H = GH // G
        y, h_n = x.new_empty(T, B, D * P), x.new_empty(D, B, P)
        gates = x.new_empty(D, 0 if recompute else T, B, 4 * H) if train and saves else None
        if not has_c:
            return y, h_n, None, gates, None
        kept = T if not recompute else 0 if x.is_cuda else (T - 1) // recompute
        cells = x.new_empty(D, kept, B, H, dtype=wider(x.dtype)) if train else None
        return y, h_n, x.new_empty(D, B, H), gates, cells

    return empty


def passes(spec: CellSpec) -> Passes:
    """The layer's op on the CPU."""
    names, empty = spec.engine_names, empty_outputs(spec)

    def forward(
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        weights: Weights,
        relu: bool,
        lengths: Tensor | None,
        packed: Sequence[Tensor] | None,
        train: bool,
        inside: Inside | None = None,
        recompute: int = 0,
    ) -> Outputs:
        y, h_n, c_n, gates, cells = out = empty(x, weights, train, recompute)
        if inside is None and not recompute:
            _C.layer_forward(
                names[relu], rows(x), h0 if h0 is None else dense(h0), c0 if c0 is None else dense(c0),
                dense_all(weights), lengths, y, h_n, c_n, gates, cells, packed, _threads(),
            )  # fmt: skip
            return out
        if train and gates is None and inside is not None and inside.expects:
            gates = x.new_zeros(h_n.shape[0], *y.shape[:2], h_n.shape[2])  # past a sequence's end too
        _C.layer_forward(
            names[relu], rows(x), dense(h0), dense(c0), dense_all(weights), lengths, y, h_n, c_n,
            None if recompute else gates, cells, packed, _threads(), _dense_inside(inside), recompute,
        )  # fmt: skip
        return y, h_n, c_n, gates, cells

    def backward(
        call: Call,
        kept: Outputs,
        grads: Sequence[Tensor | None],
        wanted: Sequence[bool],
        recompute: int = 0,
    ) -> list[Tensor]:
        x, h0, c0, weights, relu, lengths, inside = call
        starts = () if inside is None else (inside.reset_h, inside.reset_c)
        out = empty_grads((x, h0, c0, *weights, *starts), wanted)
        dx, dh0, dc0, *dweights = out[: 3 + len(weights)]
        (dy, dh_n, dc_n), (y, gates, cells) = grads, kept
        starts_of = (None, None, None) if inside is None else (_dense_inside(inside), out[-2], out[-1])
        if recompute:
            gates = None
        _C.layer_backward(
            names[relu], rows(dy), dense(dh_n), dense(dc_n), rows(x), dense(h0), dense(c0),
            dense_all(weights), lengths, y, gates, cells, dx, dh0, dc0, dweights, _threads(), *starts_of,
            recompute,
        )  # fmt: skip
        return present(out)

    def gate_gradients(
        call: Call, kept: Outputs, grads: Sequence[Tensor | None], wanted: Sequence[bool]
    ) -> Gates:
        x, h0, c0, weights, relu, lengths, _ = call
        dx, dh0, dc0 = empty_grads((x, h0, c0), wanted)
        (dy, dh_n, dc_n), (y, gates, cells), R = grads, kept, weights[1]
        assert R is not None
        (T, B, _), (GH, P), D, wide = x.shape, R.shape, len(weights) // len(spec.weights), wider(x.dtype)
        n = D * (4 * GH // spec.gates if spec.saved else GH)
        dgates = x.new_empty(T, B, n, dtype=wide)
        projected = len(spec.weights) == 5 and weights[4] is not None
        dh = x.new_empty(T, B, D * P, dtype=wide) if projected else None
        _C.layer_backward(
            names[relu], rows(dy), dense(dh_n), dense(dc_n), rows(x), dense(h0), dense(c0),
            dense_all(weights), lengths, y, gates, cells, dx, dh0, dc0, [None] * len(weights), _threads(),
            None, None, None, 0, dgates, dh,
        )  # fmt: skip
        return Gates(dx, dh0, dc0, dgates, dh)

    return Passes(forward, backward, gate_gradients)


def _dense_inside(inside: Inside | None) -> Inside | None:
    """As the engine reads it."""
    if inside is None:
        return None
    resets, h, c = inside.resets, inside.reset_h, inside.reset_c
    return inside._replace(resets=dense(resets), reset_h=dense(h), reset_c=dense(c))


OPS = ops_of(LAYER, cpu=passes, cuda=partial(cuda_layers.passes, ENGINE), shapes=empty_outputs)


def run(
    spec: CellSpec,
    x: Tensor,
    states: Sequence[Tensor | None],
    layers: Sequence[Weights],
    *,
    relu: bool = False,
    lengths: Tensor | None = None,
    dropout: float = 0.0,
    training: bool = True,
    packed: Callable[[], Sequence[Sequence[Tensor]]] | None = None,
    asked: Asked | None = None,
    recompute: int = 0,
    tap: Tap | None = None,
) -> tuple[Tensor, ...]:
    """A stack of layers by what the backend says: y [T, B, D*P] and the final states, each [L*D, B, ...].

    x [T, B, I]; states [L*D, B, ...] or None; ``layers``: the weights of each as ``functional`` has them;
    ``dropout`` between them in training; ``packed`` gives the blobs of ``_C.pack`` of each layer, if fused
    kernels run; ``asked``: what happens inside the recurrences; ``recompute``: k, whose gates backward makes
    again, or 0; ``tap``: see ``Tap``.
    """
    first, L = layers[0], len(layers)
    D, key = len(first) // len(spec.weights), None
    if asked is not None:
        if asked.is_random:
            key = random.draw_key(asked.generator)
            if asked.rates.weight_drop:
                layers, packed = _dropped(spec, layers, key, asked.rates.weight_drop), None
                first = layers[0]
        asked = asked if asked.inside_kernels else None
    if recompute and not (spec.saved and x.shape[0] > 1):  # nothing that it would spare
        recompute = 0
    every = [w for weights in layers for w in weights] if L > 1 else first
    op: Callable[..., Any] = OPS[spec] if tap is None else tap(OPS[spec])
    if tap is not None:
        packed = None
    elif asked is not None:
        if _backend.lacks_kernels(spec.name, x):
            op, packed = OPS[spec].by_formula, None
    elif _backend.use_torch(spec.name, spec.gates, x, states, every, lengths, measured=not recompute):
        if recompute:
            _backend.note(f"{spec.name} with recompute={recompute}: torch's own operators keep their gates")
        stack = torch_path.Stack(L, D == 2, dropout, training)
        return _run_torch(spec, x, states, layers, relu, lengths, stack=stack)
    blobs = packed() if packed else None
    h, c = (*states, None)[:2]
    if L == 1:
        given = _given(asked, 0, D, key, recompute)
        one: tuple[Tensor, ...] = op(x, h, c, first, relu, lengths, blobs[0] if blobs else None, *given)
        return one
    finals = []
    for layer, weights in enumerate(layers):
        if layer and dropout and training:
            x = F.dropout(x, dropout, True)
        h, c = ((None if s is None else s[layer * D : (layer + 1) * D]) for s in (*states, None)[:2])
        given = _given(asked, layer, D, key, recompute)
        x, *final = op(x, h, c, weights, relu, lengths, blobs[layer] if blobs else None, *given)
        finals.append(final)
    return x, *(torch.cat(of_one_dtype(s)) for s in zip(*finals, strict=True))


def of_one_dtype(states: Sequence[Tensor]) -> list[Tensor]:
    """The layers' final states in the widest dtype among them: under autocast c_n has that of a layer's
    input, which of all but the first has 16 bits."""
    wide = reduce(torch.promote_types, (s.dtype for s in states))
    return [s.to(wide) for s in states]


def _given(asked: Asked | None, layer: int, D: int, key: Tensor | None, recompute: int) -> tuple[Any, ...]:
    """What an op takes behind the packed weights."""
    inside = None if asked is None else asked.of_layer(layer, D, key)
    return (inside, recompute) if recompute else () if asked is None else (inside,)


def _dropped(spec: CellSpec, layers: Sequence[Weights], key: Tensor, rate: float) -> list[Weights]:
    """The weights with each R dropped."""
    per = len(spec.weights)
    made: list[Weights] = []
    for layer, weights in enumerate(layers):
        of_layer, D = [*weights], len(weights) // per
        for d in range(D):
            R = of_layer[d * per + 1]
            assert R is not None
            of_layer[d * per + 1] = random.weight_drop(R, key, layer * D + d, rate)
        made.append(of_layer)
    return made


def _run_torch(
    spec: CellSpec,
    x: Tensor,
    states: Sequence[Tensor | None],
    layers: Sequence[Weights],
    relu: bool,
    lengths: Tensor | None,
    stack: torch_path.Stack,
) -> tuple[Tensor, ...]:
    first = layers[0]
    if len(layers) == 1 and spec is LSTM and first[4] is not None and first[4].shape[0] == first[4].shape[1]:
        _backend.note("lstm with a square W_hr, which torch does not have: the reference formula runs")
        h0, c0 = states
        return reference.lstm(x, h0, c0, first, lengths)
    flat = torch_path.flat_weights([w for weights in layers for w in weights], len(spec.weights))
    return torch_path.layers(spec.engine_name(relu), x, states, flat, lengths, stack)
