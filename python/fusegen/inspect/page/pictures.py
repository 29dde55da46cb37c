"""Images on pages: rows of them, what single units of a network draw, and whether drawn ones are copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ... import drawing
from ...drawing import Panel
from ..dynamics import ablate
from ..generators import Neighbours, unit_effects
from .html import Page

COLUMNS = 7
UNITS = 256  # that are silenced, at most
_SHOWN = 3  # units in a picture


def grid(images: Tensor, title: str = "", rows: Sequence[str] = ()) -> Any:
    """A figure of images [n, C, H, W] in [-1, 1], seven in a row."""
    return drawing.images_figure([Panel(images, COLUMNS, title, (), rows)], drawing.NARROW)


def pairs(above: Tensor, below: Tensor, title: str, names: tuple[str, str]) -> Any:
    """A figure of two rows of images [n, C, H, W] in [-1, 1], up to seven, named on the left."""
    count = min(COLUMNS, len(above), len(below))
    both = torch.cat([above[:count], below[:count]])
    return drawing.images_figure([Panel(both, count, title, (), names)], drawing.NARROW)


def show_units_drawn(
    page: Page, model: nn.Module, make: Callable[[], Tensor], layer: str, shape: Sequence[int]
) -> None:
    """What silencing a unit of a layer changes. make: gives 7 images in [-1, 1] from fixed noise."""
    whole = make().view(-1, *shape)
    found = unit_effects(model, make, layer, _some_units(model, make, layer))
    order = found.strongest()[:_SHOWN]
    rows, names = [whole], ["whole"]
    for row in order:
        with ablate(model, found.units[row], layer), torch.no_grad():
            drawn = whole - make().view(-1, *shape)
        rows.append(drawn / drawn.abs().max().clamp(min=1e-12))
        names.append(f"unit {found.units[row]}")
    change = found.change[order[0]].item() / 2
    silent = (found.change < 1e-3 * found.change.max().clamp(min=1e-12)).double().mean().item()
    page.picture(
        grid(torch.cat(rows), f"What units of {layer} draw", names),
        alt=f"A row of {COLUMNS} drawn images, and what each of the {len(order)} units of layer {layer} that "
        "matter most adds to them.",
        shows=f"A unit of the layer {layer} is silenced, and the same images are drawn again (Bau et al. "
        "2019). The first row is whole. Below it stands what is missing without a unit: white where the unit "
        "makes the image brighter, black where darker, grey where it does nothing; each row has a scale of "
        "its own. The units that matter most are shown.",
        good="a unit draws one thing, a stroke or a part, in some of the images.",
        bad="a unit that draws noise, or the same thing in all images; or nothing at all.",
        here=f"the strongest of {len(found.units)} units changes a value by {100 * change:.2g} % of the "
        f"range "
        f"on average; {100 * silent:.0f} % of the units hardly matter.",
    )  # fmt: skip


def _some_units(model: nn.Module, make: Callable[[], Tensor], layer: str) -> list[int] | None:
    """All of them (None), or 256 evenly spread of more."""
    seen: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda m, _, out: seen.append(out))
    try:
        make()
    finally:
        handle.remove()
    count = seen[0].shape[1] if seen else 0
    return None if count <= UNITS else torch.linspace(0, count - 1, UNITS).long().tolist()


def show_neighbours(page: Page, found: Neighbours, what: str, baseline: str, whose: str) -> None:
    """How far drawn samples are from the data. what: how distance is read; baseline: of which data the other
    distances are; whose: the same in a few words."""
    even = f"in {100 * found.closer:.0f} of 100 pairs the drawn one is nearer (50 would be even)."
    here = f"the ratio of the medians is {found.ratio:.2f}; {even}"
    if not math.isfinite(found.ratio):
        here = f"half of the other distances are 0, since the data repeat themselves; {even}"
    page.picture(
        drawing.distribution_figure(
            {"drawn": found.distance.tolist(), whose: found.baseline.tolist()},
            title="How near the data samples are",
            x="distance to the nearest of the data",
        ),
        alt=f"Distribution of the distances of {len(found.distance)} drawn samples to the nearest of the "
        f"data, beside those of {whose}.",
        shows=f"How far each drawn sample is from the nearest of the data, by {what}, beside {baseline}.",
        good="the two outlines lie on top of each other (a ratio of medians near 1): samples are new, and as "
        "near the data as new data are.",
        bad="drawn ones far to the left: copies, learnt by heart. Far to the right: unlike any data.",
        here=here,
    )
