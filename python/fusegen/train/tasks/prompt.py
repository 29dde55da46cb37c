"""What a text model begins with where nobody says: something that its text has."""

from __future__ import annotations

import difflib

from ...data import Text, Vocabulary
from ...data.vocabulary import visible

USUAL = "The "
_LOOKED_AT = 100_000  # tokens
_CHARACTERS, _NUMBERS = 4, 3  # that a prompt has
_NAMED = 5  # unknown tokens that an error names


def prompt_of(text: Text) -> str:
    """For a model of `text`: "The " where that occurs in it; else how one of its lines begins."""
    vocabulary = text.vocabulary
    if vocabulary.kind == "ids":
        return vocabulary.decode(text.tokens[:_NUMBERS])
    begin = vocabulary.decode(text.tokens[:_LOOKED_AT])
    if USUAL in begin and _known(vocabulary, USUAL):
        return USUAL
    # Bytes that are no UTF-8 and unknown tokens are U+FFFD there.
    for line in begin.splitlines():
        start = line.strip()[:_CHARACTERS]
        if vocabulary.kind == "word":
            start = "".join(line.split()[:1])
        if start and "\N{REPLACEMENT CHARACTER}" not in start and _known(vocabulary, start):
            return start
    return prompt_from(vocabulary)


def prompt_from(vocabulary: Vocabulary) -> str:
    """For a model of which the vocabulary alone is left: "The " where it has that, else its first token."""
    if vocabulary.kind == "ids":
        return "0"
    if _known(vocabulary, USUAL):
        return USUAL
    known = (each for each in vocabulary.tokens[1:] if not each.isspace())
    return next(known, USUAL)


def check_known(argument: str, text: str, vocabulary: Vocabulary) -> None:
    """Raises ValueError, naming `argument`, where `text` has characters or words that are not in the
    vocabulary: those, what is near them, and some of what there is."""
    unknown = vocabulary.unknown_in(text)
    if not unknown:
        return
    unit = {"character": "character", "word": "word"}.get(vocabulary.kind, "token")
    named = ", ".join(repr(visible(each)) for each in unknown[:_NAMED]) + (
        ", ..." if unknown[_NAMED:] else ""
    )
    plural, verb = ("", "is") if len(unknown) == 1 else ("s", "are")
    near = _near(unknown[0], vocabulary)
    there = ", ".join(repr(visible(each)) for each in vocabulary.some())
    raise ValueError(
        f"{argument}: {unit}{plural} {named} {verb} not in this run's vocabulary"
        + (f"; near is {near}" if near else "")
        + f"; it has {there} and others, {len(vocabulary):,} in all"
    )


def _near(piece: str, vocabulary: Vocabulary) -> str:
    """Words like one that is unknown, in another case first."""
    if vocabulary.kind not in ("word", "character"):
        return ""
    same = [each for each in vocabulary.tokens if each != piece and each.casefold() == piece.casefold()]
    close = difflib.get_close_matches(piece, vocabulary.tokens[1:], n=3) if len(piece) > 1 else []
    return ", ".join(repr(each) for each in dict.fromkeys((*same, *close)))


def _known(vocabulary: Vocabulary, text: str) -> bool:
    tokens = vocabulary.encode(text)
    return bool(tokens.numel()) and vocabulary.unknown not in tokens.tolist()
