"""A layer's step as a function of its state alone, in float64; and the states that a model visits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import _arguments, reference
from ...nn._base import Recurrent
from ...nn.cells import RecurrentCell
from ...nn.normalised.layers import NormalisedLayers
from ...nn.normalised.parameters import Normalised
from ...ops.normalised import formula
from ..attribution.scores import in_evaluation
from ..recording.calls import LayerCall, Made, OwnSteps, Run
from ..recording.names import one, plane
from ..recording.taps import Seat, Tap, tapped


class Step(NamedTuple):
    """F: (state [N, S], input [N, I]) -> state [N, S] of one direction of one layer, in float64 and
    differentiable; S is P + H of an LSTM, whose state is h beside c, else H. ``inputs``: I.

    run: the function itself. size: S. name: of the layer, for messages.
    """

    run: Callable[[Tensor, Tensor], Tensor]
    size: int
    inputs: int
    name: str

    def __call__(self, state: Tensor, x: Tensor) -> Tensor:
        return self.run(state, x)


def step_of(model: nn.Module, name: str | None = None, *, layer: int = 0, direction: int = 0) -> Step:
    """The step of a layer or cell in ``model`` as a function: the formulas of ``fusegen.reference`` (or of
    the normalised cells) in float64, with the weights as they are now and as in evaluation (zoneout takes its
    mean, nothing is dropped).

    name: the module's, as ``named_modules`` has it; None where there is one alone. Raises TypeError or
    ValueError for a model, name, layer or direction that does not exist.
    """
    what = "fusegen.inspect.step_of"
    name, m = one(what, model, name)
    plane(what, m, layer, direction)
    if isinstance(m, Normalised):
        return _normalised(m, name, layer, direction)
    assert isinstance(m, (Recurrent, RecurrentCell))
    if isinstance(m, Recurrent):
        spec, per = m._spec, len(m._spec.weights)
        weights = m._weights(layer)[direction * per : (direction + 1) * per]
        relu, rates = m.mode == "RNN_RELU", (m._rates.zoneout_h, m._rates.zoneout_c)
    else:
        spec, weights, rates = m._op.spec, m._weights(), (0.0, 0.0)
        relu = getattr(m, "nonlinearity", "tanh") == "relu"
    W, R, b_ih, b_hh, W_hr = (None if w is None else w.detach().double() for w in (*weights, None)[:5])
    assert W is not None and R is not None
    P, H = R.shape[1], R.shape[0] // spec.gates

    def cell(gx: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        if spec.name == "lstm":
            return reference.lstm_step(gx, h, c, R, b_hh, W_hr)
        if spec.name == "gru":
            return (reference.gru_step(gx, h, R, b_hh),)
        return (reference.rnn_step(gx, h, R, b_hh, relu),)

    def run(state: Tensor, x: Tensor) -> Tensor:
        old = state.split([P, H], -1) if spec.name == "lstm" else (state, state)
        new = cell(F.linear(x, W, b_ih), *old)
        kept = [z * o + (1 - z) * n if z else n for n, o, z in zip(new, old, rates, strict=False)]
        return torch.cat(kept, -1)

    return Step(run, P + H if spec.name == "lstm" else H, W.shape[1], name)


def _normalised(m: Normalised, name: str, layer: int, direction: int) -> Step:
    suffixes = m._suffixes(layer) if isinstance(m, NormalisedLayers) else ("",)
    weights = [None if w is None else w.detach().double() for w in m._weights_of(suffixes[direction])]
    kind, H, states = m._kind, m.hidden_size, len(m._spec.states)
    W = weights[0]
    assert W is not None

    def run(state: Tensor, x: Tensor) -> Tensor:
        parts = state.split(H, -1)
        gx = formula._input_part(x, weights, kind)
        return torch.cat(formula._STEPS[kind.cell](gx, *parts, weights, kind), -1)

    return Step(run, states * H, W.shape[1], name)


class Visited(NamedTuple):
    """states [N, S], inputs [N, I]: what N steps of the layer read, in float64; after [N, S]: what each
    gave."""

    states: Tensor
    inputs: Tensor
    after: Tensor


def visited(
    model: nn.Module,
    run: Callable[[], Any],
    name: str | None = None,
    *,
    layer: int = 0,
    direction: int = 0,
    limit: int | None = 1024,
    seed: int = 0,
) -> Visited:
    """The states and inputs that a layer's steps read while ``run()`` calls the model, in evaluation mode and
    without gradients: ``visited(model, lambda: model(x))``.

    limit: so many of them at most, drawn by ``seed`` without repetition; None keeps all. Steps past a
    sequence's end are left out. Other arguments and errors as of ``step_of``; ValueError where nothing ran.

    name, layer and direction say which layer, as in ``step_of``.
    """
    what = "fusegen.inspect.visited"
    name, m = one(what, model, name)
    plane(what, m, layer, direction)
    tap = _Visitor(layer, direction)
    with in_evaluation(model), torch.no_grad(), tapped([m], tap):
        run()
    if not tap.found:
        raise ValueError(f"{what}: {name or 'the model'} was not called by run()")
    states, inputs, after = (torch.cat(parts) for parts in zip(*tap.found, strict=True))
    if limit is not None and len(states) > _arguments.whole(f"{what}: limit", limit, 1):
        chosen = torch.randperm(len(states), generator=torch.Generator().manual_seed(seed))[:limit]
        states, inputs, after = (t[chosen.to(t.device)] for t in (states, inputs, after))
    return Visited(states, inputs, after)


class _Visitor(Tap):
    outermost = True

    def __init__(self, layer: int, direction: int) -> None:
        self.layer, self.d = layer, direction
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, seat: Seat, call: LayerCall, run: Run) -> Made:
        made = run(call)
        if seat.layer == self.layer:
            self.found.append(self._steps(call, made))
        return made

    def _steps(self, call: LayerCall, made: Made) -> tuple[Tensor, Tensor, Tensor]:
        (T, B, _), (P, H), d = call.x.shape, call.sizes, self.d
        own, one_of = OwnSteps(call, d), call.of_direction(d)
        t = own.places(0, T)

        def ordered(values: Tensor) -> Tensor:
            return values.double().gather(0, t.unsqueeze(-1).expand(T, B, values.shape[-1]))

        after = [ordered(made.y[..., d * P : (d + 1) * P])]
        starts = [(one_of.h, P)]
        if made.cells is not None:
            after.append(ordered(made.cells[d]))
            starts.append((one_of.c, H))
        part = own.part(0, T, (one_of.h, one_of.c)[: len(after)])
        before = []
        for values, (start, n), anew in zip(after, starts, (part.reset_h, part.reset_c), strict=False):
            first = values.new_zeros(1, B, n) if start is None else start.double()
            read = torch.cat([first, values[:-1]])
            if part.resets is not None:
                new = values.new_zeros(()) if anew is None else anew.double()
                read = torch.where(part.resets.unsqueeze(-1), new, read)
            before.append(read)
        live = torch.ones(T, B, dtype=torch.bool, device=t.device)
        if call.lengths is not None:
            live = torch.arange(T, device=t.device).unsqueeze(1) < call.lengths.to(t.device)
        state, new = torch.cat(before, -1), torch.cat(after, -1)
        return state[live], ordered(call.x)[live], new[live]
