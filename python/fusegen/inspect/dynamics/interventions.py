"""What changes when a unit is taken out, or a state is put in from another run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ... import _arguments
from ...nn._base import Layers
from ...nn.cells import Cell
from ..recording.calls import LayerCall, Made, Place, Run, run_in_parts
from ..recording.names import nearest, one, plane
from ..recording.taps import Seat, Tap, tapped

State = Tensor | tuple[Tensor, ...]


@contextmanager
def ablate(
    model: nn.Module,
    units: int | Sequence[int],
    name: str | None = None,
    *,
    layer: int = 0,
    direction: int = 0,
) -> Iterator[None]:
    """``with fusegen.inspect.ablate(model, [3, 5]):`` runs a layer or cell as if h of these units were zero
    at every step: neither the recurrence nor what comes behind sees them. The fused kernels run, gradients
    are those of the changed layer, and nothing of the model is written to.

    units: numbers; of a projected layer those of the H inside, before the projection. name: the module's, as
    ``named_modules`` has it; None where there is one recurrent layer or cell alone. layer, direction: of it.

    Any other module can be named too, a Linear, a convolution or an activation: of what it gives, these
    units are zero (Bau et al. 2019, arXiv:1811.10597). They lie along dim 1 of images and of what a
    convolution or a batch norm gives, else along the last.

    Contexts may be nested, in each other and in ``record``, which sees the zeros. Raises TypeError or
    ValueError for a unit, name, layer or direction that does not exist; of other modules a unit that does
    not exist is known, and refused, when the module is called.
    """
    what = "fusegen.inspect.ablate"
    other = _other(what, model, name)
    if other is not None:
        if layer or direction:
            raise ValueError(f"{what}: layer, direction: expected 0 of {type(other).__name__}")
        with _silenced(what, other, name or "", units):
            yield
        return
    name, m = one(what, model, name)
    plane(what, m, layer, direction)
    given = _arguments.wholes(f"{what}: units", [units] if isinstance(units, int) else list(units), 0)
    if max(given, default=0) >= m.hidden_size:
        who, last = name or "the model", m.hidden_size - 1
        raise ValueError(f"{what}: {who} has units 0..{last}, not {max(given)}")
    with tapped([m], _Ablation(layer, direction, list(given))):
        yield


_RECURRENT = (Layers, Cell, nn.RNNBase, nn.RNNCellBase)
# What gives its units along dim 1 however many dims there are.
_OF_IMAGES = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)


def _other(what: str, model: nn.Module, name: str | None) -> nn.Module | None:
    """The module so named, if it is no recurrent one. Raises ValueError, naming the nearest, for a name that
    is none in a model without recurrent ones."""
    if name is None or not isinstance(model, nn.Module):
        return None
    named = dict(model.named_modules())
    if name not in named and not any(isinstance(m, _RECURRENT) for m in named.values()):
        raise ValueError(f"{what}: no module is named {name!r}{nearest(name, named)}")
    found = named.get(name)
    return None if isinstance(found, _RECURRENT) else found


def unit_dim(m: nn.Module, out: Tensor) -> int:
    """Along which dim of what a module that is not recurrent gives its units lie."""
    return 1 if out.dim() > 3 or isinstance(m, _OF_IMAGES) else out.dim() - 1


@contextmanager
def _silenced(what: str, m: nn.Module, name: str, units: int | Sequence[int]) -> Iterator[None]:
    given = _arguments.wholes(f"{what}: units", [units] if isinstance(units, int) else list(units), 0)

    def silence(module: nn.Module, _: object, out: object) -> Tensor:
        if not isinstance(out, Tensor) or out.dim() < 2:
            came = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(f"{what}: expected {name} to give a Tensor [N, units, ...], got {came}")
        dim = unit_dim(module, out)
        if max(given, default=0) >= out.shape[dim]:
            raise ValueError(f"{what}: {name} has units 0..{out.shape[dim] - 1}, not {max(given)}")
        silent = torch.zeros(out.shape[dim], dtype=torch.bool, device=out.device)
        silent[list(given)] = True
        return out.masked_fill(silent.view(-1, *[1] * (out.dim() - 1 - dim)), 0)

    handle = m.register_forward_hook(silence)
    try:
        yield
    finally:
        handle.remove()


class _Ablation(Tap):
    def __init__(self, layer: int, d: int, units: list[int]) -> None:
        self.layer, self.d, self.units = layer, d, units

    def __call__(self, seat: Seat, call: LayerCall, run: Run) -> Made:
        if seat.layer != self.layer:
            return run(call)
        H, at = call.sizes[1], self.d * call.per
        weights = list(call.weights)
        R = weights[at + 1]
        assert R is not None
        keep = R.new_ones(H)
        keep[self.units] = 0
        W_hr = weights[at + 4] if call.per == 5 else None
        if W_hr is not None:
            weights[at + 4] = W_hr * keep.to(W_hr.dtype)
            return run(replace(call, weights=weights))
        # of a matrix of blocks, row j H + u multiplies the units of u's block
        blocks = H // R.shape[1]
        columns = keep.view(blocks, 1, -1).expand(-1, H // blocks, -1).reshape(H, -1)
        weights[at + 1] = R * columns.repeat(R.shape[0] // H, 1)
        made = run(replace(call, weights=weights))
        of_all = torch.ones(call.directions, H, dtype=made.y.dtype, device=made.y.device)
        of_all[self.d] = keep.to(made.y.dtype)
        h_n, *rest = made.states
        return replace(
            made, y=made.y * of_all.flatten(), states=(h_n * of_all.unsqueeze(1).to(h_n.dtype), *rest)
        )


@contextmanager
def patch(
    model: nn.Module,
    state: State,
    after: int,
    name: str | None = None,
    *,
    layer: int = 0,
    direction: int = 0,
    units: Sequence[int] | None = None,
) -> Iterator[None]:
    """``with fusegen.inspect.patch(model, plane.state(t), after=t):`` replaces the state that a layer or
    cell has after step ``after`` by one from another run, and lets it go on from there: what step ``after``
    itself gave stays. The fused kernels run, and gradients reach ``state``.

    state: h [B, P] ([P] for the whole batch), of an LSTM (h, c) with c [B, H]; ``Plane.state`` gives them of
    a recording. after: the step, counted from 0 over all calls in the context, as ``record`` counts them. In
    the reverse direction the steps before it come after. units: those that are replaced; all if None (of a
    projected layer only all). name, layer, direction: as of ``ablate``. Sequences that have ended before
    keep their state.

    Raises TypeError or ValueError for what does not fit; RuntimeError for calls that draw masks (recurrent
    dropout or zoneout in training), and for a reverse direction with lengths, which begins elsewhere in each
    sequence.
    """
    what = "fusegen.inspect.patch"
    name, m = one(what, model, name)
    plane(what, m, layer, direction)
    after = _arguments.whole(f"{what}: after", after, 0)
    states = (state,) if isinstance(state, Tensor) else tuple(state)
    if not all(isinstance(s, Tensor) for s in states):
        raise TypeError(f"{what}: expected state as a Tensor, or (h, c)")
    chosen = None if units is None else list(_arguments.wholes(f"{what}: units", list(units), 0))
    with tapped([m], _Patch(layer, direction, states, after, chosen)):
        yield


class _Patch(Tap):
    def __init__(
        self, layer: int, d: int, states: tuple[Tensor, ...], after: int, units: list[int] | None
    ) -> None:
        self.layer, self.d, self.states, self.after, self.units = layer, d, states, after, units
        self.begun = 0

    def __call__(self, seat: Seat, call: LayerCall, run: Run) -> Made:
        if seat.layer != self.layer:
            return run(call)
        T, first = call.x.shape[0], self.begun
        self.begun += T
        t = self.after - first
        if not 0 <= t < T:
            return run(call)
        what = "fusegen.inspect.patch"
        if call.draws:
            raise RuntimeError(f"{what}: expected no masks (recurrent dropout, zoneout) in the call")
        if self.d == 1 and call.lengths is not None:
            raise RuntimeError(f"{what}: expected no lengths with the reverse direction")
        cut = (T - t) if self.d else t + 1
        self._check(call)

        def look(part: LayerCall, made: Made, at: Place) -> Made:
            last = int(at.t.max() if self.d == 0 else at.t.min())
            return self._patched(call, made) if at.d == self.d and last == t else made

        def cuts(d: int) -> list[int]:
            return sorted({0, cut, T}) if d == self.d else [0, T]

        parts = _Gathered(call)
        made = run_in_parts(call, run, cuts, lambda part, made, at: look(part, parts.add(made, at), at))
        return replace(made, gates=parts.gates, cells=parts.cells)

    def _check(self, call: LayerCall) -> None:
        sizes = call.sizes if call.has_c else call.sizes[:1]
        if len(self.states) != len(sizes):
            raise ValueError(f"fusegen.inspect.patch: expected {len(sizes)} states, got {len(self.states)}")
        B = call.x.shape[1]
        for i, (s, n) in enumerate(zip(self.states, sizes, strict=True)):
            if tuple(s.shape) not in ((B, n), (n,)):
                raise ValueError(f"fusegen.inspect.patch: expected state {i} [{B}, {n}], got {list(s.shape)}")
        P, H = call.sizes
        if self.units is not None and (P != H or max(self.units, default=0) >= H):
            raise ValueError(f"fusegen.inspect.patch: expected units of 0..{H - 1}, and no projection")

    def _patched(self, call: LayerCall, made: Made) -> Made:
        states = []
        for new, old in zip(self.states, made.states, strict=True):
            put = new.to(old.device, old.dtype).expand(old.shape[1:])
            mine = torch.ones_like(old[0], dtype=torch.bool)
            if self.units is not None:
                mine = torch.zeros_like(mine)
                mine[:, self.units] = True
            if call.lengths is not None:
                mine = mine & (call.lengths.to(old.device) > self.after_of(call)).unsqueeze(1)
            states.append(torch.where(mine, put, old[0]).unsqueeze(0))
        return replace(made, states=tuple(states))

    def after_of(self, call: LayerCall) -> int:
        """The step within the call that is under way."""
        return self.after - (self.begun - call.x.shape[0])


class _Gathered:
    """Gates and cells of parts, put together for who looks on."""

    def __init__(self, call: LayerCall) -> None:
        self.call = call
        self.gates: Tensor | None = None
        self.cells: Tensor | None = None

    def add(self, made: Made, at: Place) -> Made:
        self.gates = self._put(self.gates, made.gates, at)
        self.cells = self._put(self.cells, made.cells, at)
        return made

    def _put(self, whole: Tensor | None, part: Tensor | None, at: Place) -> Tensor | None:
        if part is None:
            return None
        part = part[0].detach()
        if whole is None:
            T, D = self.call.x.shape[0], self.call.directions
            whole = part.new_zeros(D, T, *part.shape[1:])
        at.put(whole[at.d], part)
        return whole


class Change(NamedTuple):
    """A loss before and after, and by how much it rose.

    before, after: the losses; change: after - before.
    """

    before: float
    after: float
    change: float


def change_of_loss(
    loss: Callable[[], Tensor | float], contexts: AbstractContextManager[object] | Sequence[object]
) -> Change:
    """What a loss is without and inside a context, or several: ``change_of_loss(lambda: loss_of(model(x)),
    ablate(model, 3))``. Runs without gradients, in the mode that the model is in; ``loss`` must give the same
    each time (no dropout).

    loss: gives a scalar tensor or a float. contexts: those of ``ablate`` and ``patch``, one or a sequence
    of them, entered in order. Raises what float() raises where the loss is no single number: TypeError,
    ValueError or RuntimeError.
    """
    every = [contexts] if isinstance(contexts, AbstractContextManager) else list(contexts)
    with torch.no_grad():
        before = float(loss())
        with _all_of(every):
            after = float(loss())
    return Change(before, after, after - before)


@contextmanager
def _all_of(contexts: Sequence[object]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in contexts:
            stack.enter_context(each)  # type: ignore[arg-type]
        yield


def ablation_effects(
    model: nn.Module,
    loss: Callable[[], Tensor | float],
    name: str | None = None,
    *,
    units: Sequence[int] | None = None,
    layer: int = 0,
    direction: int = 0,
) -> Tensor:
    """By how much a loss rises when each of these units (all if None) is ablated alone, in float64 [units].
    Other arguments and errors as of ``ablate`` and ``change_of_loss``; the loss runs once a unit and once.

    model, name, layer and direction say which layer, as in ``ablate``. The result is [U], a float64 of each
    unit.
    """
    _, m = one("fusegen.inspect.ablation_effects", model, name)
    chosen = range(m.hidden_size) if units is None else units
    with torch.no_grad():
        before = float(loss())
        after = []
        for unit in chosen:
            with ablate(model, unit, name, layer=layer, direction=direction):
                after.append(float(loss()))
    return torch.tensor(after, dtype=torch.float64) - before
