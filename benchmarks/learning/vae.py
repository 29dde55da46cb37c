"""The variational autoencoders, of images and of sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fusegen.train.tasks import seqvae as sentences
from fusegen.train.tasks import vae as images
from learning.figures import Asked, Figure, train
from learning.mixture import best_of


def vae(asked: Asked) -> Iterator[Figure]:
    """-ELBO on held-out binarised digits, 10 % below the nats of a mixture of 10 Bernoullis."""
    done = train(asked, "vae")
    task = done.run.task()
    sides = [(part.pixels >= 128).flatten(1) for part in (task.training, task.held_out)]
    mixture = best_of(*sides)
    bound = done.figure(images.BOUND)
    yield bound.beside("mixture of 10 Bernoullis", mixture, bound.value <= 0.9 * mixture)
    for name in ("log likelihood", "KL", "active units"):
        yield done.figure(name)
    yield from done.importance()


def seqvae(asked: Asked) -> Iterator[Figure]:
    """At least 5 active units, and a better bound than the same model without z, trained the same way."""
    done = train(asked, "seqvae", folder=asked.folder / "vae")
    flags = (*asked.flags, "--latent", "0")
    twin = train(replace(asked, flags=flags), "seqvae", folder=asked.folder / "twin")
    bound, units = done.figure(sentences.BOUND), done.figure("active units")
    other = twin.figure(sentences.BOUND, bar="seqvae twin")
    yield bound.beside("the same without z", other.value, bound.value < other.value)
    yield units.beside("bar", 5.0, units.value >= 5)
    for name in ("log likelihood", "KL", "perplexity", "self-BLEU"):
        yield done.figure(name).beside("the same without z", twin.last[name])
    yield from done.importance()
    yield other
