"""The page of a Seq2Seq model: where it looks while it writes, what surprises it, what its layers do."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import drawing
from ...train.tasks.token_sequences import decoded, encoded
from ..recording import record
from .html import Page
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
from .subject import Subject
from .training import heading, show_curves

_MAPS = 2  # pairs whose attention is drawn
_LONGEST = 40  # tokens of a side of a pair that is drawn
_WRITTEN = 500  # tokens of a text that is written, at most
_SHOWN = 10  # pairs in the table


def seq2seq_page(subject: Subject) -> Page:
    layers = subject.chosen(recurrent_names(subject.model))
    page = heading(subject)
    show_curves(page, subject)
    page.section("What it writes")
    _show_written(page, subject)
    page.section("Where it looks while it writes")
    _show_attention(page, subject)
    page.section("What it expects, and what surprises it")
    sides = _sides(subject)
    _show_surprise(page, subject, sides)
    page.section("How it remembers")
    (source, source_lengths), (target, target_lengths) = sides

    def teach() -> Tensor:
        made: Tensor = subject.model(source, target, source_lengths, target_lengths)
        return made

    with torch.no_grad(), record(subject.model, layers) as recording:
        teach()
    show_units(page, planes_of(recording))
    layer = subject.model.get_submodule(layers[-1])
    longest = int((target_lengths if layers[-1] == "decoder" else source_lengths).argmax())

    def one() -> Tensor:
        own = slice(longest, longest + 1)
        made: Tensor = subject.model(
            source[: max(1, int(source_lengths[longest])), own],
            target[: max(1, int(target_lengths[longest])), own],
        )
        return made

    show_reach(page, layer, embedded(layer, one))
    return page


def _sides(subject: Subject) -> list[tuple[Tensor, Tensor]]:
    """(tokens [T, B], lengths [B]) of the sources and of the targets that the run keeps."""
    texts = zip(*subject.task.examples, strict=True)
    return [
        encoded(vocabulary, side).padded()
        for vocabulary, side in zip(subject.task.vocabularies, texts, strict=True)
    ]


def _show_written(page: Page, subject: Subject) -> None:
    (source, lengths), _ = _sides(subject)
    longest = min(subject.option("data", "longest"), _WRITTEN)
    found = subject.model.greedy(source, lengths, max_length=longest)
    written = decoded(subject.task.vocabularies[1], found.tokens, found.lengths)
    rows = [(a, w, b) for (a, b), w in zip(subject.task.examples, written, strict=True)]
    exact = sum(w == b for _, w, b in rows)
    page.say(
        f"Held-out sources, what the model makes of them, and what was expected; {exact} of {len(rows)} are "
        "the same. Good: the same, or another way to say it. Bad: words left out or said twice."
    )
    page.table(("source", "written", "expected"), rows[:_SHOWN])
    show_unknown(page, (text for row in rows[:_SHOWN] for text in row))


def _show_attention(page: Page, subject: Subject) -> None:
    """The alignment of a few pairs, the longest that are legible."""
    sources, targets = subject.task.vocabularies
    pairs = [
        (a, b)  # of a file they are lists
        for a, b in subject.task.examples
        if len(sources.encode(a)) <= _LONGEST and len(targets.encode(b)) <= _LONGEST and a and b
    ]
    pairs = list(dict.fromkeys(sorted(pairs, key=lambda pair: -len(pair[0]))))
    if not pairs:
        page.say(f"No pair that the run keeps is short enough to be drawn ({_LONGEST} tokens).")
    for a, b in pairs[:_MAPS]:
        read, said = sources.encode(a).long(), targets.encode(b).long()
        with torch.no_grad():
            weights = subject.model.alignment(read.unsqueeze(1), said.unsqueeze(1))[:, 0]
        most = weights.max(1).values.mean().item()
        page.picture(
            drawing.heat_figure(
                weights,
                title="Where each token that is written looks",
                x="read",
                y="written",
                rows=[*map(_tick, targets.pieces(said)), "end"],
                columns=[*map(_tick, sources.pieces(read))],
                label="share of attention",
            ),
            alt=f"Map of attention from the {len(said)} tokens of “{b}” and its end to the {len(read)} "
            f"tokens of “{a}”; the strongest of a row has {most:.2f} on average.",
            shows="Each row is a token that is written, each column one that was read; the darker, the more "
            "the model looks there while it writes. A row adds up to 1.",
            good="a clear path: each token looks at what it renders (a falling line for texts in the same "
            "order, a rising one where they are reversed).",
            bad="one dark column for all rows, or grey everywhere: attention is not used.",
            here=f"the strongest square of a row has {100 * most:.0f} % of the attention on average.",
        )


def _tick(piece: str) -> str:
    """A token at the side of a map."""
    shown = piece.replace("\n", "\u21b5").replace("$", "\\$")  # matplotlib would read mathematics
    return "\u2423" if shown == " " else shown[:10]


def _show_surprise(page: Page, subject: Subject, sides: list[tuple[Tensor, Tensor]]) -> None:
    (source, source_lengths), (target, target_lengths) = sides
    with torch.no_grad():
        logits = subject.model(source, target, source_lengths, target_lengths)
    end = subject.model.target_vocab_size
    pieces: list[str] = []
    values: list[Tensor] = []
    for b, length in enumerate(target_lengths.tolist()):
        pieces += [*subject.task.vocabularies[1].pieces(target[:length, b]), "\n"]
        said = torch.cat([target[:length, b], torch.tensor([end])])
        values.append(F.cross_entropy(logits[: length + 1, b], said, reduction="none") / math.log(2))
    bits = torch.cat(values)
    page.coloured(
        surprise(pieces, bits),
        key=SURPRISE_KEY,
        shows="What was expected of held-out sources, token by token. The darker a token, the less the model "
        "expected it, given the source and what stands before; the sign at a line's end is the text's end.",
        good="light almost everywhere: the source says what comes.",
        bad="dark in the middle of words, or from some length on: there it has lost its place.",
        here=f"{bits.mean().item():.3g} bits a token on average.",
    )
