"""The part of a GAN's page that is about characters."""

from __future__ import annotations

import torch
from torch import Tensor

from ...generators import input_gradient, interpolation
from ...units import coloured
from ..html import Cell, Page
from ..recurrent import SIGNED_KEY
from ..subject import Subject
from .beside_data import compared, drawn_count, show_nearness
from .series import labels_of, layer_of, random, show_layers, show_units_heard

__all__ = ["layer_of", "show"]

_LINES, _WAY, _NEAR = 10, 7, 5


def show(page: Page, subject: Subject, layer: str) -> None:
    model = subject.model
    count = drawn_count(subject.task.source.steps * model.vocab_size)
    drawn = model.sample(count, labels=labels_of(subject, count), generator=random(0))
    page.section("What it writes, and where the discriminator looks")
    _show_written(page, subject, drawn)
    page.section("From one noise to another")
    _show_way(page, subject)
    page.section("Whether it copies")
    near = compared(subject, drawn)
    if near is not None:
        found, source, rows = near
        real = source.batch(rows[found.index[:_NEAR]])["real"]
        pairs = [
            (_text(subject, drawn[:, i]), _text(subject, real[:, i]))
            for i in range(min(_NEAR, real.shape[1]))
        ]
        page.table(("written", "the nearest of the data"), pairs)
    show_nearness(
        page, subject, near[0] if near else None,
        "the root of twice the number of places in which they differ",
    )  # fmt: skip
    page.section("What single units do")
    show_units_heard(page, subject, layer)
    page.section("How it remembers")
    show_layers(page, subject, drawn)


def _text(subject: Subject, tokens: Tensor) -> Cell:
    return (subject.task.source.vocabulary.decode(tokens),)


def _show_written(page: Page, subject: Subject, drawn: Tensor) -> None:
    few = drawn[:, :_LINES]
    gradient = input_gradient(subject.model, few, labels_of(subject, few.shape[1]))
    # What a token adds beside the mean of all in its place.
    chosen = gradient.gather(2, few.unsqueeze(2)).squeeze(2) - gradient.mean(2)
    scale = chosen.abs().flatten().quantile(0.95).clamp(min=1e-12).item()
    pieces: list[str] = []
    values: list[Tensor] = []
    for b in range(few.shape[1]):
        pieces += [*subject.task.source.vocabulary.pieces(few[:, b]), "\n"]
        values += [chosen[:, b], torch.zeros(1)]
    page.coloured(
        coloured(pieces, torch.cat(values), kind="signed", most=scale),
        key=[
            (c, name)
            for (c, _), name in zip(SIGNED_KEY, ("fake here", "no matter", "real here"), strict=True)
        ],
        shows="Texts made of random noise, one a line. Orange characters make the discriminator call the "
        "text "
        "more real than another character in their place would, blue ones less (the gradient of its "
        "verdict).",
        good="texts that could be the data's; blue where a reader would stumble too.",
        bad="the same text again and again (mode collapse); colour without any pattern.",
        here=f"{len({tuple(x.tolist()) for x in drawn.T})} of {drawn.shape[1]} drawn texts are different.",
    )


def _show_way(page: Page, subject: Subject) -> None:
    model = subject.model
    first, last = (model.noise(1, generator=random(seed)) for seed in (2, 3))
    way = interpolation(model, first, last, _WAY, labels=labels_of(subject, 1))[:, 0]
    page.say(
        "The noise goes from one to another in equal steps, the draws of characters being the same. Good: "
        "the "
        "text changes little by little. Bad: it never changes (the noise is not used), or all at once."
    )
    page.table(("step", "written"), [(str(i + 1), _text(subject, way[:, i])) for i in range(_WAY)])
