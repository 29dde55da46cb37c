"""What the tasks over token sequences share: texts as tokens, and the vocabularies that a run keeps."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from ...data import Ragged, Vocabulary
from ...data.vocabulary import cut
from .. import files

TOKENS = ("byte", "character", "word")


def vocabulary_of(
    tokens: str, texts: Iterable[str], limit: int, kept: Path | None, argument: str
) -> Vocabulary:
    """The vocabulary in the file `kept`; where there is none, that of `texts`, which is then written there.

    tokens: one of `TOKENS`. Raises OSError or ValueError, naming `argument`, for a file that does not fit.
    """
    if kept and kept.exists():
        return read_vocabulary(kept, tokens, argument)
    if tokens == "byte":
        made = Vocabulary(tokens)
    else:
        made = Vocabulary.build(tokens, (piece for text in texts for piece in cut(text, tokens)), limit)
    if kept:
        files.write(kept, made.to_json())
    return made


def read_vocabulary(kept: Path | None, tokens: str, argument: str) -> Vocabulary:
    """A run's vocabulary. Raises OSError or ValueError, naming `argument`."""
    if kept is None or not kept.exists():
        raise FileNotFoundError(f"{argument}: {kept} is missing, without which no text can be written")
    try:
        return Vocabulary.load(kept, tokens)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error


def encoded(vocabulary: Vocabulary, texts: Sequence[str]) -> Ragged:
    return Ragged([vocabulary.encode(text) for text in texts])


def decoded(vocabulary: Vocabulary, tokens: Tensor, lengths: Tensor) -> list[str]:
    """tokens [T, B] up to lengths [B] -> B texts."""
    tokens = tokens.cpu()
    return [vocabulary.decode(tokens[:length, b]) for b, length in enumerate(lengths.tolist())]


def count_tokens(tokens: str, text: str) -> int:
    return len(text.encode()) if tokens == "byte" else len(cut(text, tokens))
