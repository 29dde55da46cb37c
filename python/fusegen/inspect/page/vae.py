"""The page of a VAE of images: what its dimensions say and draw, what it draws, and whether that is new."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ... import drawing
from ...data import Images
from ...drawing import Panel
from ...models.latent import standard_normal
from ..generators import Dimensions, nearest_neighbours, traversals
from ..generators.traversals import STEPS
from .html import Page
from .latent import Z_IS, show_dimensions, show_overlap
from .pictures import COLUMNS, grid, pairs, show_neighbours, show_units_drawn
from .subject import Subject, fitting, layers_of
from .training import heading, show_curves

_MEASURED = 1000  # images that dimensions are measured on
_LEARNT = 5000  # training images that draws are compared with, at most
_DRAWN = 500
_TRAVERSED = 6  # dimensions
_BATCH = 250


def vae_page(subject: Subject) -> Page:
    layer = _layer(subject)
    page = heading(subject)
    show_curves(page, subject)
    batches, count = _batches(subject)
    page.section("What z says", Z_IS.format("an image"))
    found = show_dimensions(page, subject.model, batches, count)
    show_overlap(page, subject.model, batches, count)
    page.section("What each dimension draws")
    _show_traversals(page, subject, found)
    page.section("What it draws, and whether that is new")
    _show_returned(page, subject)
    _show_drawn(page, subject)
    page.section("What single units draw")
    z = _noise(subject, COLUMNS, 1)
    labels = _labels(subject, COLUMNS)
    show_units_drawn(
        page,
        subject.model,
        lambda: _decoded(subject, z, labels),
        layer,
        subject.task.examples.pixels.shape[1:],
    )
    return page


def _layer(subject: Subject) -> str:
    """The layer of the decoder whose units are silenced: by default the last before what it gives."""
    model: nn.Module = subject.model
    own = [*layers_of(model, "decoder."), *layers_of(model, "transposed.")]
    if subject.layer is not None:
        return subject.chosen(own)[0]
    inner = layers_of(model, "decoder.")
    return inner[-2] if len(inner) > 1 else inner[0]


def _batches(subject: Subject) -> tuple[list[Any], int]:
    """What ``encode`` takes, of held-out images, or of those that the run keeps; and how many."""
    images: Any = subject.task.examples if subject.data is None else subject.data.held_out
    count = fitting(_MEASURED, 4 * images.pixels[0].numel(), least=2)
    pixels, labels = images.pixels[:count], images.labels
    rows = torch.arange(len(pixels)).split(_BATCH)
    return [
        subject.task.inputs(pixels[part], None if labels is None else labels[part]) for part in rows
    ], len(pixels)


def _noise(subject: Subject, count: int, seed: int) -> Tensor:
    like = next(subject.model.decoder.parameters())
    shape = (count, subject.model.latent_size)
    return standard_normal(shape, like, torch.Generator().manual_seed(seed))


def _labels(subject: Subject, count: int) -> Tensor | None:
    """Classes in turn, of a model that has some."""
    K = subject.model.num_classes
    return None if K is None else torch.arange(count) % K


@torch.no_grad()
def _decoded(subject: Subject, z: Tensor, labels: Tensor | None) -> Tensor:
    """Images in [-1, 1], flat or not, as the model has them."""
    made: Tensor = subject.model.mean(subject.model.decode(z, labels))
    return made * 2 - 1


def _show_traversals(page: Page, subject: Subject, found: Dimensions) -> None:
    chosen = found.by_kl()[:_TRAVERSED] or found.by_kl(active=False)[:1]
    model, shape = subject.model, subject.task.examples.pixels.shape[1:]
    first = tuple(
        t[:1] for t in subject.task.inputs(subject.task.examples.pixels, subject.task.examples.labels)
    )
    with torch.no_grad():
        base = model.encode(*first)[0][0]
    labels = first[1] if len(first) > 1 else None
    drawn = traversals(model, chosen, base=base, labels=labels)
    images = drawn.view(-1, *shape) * 2 - 1
    names = [f"{value:g}" for value in STEPS], [f"z{d}" for d in chosen]
    page.picture(
        drawing.images_figure(
            [Panel(images, COLUMNS, "One dimension at a time", *names)], drawing.NARROW
        ),
        alt=f"Rows of images, one for each of {len(chosen)} dimensions of z, which goes from -3 to 3 from "
        "left to right while the others stay.",
        shows="An example is encoded; then one dimension of z goes from -3 to 3 and the others stay where "
        "they are. A row is a dimension, those that say most on top.",
        good="each row changes one thing, smoothly, and every image could be one of the data.",
        bad="rows that hardly change (the dimension is not used), or that break into noise at the ends.",
        here=f"of {int(found.active.sum())} active dimensions these {len(chosen)} say most."
        if found.active.any() else "no dimension is active; this is the one that says most.",
    )  # fmt: skip


def _show_returned(page: Page, subject: Subject) -> None:
    examples = subject.task.examples
    count = min(COLUMNS, len(examples.pixels))
    labels = None if examples.labels is None else examples.labels[:count]
    given = subject.task.inputs(examples.pixels[:count], labels)
    x, back = given[0], subject.model.reconstruct(*given)
    shape = examples.pixels.shape[1:]
    error = (x - back).abs().mean().item()
    above, below = (each.view(-1, *shape) * 2 - 1 for each in (x, back))
    page.picture(
        pairs(above, below, "Held out, and what comes back", ("in", "out")),
        alt=f"{count} held-out images, and below each what the decoder makes of its code.",
        shows="Images that were not learnt from, and below each what comes back when it is squeezed through "
        "z.",
        good="the same image, perhaps a little smoother.",
        bad="another image, the same blur for all, or details of the original that are gone.",
        here=f"a value is off by {100 * error:.2g} % of the range on average.",
    )


def _show_drawn(page: Page, subject: Subject) -> None:
    shape = subject.task.examples.pixels.shape[1:]
    count = fitting(_DRAWN, 8 * math.prod(shape), least=2 * COLUMNS)
    drawn = _decoded(subject, _noise(subject, count, 0), _labels(subject, count)).flatten(1)
    few = drawn[: 2 * COLUMNS].view(-1, *shape)
    if subject.data is None:
        page.picture(
            grid(few, "Drawn from the prior"),
            alt=f"{len(few)} images drawn from the prior.",
            shows="Images made of random z. The data are not at hand, so nothing is said of how near they "
            "are to what was learnt.",
            good="images as varied as the data, each of which could be one of them.",
            bad="blur, fragments of several images in one, or the same image again and again.",
        )
        return
    learnt = _points(subject, subject.data.training, _LEARNT)
    binary = bool(learnt.abs().eq(1).all())  # so are then draws, or grey ones would be nearer to everything
    compared = torch.where(drawn < 0, -1.0, 1.0) if binary else drawn
    found = nearest_neighbours(compared, learnt, _points(subject, subject.data.held_out, _MEASURED))
    near = learnt[found.index[:COLUMNS]].view(-1, *shape)
    page.picture(
        pairs(few, near, "Drawn, and the nearest learnt", ("drawn", "learnt")),
        alt=f"{COLUMNS} images drawn from the prior, and below each the nearest of the training images.",
        shows="Images made of random z, and below each the image nearest to it among those learnt from.",
        good="like, but not the same: what was drawn is new.",
        bad="the same image twice: learnt by heart. Nothing alike: what was drawn is not like the data.",
    )  # fmt: skip
    whose = "images held out"
    show_neighbours(
        page, found, "the difference of their values", "the same of images that were held out", whose
    )


def _points(subject: Subject, images: Images, most: int) -> Tensor:
    """[N, values] in [-1, 1]: as the model was shown them, evenly spread."""
    count = fitting(min(most, len(images)), 8 * images.pixels[0].numel())
    rows = torch.linspace(0, len(images) - 1, count).long()
    x: Tensor = subject.task.inputs(images.pixels[rows])[0]
    return x.flatten(1) * 2 - 1
