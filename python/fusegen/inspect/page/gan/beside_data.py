"""What a GAN drew beside its data: whether it copies."""

from __future__ import annotations

import torch
from torch import Tensor

from ....train.tasks.gan.characters import Characters
from ....train.tasks.gan.source import Source
from ...generators import Neighbours, nearest_neighbours
from ..html import Page
from ..pictures import show_neighbours
from ..subject import Subject, fitting

_LEARNT, _DRAWN = 5000, 300  # samples of the data and draws that are compared, at most


def drawn_count(values: int) -> int:
    """How many samples of so many values a page draws."""
    return fitting(_DRAWN, 8 * values, least=8)


def compared(subject: Subject, drawn: Tensor) -> tuple[Neighbours, Source, Tensor] | None:
    """(How near draws, as the model gives them, are to the data by ``Source.points``; the data; which of them
    were taken, evenly spread). None where the data are not at hand, or too few to compare with."""
    if subject.data is None:
        return None
    source: Source = subject.data.source
    dim = subject.model.sample_dim
    one = source.batch(torch.zeros(1, dtype=torch.long))["real"]
    each = 8 * max(one.numel(), source.points(one.movedim(dim, 0)).numel())
    rows = (
        torch.linspace(0, len(source) - 1, min(fitting(_LEARNT, each, least=2), len(source))).long().unique()
    )
    batch = source.batch(rows)
    if (lengths := batch.get("lengths")) is not None:  # draws are full
        rows = rows[lengths == lengths.max()]
        batch = source.batch(rows)
    if len(rows) < 2:
        return None
    real, fake = (source.points(x.movedim(dim, 0)) for x in (batch["real"], drawn))
    try:
        near = nearest_neighbours(fake, real, overlap=_overlap(source, rows))
    except ValueError:  # all windows overlap
        return None
    return near, source, rows


def _overlap(source: Source, rows: Tensor) -> int:
    """How many of the rows after one still share steps with it."""
    each = int(rows.diff().min())
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
