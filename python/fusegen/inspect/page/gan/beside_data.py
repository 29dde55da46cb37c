"""What a GAN drew beside its data: whether it copies."""

from __future__ import annotations

import torch
from torch import Tensor

from ....train.tasks.gan.characters import Characters
from ....train.tasks.gan.source import Source
from ...generators import Neighbours, nearest_neighbours
from ..html import Page
from ..pictures import show_neighbours
from ..subject import Subject

LEARNT = 5000  # samples of the data that draws are compared with, at most
DRAWN = 300


def learnt(subject: Subject) -> tuple[Source, Tensor] | None:
    """The data, and which of them draws are compared with: evenly spread; None where they are not at
    hand."""
    if subject.data is None:
        return None
    source: Source = subject.data.source
    return source, torch.linspace(0, len(source) - 1, min(LEARNT, len(source))).long().unique()


def compared(subject: Subject, drawn: Tensor) -> tuple[Neighbours, Source, Tensor] | None:
    """Draws, as the model gives them, beside the data by ``Source.points``; None where these are not at
    hand, or too few."""
    found = learnt(subject)
    if found is None or len(found[1]) < 2:
        return None
    source, rows = found
    dim = subject.model.sample_dim
    real, fake = (source.points(x.movedim(dim, 0)) for x in (source.batch(rows)["real"], drawn))
    try:
        near = nearest_neighbours(fake, real, overlap=_overlap(source, rows))
    except ValueError:  # all windows overlap
        return None
    return near, source, rows


def _overlap(source: Source, rows: Tensor) -> int:
    """How many of the rows after one still share steps with it."""
    each = int(rows[1] - rows[0])
    shared: int = getattr(getattr(source, "series", None), "overlap", 0)
    if isinstance(source, Characters):
        shared = (source.steps - 1) // source.stride
    return -(-shared // each)


def show_nearness(page: Page, subject: Subject, near: Neighbours | None, what: str) -> None:
    if near is None:
        why = (
            "the data are not at hand"
            if subject.data is None
            else "there are too few data that do not overlap"
        )
        page.say(f"Whether samples are copies of the data is not shown: {why}.")
        return
    show_neighbours(
        page,
        near,
        what,
        "how far each of the data is from the nearest other one (a GAN learns from all of them, none is "
        "held out)",
        "the data among themselves",
    )
