"""The page of a GAN: of images, of series or sounds, of characters."""

from __future__ import annotations

from typing import Any

from ....train.tasks.gan.characters import Characters
from ....train.tasks.gan.pictures import Pictures
from ..html import Page
from ..subject import Subject
from ..training import heading, show_curves
from . import characters, images, series


def gan_page(subject: Subject) -> Page:
    source = subject.task.source
    module: Any = series
    if isinstance(source, (Pictures, Characters)):
        module = images if isinstance(source, Pictures) else characters
    layer = module.layer_of(subject)
    page = heading(subject)
    page.say(
        "A GAN is two networks: the generator draws from random numbers, called noise, and the discriminator "
        "tells what was drawn from the data. Each learns from the other."
    )
    show_curves(page, subject)
    module.show(page, subject, layer)
    return page
