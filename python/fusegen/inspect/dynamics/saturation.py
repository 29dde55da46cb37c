"""Gates that are shut or open, and units that do nothing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ... import _arguments
from ..recording.recorded import Plane

_TANH = ("g", "n")  # of -1..1; the other gates are of 0..1


class Saturation(NamedTuple):
    """low, high [U]: the share of steps at which a gate is below or above a bound, in float64."""

    low: Tensor
    high: Tensor


def saturation(plane: Plane, low: float = 0.1, high: float = 0.9) -> dict[str, Saturation]:
    """How often each unit's gates are saturated, by the gates' names (Karpathy et al. 2015, arXiv:1506.02078,
    section 4.3: left and right saturated, below 0.1 and above 0.9).

    plane: of ``record``; padding is left out. low, high: bounds in 0..1; the candidates g and n, which go
    from -1 to 1, are held to the same parts of their range (2 * low - 1). Raises ValueError for an RNN, which
    has no gates, and bounds in the wrong order.
    """
    what = "fusegen.inspect.saturation"
    low = _arguments.number(f"{what}: low", low, 0, 1)
    high = _arguments.number(f"{what}: high", high, low, 1)
    gates = plane.gates
    if not gates:
        raise ValueError(f"{what}: {plane!r} holds no gates")
    found = {}
    for name, gate in gates.items():
        values = gate[plane.mask.to(gate.device)].double()
        values = (values + 1) / 2 if name in _TANH else values
        found[name] = Saturation((values < low).double().mean(0), (values > high).double().mean(0))
    return found


def dead_units(plane: Plane, tolerance: float = 1e-6) -> Tensor:
    """Which units of h never move, bool [U]: over all recorded steps of all sequences the largest h less the
    smallest is at most ``tolerance``. A ReLU that is never on is one.

    Raises ValueError for a negative tolerance, and where no step was recorded.

    plane: of ``record``.
    """
    what = "fusegen.inspect.dead_units"
    tolerance = _arguments.number(f"{what}: tolerance", tolerance, 0)
    h = plane.h[plane.mask.to(plane.h.device)]
    if not len(h):
        raise ValueError(f"{what}: {plane!r} has no step of any sequence")
    return (h.amax(0) - h.amin(0)).double() <= torch.tensor(tolerance, dtype=torch.float64, device=h.device)
