"""What a text model begins with where nobody says: something that its text has."""

from __future__ import annotations

from ...data import Text, Vocabulary

USUAL = "The "
_LOOKED_AT = 100_000  # tokens
_CHARACTERS, _NUMBERS = 4, 3  # that a prompt has


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


def _known(vocabulary: Vocabulary, text: str) -> bool:
    tokens = vocabulary.encode(text)
    return bool(tokens.numel()) and vocabulary.unknown not in tokens.tolist()
