"""From one text to another: words spelt backwards, and messages of gettext catalogues."""

from __future__ import annotations

from collections.abc import Iterator

from learning.figures import Asked, Figure, train

TRANSLATION = (
    *("--tokens", "word", "--vocabulary", "4000", "--longest", "40", "--hidden", "256", "--embedding", "128"),
    *("--dropout", "0.3", "--batch", "32", "--steps", "1500", "--beam", "4"),
)


def seq2seq(asked: Asked) -> Iterator[Figure]:
    """99 % of words of 5 to 20 letters that were never seen, reversed without a mistake."""
    done = train(asked, "seq2seq")
    exact = done.figure("exact %")
    yield exact.beside("bar", 99.0, exact.value >= 99)
    yield done.figure("held-out nats per token")


def translation(asked: Asked) -> Iterator[Figure]:
    """BLEU on held-out messages of gettext catalogues, above that of the sources as they are."""
    done = train(asked, "seq2seq", *TRANSLATION)
    bleu, copied = done.figure("BLEU"), done.last["BLEU of the sources"]
    yield bleu.beside("the sources as they are", copied, bleu.value > copied)
    for name in ("exact %", "perplexity"):
        yield done.figure(name)
