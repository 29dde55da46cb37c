"""The part of a GAN's page that is about images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .... import drawing
from ....drawing import Panel
from ...generators import input_gradient, interpolation
from ..html import Page
from ..pictures import COLUMNS, grid, pairs, show_units_drawn
from ..subject import Subject, layers_of
from .beside_data import compared, drawn_count, show_nearness

_WAYS = 4


def layer_of(subject: Subject) -> str:
    """The generator's layer whose units are silenced: by default the last inner activation."""
    own = layers_of(subject.model, "generator.")
    if subject.layer is not None:
        return subject.chosen(own)[0]
    named = dict(subject.model.named_modules())
    inner = [name for name in own if isinstance(named[name], (torch.nn.LeakyReLU, torch.nn.ReLU))]
    return inner[-1] if inner else own[0]


def show(page: Page, subject: Subject, layer: str) -> None:
    model = subject.model
    count = drawn_count(math.prod(subject.task.source.shape))
    drawn = model.sample(count, labels=_labels(subject, count), generator=_random(0))
    page.section("What it draws")
    page.picture(
        grid(drawn[: 3 * COLUMNS], "Drawn"),
        alt=f"{min(len(drawn), 3 * COLUMNS)} images that the generator draws from random noise.",
        shows="Images made of random noise, not chosen"
        + (", of all classes in turn." if model.num_classes else "."),
        good="images as varied as the data, each of which could be one of them.",
        bad="the same few images again and again (mode collapse), or textures that are no images.",
    )
    _show_ways(page, subject)
    page.section("Whether it copies")
    near = compared(subject, drawn)
    if near is not None:
        found, source, rows = near
        beside = source.batch(rows[found.index[:COLUMNS]])["real"]
        page.picture(
            pairs(drawn, beside, "Drawn, and the nearest learnt", ("drawn", "learnt")),
            alt=f"{COLUMNS} drawn images, and below each the nearest of the data.",
            shows="Drawn images, and below each the one of the data that is nearest to it.",
            good="like, but not the same: what was drawn is new.",
            bad="the same image twice: learnt by heart. Nothing alike: unlike the data.",
        )  # fmt: skip
    show_nearness(page, subject, near[0] if near else None, "their pixels at 8 x 8")
    page.section("What single units draw")
    noise, labels = model.noise(COLUMNS, generator=_random(1)), _labels(subject, COLUMNS)
    show_units_drawn(
        page, model, lambda: model.sample_of(noise, labels), layer, tuple(subject.task.source.shape)
    )
    page.section("Where the discriminator looks")
    _show_gradient(page, subject, drawn)


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _labels(subject: Subject, count: int) -> Tensor | None:
    """Classes in turn, of a model that has some."""
    K = subject.model.num_classes
    return torch.arange(count) % K if K else None


def _show_ways(page: Page, subject: Subject) -> None:
    model = subject.model
    first, last = model.noise(2 * _WAYS, generator=_random(2)).chunk(2)
    ways = interpolation(model, first, last, COLUMNS, labels=_labels(subject, _WAYS))
    page.picture(
        grid(ways.flatten(0, 1), "From one noise to another"),
        alt=f"{_WAYS} rows of {COLUMNS} images, each a way from the image on the left to that on the right.",
        shows="In each row the noise goes from one to another in equal steps, and so does what is drawn.",
        good="a smooth way on which every image could be one of the data.",
        bad="jumps between a few images (learnt by heart), or images in the middle that are nothing.",
    )


def _show_gradient(page: Page, subject: Subject, drawn: Tensor) -> None:
    """Of some of the data, where the run or its source has them, and of drawn images."""
    source = subject.task.source
    sides: list[tuple[str, Tensor, Tensor | None]] = []
    if source.examples is not None:
        pixels, labels = source.examples.pixels[:COLUMNS], source.examples.labels
        told = None if labels is None or not subject.model.num_classes else labels[:COLUMNS]
        if told is not None or not subject.model.num_classes:
            sides.append(("data", pixels.float() / 127.5 - 1, told))
    sides.append(("drawn", drawn[:COLUMNS], _labels(subject, COLUMNS)))
    rows, names = [], []
    for name, x, labels in sides:
        gradient = input_gradient(subject.model, x, labels)
        most = gradient.abs().flatten(1).max(1).values.clamp(min=1e-12).view(-1, 1, 1, 1)
        rows += [x, gradient / most]
        names += [name, "gradient"]
    columns = min(len(row) for row in rows)
    shown = torch.cat([row[:columns] for row in rows])
    page.picture(
        drawing.images_figure(
            [Panel(shown, columns, "What would look more real", (), names)], drawing.NARROW
        ),
        alt="Rows of images, and below each row the gradient of the discriminator's verdict by pixel.",
        shows="Below each image: which pixels the discriminator would have brighter (white) or darker "
        "(black) "
        "to call the image more real; grey ones do not matter to it. Each gradient has a scale of its own.",
        good="gradients along strokes and edges: the discriminator looks at shapes, and the generator can "
        "learn from it.",
        bad="noise spread over the whole image, or a few single pixels: it goes by something that no eye "
        "sees.",
    )  # fmt: skip
