"""What stands between a module and its ops for a while: taps, which see each layer's call, may change it, and
see what it made.

Modules call their own ``_run``; while taps are in, an attribute of the same name hides it. So a module
without taps pays nothing, and class, hooks and parameters stay as they are.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from ...nn._base import TAPPED, Layers
from ...nn.cells import Cell, RecurrentCell
from ...ops.normalised.op import NormalisedOp
from .calls import LayerCall, Made, Run
from .saved import as_outputs, normalised_call, plain_call


class Seat(NamedTuple):
    """Whose call it is: a module of the model, the layer's number in it, and the order [B] of its batch as
    the caller has it (of a PackedSequence; None: as it is)."""

    module: nn.Module
    layer: int
    order: Tensor | None


class Tap:
    """``outermost`` ones see what the others made of a call."""

    outermost = False

    def __call__(self, seat: Seat, call: LayerCall, run: Run) -> Made:
        """What the call gives; ``run`` runs it, or another in its place."""
        raise NotImplementedError

    def at_once(
        self, module: nn.Module, layer: int, order: Tensor | None, op: Any, given: Sequence[Any]
    ) -> Any:
        """What ``op`` gives of the arguments ``given``, where no other tap is in and this one needs no
        ``LayerCall`` to look on; None: it needs one."""
        return None

    def done(self, module: nn.Module) -> None:
        """The module's call was made, all layers."""

    def failed(self, module: nn.Module) -> None:
        """It raised."""


class _Tapped:
    """The taps of one module."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.taps = module, list[Tap]()
        self._now = threading.local()

    def install(self) -> None:
        own = self.module.__dict__
        own["_run"] = self.run
        if isinstance(self.module, Layers):
            own["_forward_packed"] = self.forward_packed
        elif isinstance(self.module, RecurrentCell):  # else a step goes straight to the engine
            own["_step"] = partial(Cell._step, self.module)

    def remove(self) -> None:
        for name in TAPPED:
            self.module.__dict__.pop(name, None)

    def forward_packed(self, input: Any, *args: Any) -> Any:
        self._now.order = input.unsorted_indices
        try:
            return type(self.module)._forward_packed(self.module, input, *args)  # type: ignore[attr-defined]
        finally:
            self._now.order = None

    def run(self, *args: Any) -> Any:
        numbers, order = itertools.count(), getattr(self._now, "order", None)

        def tap(op: Any) -> Callable[..., Any]:
            return lambda *given: self._layer(op, next(numbers), order, given)

        taps = self.taps
        try:
            out = type(self.module)._run(self.module, *args, tap=tap)  # type: ignore[attr-defined]
        except BaseException:
            for each in taps:
                each.failed(self.module)
            raise
        for each in taps:
            each.done(self.module)
        return out

    def _layer(self, op: Any, layer: int, order: Tensor | None, given: Sequence[Any]) -> Any:
        if len(self.taps) == 1:
            out = self.taps[0].at_once(self.module, layer, order, op, given)
            if out is not None:
                return out
        seat = Seat(self.module, layer, order)
        cell = False
        if isinstance(op, NormalisedOp):
            call = normalised_call(op, *given)
        else:
            call, cell = plain_call(op, *given), not op.form.has_lengths
        run: Run = LayerCall.run
        for each in sorted(self.taps, key=lambda each: each.outermost):
            run = partial(each, seat, run=run)
        return as_outputs(call, run(call), cell)


_INSTALLED: dict[int, _Tapped] = {}
_installing = threading.Lock()


@contextmanager
def tapped(modules: Sequence[nn.Module], tap: Tap) -> Iterator[None]:
    """``tap`` in these modules. A tap that came before is nearer to the caller."""
    mine: list[_Tapped] = []
    try:
        with _installing:
            for module in modules:
                found = _INSTALLED.get(id(module))
                if found is None:
                    found = _INSTALLED[id(module)] = _Tapped(module)
                    found.install()
                found.taps.insert(0, tap)
                mine.append(found)
        yield
    finally:
        with _installing:
            for found in mine:
                found.taps.remove(tap)
                if not found.taps:
                    found.remove()
                    del _INSTALLED[id(found.module)]
