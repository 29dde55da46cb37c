"""What recurrent layers do, for any page: how long units keep, how often gates are shut or open, how far back
a gradient reaches, and how surprised the model is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ... import drawing
from ...data.vocabulary import UNKNOWN
from ...nn._base import Layers
from ..dynamics import dead_units, gradient_by_lag, saturation, time_constants
from ..recording import Plane, Recording
from ..units import Coloured, coloured
from ..units.colouring import colour_of
from .html import Page

_GATES = {
    "i": "input gate",
    "f": "forget gate",
    "o": "output gate",
    "r": "reset gate",
    "z": "update gate",
}
_HIGH = 0.9
_PROBES = 8  # directions by which the norm of a Jacobian is read
_BITS = 8.0  # of surprise at full colour


def planes_of(recording: Recording) -> dict[str, Plane]:
    """The planes that were recorded, by what to call them."""
    found = {}
    for name, module in recording.modules.items():
        for (layer, direction), plane in module.planes.items() if module.calls else ():
            several = len({key[0] for key in module.planes}) > 1
            both = len({key[1] for key in module.planes}) > 1
            label = f"{name or 'the model'}{f', layer {layer + 1}' if several else ''}"
            found[label + (f", {('forwards', 'backwards')[direction]}" if both else "")] = plane
    return found


def show_units(page: Page, planes: Mapping[str, Plane]) -> None:
    """Two pictures: how long units keep, and how often their gates are shut or open; of RNNs, which have no
    gates, how often units are at the end of their range."""
    gated = {name: plane for name, plane in planes.items() if plane._keeps is not None}
    if gated:
        _show_time_constants(page, gated)
        _show_gates(page, *list(gated.items())[-1])
    plain = {name: plane for name, plane in planes.items() if plane._keeps is None}
    if plain:
        _show_range(page, plain)


def _show_time_constants(page: Page, planes: Mapping[str, Plane]) -> None:
    found = {name: time_constants(plane) for name, plane in planes.items()}
    every = torch.cat(list(found.values()))
    finite = every[every.isfinite()]
    if not len(finite):
        return
    middle, longest = finite.median().item(), finite.max().item()
    page.picture(
        drawing.distribution_figure(
            {name: tau.tolist() for name, tau in found.items()},
            title="How long units keep what they hold",
            x="steps (logarithmic)",
            log=True,
        ),
        alt=(
            f"Distribution of the time constants of {len(every)} units ({'; '.join(planes)}), on a "
            "logarithmic axis of steps: "
            f"the middle one keeps for {middle:.3g} steps, the longest for {longest:.3g}."
        ),
        shows=(
            "Each unit, one number of a layer's state, lets go of a part of what it holds at every step. The "
            "picture counts units by the "
            "number of steps after which about a third is left, by the gate that keeps (1 / (1 - f))."
        ),
        good="a spread: units of a few steps for what is near, and some that keep as long as the data ask "
        "for.",
        bad="all units at 1 to 2 steps (nothing is remembered), or all alike.",
        here=f"half of the units keep for less than {middle:.3g} steps, the longest keeps for {longest:.3g}.",
    )


def _show_gates(page: Page, name: str, plane: Plane) -> None:
    """Karpathy's figure, of one plane."""
    found = {gate: each for gate, each in saturation(plane).items() if gate in _GATES}
    points = {_GATES[gate]: (each.low.tolist(), each.high.tolist()) for gate, each in found.items()}
    dead = int(dead_units(plane).sum())
    stuck = max(
        (each.low > _HIGH).double().mean().item() + (each.high > _HIGH).double().mean().item()
        for each in found.values()
    )
    page.picture(
        drawing.points_figure(
            points,
            title="How often each gate is shut or open",
            x="share of steps below 0.1 (shut)",
            y="share of steps above 0.9 (open)",
            line=(0, 1, 1, 0),
        ),
        alt=(
            f"Scatter of the gates of {name}: for each unit the share of steps at which its gate is shut "
            f"against the share at which it is open. {dead} units never move."
        ),
        shows=(
            f"A point is a gate of one unit of {name}: how often it is shut, and how often open. On the "
            "dashed line a gate is always at one of the two ends; at the lower left it is mostly in between."
        ),
        good="points spread out: units of different kinds, which open and shut as the data ask for.",
        bad="many points in one corner: gates that never move do nothing that a constant could not do.",
        here=f"{dead or 'none'} of {len(dead_units(plane))} units never move. "
        + (
            f"Up to {max(1, round(100 * stuck))} % of the units have a gate that stays at one end nine steps "
            "out of ten."
            if stuck
            else "No gate stays at one end nine steps out of ten."
        ),
    )  # fmt: skip


