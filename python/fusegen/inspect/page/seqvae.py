"""The page of a VAE of texts: what its dimensions say, sentences along them, what comes back, what layers "
"do."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...data import Ragged
from ...train.tasks.token_sequences import decoded, encoded
from ..generators import Dimensions, sentences_along
from ..generators.traversals import STEPS
from ..recording import record
from .html import Page
from .latent import Z_IS, show_dimensions, show_overlap
from .recurrent import (
    SURPRISE_KEY,
    embedded,
    planes_of,
    recurrent_names,
    show_reach,
    show_units,
    show_unknown,
    surprise,
)
from .subject import Subject, fitting
from .training import heading, show_curves

_MEASURED = 1000  # sequences that dimensions are measured on
_BATCH = 50
_RECORDED = 100  # sequences whose gates are recorded, at most
_WRITTEN = 300  # tokens of a text that is written, at most
_ALONG = 3  # dimensions that sentences are written along
_DRAWN = 8


def seqvae_page(subject: Subject) -> Page:
    layers = subject.chosen(recurrent_names(subject.model))
    page = heading(subject)
    show_curves(page, subject)
    sequences = _sequences(subject)
    if subject.model.latent_size:
        index = sequences.lengths[:_MEASURED].argsort(stable=True)
        batches = [sequences.padded(part) for part in index.split(_BATCH)]
        page.section("What z says", Z_IS.format("a text"))
        found = show_dimensions(page, subject.model, batches, len(index))
        show_overlap(page, subject.model, batches, len(index))
        page.section("Sentences along a dimension")
        _show_along(page, subject, found)
    else:
        page.section(
            "What z says", "This model has no z (--latent 0): it is a language model of its decoder."
        )
    page.section("What it writes")
    _show_written(page, subject)
    _show_surprise(page, subject)
    page.section("How it remembers")
    hidden = subject.model.hidden_size * subject.model.num_layers
    each = 4 * int(sequences.lengths.max()) * (7 * 3 * hidden + subject.model.vocab_size)
    tokens, lengths = sequences.padded(slice(0, fitting(_RECORDED, each)))
    with torch.no_grad(), record(subject.model, layers) as recording:
        subject.model(tokens, lengths, generator=torch.Generator().manual_seed(0))
    show_units(page, planes_of(recording))
    layer = subject.model.get_submodule(layers[-1])
    longest = int(lengths.argmax())
    alone = tokens[: int(lengths.max()), longest : longest + 1]
    show_reach(page, layer, embedded(layer, lambda: subject.model(alone)))
    return page


def _sequences(subject: Subject) -> Ragged:
    """Held-out ones, or those that the run keeps."""
    if subject.data is not None:
        found: Ragged = subject.data.held_out
        return found
    return encoded(subject.task.vocabulary, subject.task.examples)


def _show_along(page: Page, subject: Subject, found: Dimensions) -> None:
    """Tables, one a dimension."""
    chosen = found.by_kl()[:_ALONG] or found.by_kl(active=False)[:1]
    first = encoded(subject.task.vocabulary, subject.task.examples[:1]).padded()
    with torch.no_grad():
        base = subject.model.encode(*first)[0][0]
    longest = min(subject.option("data", "longest"), _WRITTEN)
    texts = sentences_along(subject.model, subject.task.vocabulary, chosen, base=base, max_length=longest)
    page.say(
        "A held-out text is encoded; then one dimension of z goes from -3 to 3 and the others stay where "
        "they "
        "are. Good: what is written changes step by step, one thing at a time. Bad: it never changes (the "
        "dimension is not used), or every step is about something else."
    )
    page.say(f"The text that was encoded: {subject.task.examples[0]}")
    for d, row in zip(chosen, texts, strict=True):
        changed = len(set(row))
        page.say(
            f"Dimension z{d}, {found.kl[d].item():.2g} nats; {changed} different texts in {len(row)} steps:"
        )
        page.table(
            (f"z{d}", "what is written"),
            [(f"{v:g}", text or "(nothing)") for v, text in zip(STEPS, row, strict=True)],
        )


def _show_written(page: Page, subject: Subject) -> None:
    model, vocabulary = subject.model, subject.task.vocabulary
    longest = min(subject.option("data", "longest"), _WRITTEN)
    examples = encoded(vocabulary, subject.task.examples)
    returned = decoded(vocabulary, *model.reconstruct(*examples.padded(), longest))
    same = sum(a == b for a, b in zip(subject.task.examples, returned, strict=True))
    page.say(
        f"Held-out texts, and what comes back through z; {same} of {len(returned)} come back exactly. Good: "
        "the same text or one that means the same. Bad: the same text for all of them."
    )
    page.table(("held out", "comes back"), list(zip(subject.task.examples, returned, strict=True)))
    drawn = model.sample(_DRAWN, longest, generator=torch.Generator().manual_seed(0))
    page.say(
        "Written from random z. Good: texts like the data, all different. Bad: fragments, or repetition."
    )
    written = decoded(vocabulary, *drawn)
    page.table(("drawn",), [(text or "(nothing)",) for text in written])
    show_unknown(page, [*returned, *written])


def _show_surprise(page: Page, subject: Subject) -> None:
    vocabulary = subject.task.vocabulary
    tokens, lengths = encoded(vocabulary, subject.task.examples).padded()
    bits = _bits(subject.model, tokens, lengths)
    pieces: list[str] = []
    values: list[Tensor] = []
    for b, length in enumerate(lengths.tolist()):
        pieces += [*vocabulary.pieces(tokens[:length, b]), "\n"]
        values.append(bits[: length + 1, b])
    page.coloured(
        surprise(pieces, torch.cat(values)),
        key=SURPRISE_KEY,
        shows="The held-out texts above, given their own z. The darker a token, the less the decoder "
        "expected "
        "it; the sign at a line's end is how surprising it is that the text ends there.",
        good="mostly light: z says what comes.",
        bad="dark everywhere: the decoder does not know what z means, or z says nothing.",
        here=f"{torch.cat(values).mean().item():.3g} bits a token on average.",
    )


@torch.no_grad()
def _bits(model: Any, tokens: Tensor, lengths: Tensor) -> Tensor:
    """[T + 1, B]: of each token and of each end, z at the posterior's mean."""
    mean, _ = model.encode(tokens, lengths)
    logits, targets = model._logits(mean, tokens, lengths, None)
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return nats.view(targets.shape) / math.log(2)
