"""What pages of variational autoencoders share: the dimensions of z, and how far posteriors overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ... import drawing
from ..generators import Dimensions, latent_dimensions, posterior_overlap
from .html import Page

Z_IS = (
    "z is the short list of numbers into which the model squeezes {}, and out of which it makes one again. "
    "Each number is a dimension; the model gives it as a mean and a spread, the posterior."
)
_SHOWN = 32  # dimensions in a picture, at most
_OVERLAPPING = 24  # examples in a map


def show_dimensions(page: Page, model: nn.Module, batches: Sequence[Any], count: int) -> Dimensions:
    """KL by dimension, the active ones told apart."""
    found = latent_dimensions(model, batches)
    order = found.by_kl(active=False)[:_SHOWN]
    active = int(found.active.sum())
    Z = len(found.kl)
    kl = [found.kl[d].item() for d in order]
    used = [d for d in order if found.active[d]]
    bars = {
        "active": [x if found.active[d] else 0.0 for d, x in zip(order, kl, strict=True)],
        "not active": [0.0 if found.active[d] else x for d, x in zip(order, kl, strict=True)],
    }
    shown = "" if len(order) == Z else f", the {len(order)} that say most"
    page.picture(
        drawing.bars_figure(
            {name: values for name, values in bars.items() if any(values)} or {"nats": kl},
            [f"z{d}" for d in order],
            title=f"What each dimension says{shown}",
            value="KL to the prior, nats",
            stacked=True,
        ),
        alt=f"Bars of the KL divergence of {len(order)} dimensions of z, {len(used)} of them active.",
        shows=f"How much each dimension of z tells of an example, in nats (1.44 bits), the mean over {count} "
        "of them. A dimension is called active where its mean differs from example to example (a variance "
        "above 0.01, Burda et al. 2016).",
        good="many active dimensions of 0.5 nats or more, and the rest at 0, which costs nothing.",
        bad="none active: z is ignored (posterior collapse). All at the same small value: only a floor under "
        "the KL divergence (`--free-bits` of `train seqvae`) keeps them up.",
        here=f"{active} of {Z} dimensions are active; together they tell {found.kl.sum().item():.3g} nats.",
    )
    return found


def show_overlap(page: Page, model: nn.Module, batches: Sequence[Any], count: int) -> None:
    if count < 2:
        page.say("Whether posteriors overlap is not shown: there is one example alone.")
        return
    found = posterior_overlap(model, batches, most=_OVERLAPPING)
    page.picture(
        drawing.heat_figure(
            found.matrix,
            title="How far the posteriors of examples overlap",
            x="example",
            y="example",
            label="1: the same, 0: apart",
        ),
        alt=f"Map of the overlap of the posteriors of {len(found.matrix)} examples; the mean of two "
        f"different ones is {found.mean:.2g}.",
        shows="Each example is a small cloud in the space of z. A square is dark where the clouds of two "
        "examples lie on top of each other (Bhattacharyya's coefficient); on the diagonal each meets itself.",
        good="a dark diagonal and light squares elsewhere, some of them grey: examples are told apart, and "
        "like ones lie near each other.",
        bad="dark everywhere: z does not tell examples apart (collapse).",
        here=f"two different examples overlap by {found.mean:.2g} on average.",
    )