def _show_range(page: Page, planes: Mapping[str, Plane]) -> None:
    """Of RNNs."""
    shares = {name: (plane.h[plane.mask].abs() > _HIGH).double().mean(0) for name, plane in planes.items()}
    often = torch.cat(list(shares.values()))
    page.picture(
        drawing.distribution_figure(
            {name: share.tolist() for name, share in shares.items()},
            title="How often units are at an end of their range",
            x="share of steps with |h| above 0.9",
        ),
        alt=(
            f"Distribution over {len(often)} units of the share of steps at which they are at an end of "
            f"their range; the mean is {often.mean().item():.2f}."
        ),
        shows=(
            "An RNN has no gates. A unit that is near -1 or 1 passes almost no gradient on; the picture "
            "counts units by how often they are there."
        ),
        good="most units at the left, moving freely.",
        bad="a heap at the right: units that are stuck learn no more.",
        here=f"on average a unit is at an end in {100 * often.mean().item():.0f} % of the steps.",
    )


def show_reach(page: Page, layer: nn.Module, x: Tensor) -> None:
    """How far back a gradient of the layer's last output reaches, over its input [T, B, I]."""
    lags = gradient_by_lag(layer, x, probes=_PROBES)
    norms = lags.norms / lags.norms.max().clamp(min=torch.finfo(torch.float64).tiny)
    page.picture(
        drawing.lines_figure(
            {"gradient": (list(range(len(norms))), norms.tolist())},
            title="How far back the memory reaches",
            x="steps before",
            y="share of the largest",
            log="y",
            mark=(lags.reach, "99 % lies within"),
        ),
        alt=(
            "Curve of how much the layer's output moves with what it read so many steps before, on a "
            f"logarithmic axis; 99 % lies within {lags.reach} steps."
        ),
        shows=(
            f"How much the layer's output at the last of {len(norms)} steps moves when what was read so "
            "many steps before is changed a little."
        ),
        good="a slow fall: what was read long ago still counts, as far as the data need it.",
        bad="a cliff after a few steps; or a rise to the right, where gradients explode.",
        here=f"99 % of it lies within {lags.reach} steps.",
    )


def embedded(layer: nn.Module, call: Callable[[], Any]) -> Tensor:
    """What a layer reads first while ``call()`` runs: [T, B, I]."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach()))
    try:
        with torch.no_grad():
            call()
    finally:
        handle.remove()
    return seen[0]


def recurrent_names(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, Layers)]


def show_unknown(page: Page, texts: Iterable[str]) -> None:
    """What the sign stands for, where it comes among texts of a vocabulary."""
    if any(UNKNOWN in text for text in texts):
        page.say(f"{UNKNOWN} stands for what the model's vocabulary has no token for.")


def surprise(pieces: Sequence[str], bits: Tensor) -> Coloured:
    """A text by how much the model was surprised by each token."""
    return coloured(pieces, bits, kind="share", most=_BITS)


SURPRISE_KEY = (
    (colour_of(0.0), "expected"),
    (colour_of(0.5), f"{_BITS / 2:g} bits"),
    (colour_of(1.0), f"{_BITS:g} bits and more"),
)
SIGNED_KEY = ((colour_of(-1.0), "-1"), (colour_of(0.0), "0"), (colour_of(1.0), "1"))
