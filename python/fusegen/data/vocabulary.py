"""What tokens mean: bytes, characters, words, or numbers that somebody else made."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

KINDS = ("byte", "character", "word", "ids")
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# Words, runs of white space, single signs: nothing is lost, so joining the pieces gives the text back.
_WORD = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by number. `kind`: "byte" (256), "character" or "word" (`tokens`), "ids" (`size` of them).

    Number 0 of characters and words is the unknown one, written U+FFFD. Raises ValueError for another kind.
    """

    kind: str
    tokens: tuple[str, ...] = ()
    size: int = 256

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")

    @classmethod
    def build(cls, kind: str, pieces: Iterable[str], limit: int) -> "Vocabulary":
        """The `limit` most frequent pieces, equally frequent ones in the order of their characters."""
        counts = Counter(pieces)
        counts.pop(UNKNOWN, None)
        ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
        return cls(kind, (UNKNOWN, *ranked[:limit]))

    def __len__(self) -> int:
        return len(self.tokens) if self.unknown is not None else self.size

    @property
    def unknown(self) -> int | None:
        """The number of the unknown token, where there is one."""
        return 0 if self.kind in ("character", "word") else None

    def encode(self, text: str) -> Tensor:
        """text -> integers [N]; for "ids", the numbers written in it."""
        if self.kind == "byte":
            return torch.tensor(list(text.encode()), dtype=torch.uint8)
        if self.kind == "ids":
            numbers = [int(word) for word in text.split() if word.isdecimal()] or [0]
            return torch.tensor(numbers, dtype=torch.int32)
        return self.encode_pieces(cut(text, self.kind))

    def encode_pieces(self, pieces: Sequence[str]) -> Tensor:
        """Characters or words -> int32 [N]."""
        numbers = (self._numbers.get(piece, 0) for piece in pieces)
        return torch.from_numpy(np.fromiter(numbers, np.int32, len(pieces)))

    def decode(self, tokens: Tensor) -> str:
        """integers [N] -> text; bytes that are not UTF-8 become U+FFFD."""
        if self.kind == "byte":
            return bytes(tokens.tolist()).decode("utf-8", errors="replace")
        if self.kind == "ids":
            return " ".join(map(str, tokens.tolist()))
        return "".join(self.tokens[token] for token in tokens.tolist())

    def count_characters(self, tokens: Tensor) -> int:
        """The characters that integers [N] spell, at least 1; an unknown token counts as 1, so do "ids"."""
        if self.kind == "byte":
            return count_characters(tokens)
        if self.kind == "ids":
            return max(1, tokens.numel())
        lengths = torch.tensor([len(token) for token in self.tokens])
        return max(1, int(lengths[tokens.long()].sum()))

    def to_json(self) -> str:
        held = {"size": self.size} if self.unknown is None else {"tokens": list(self.tokens)}
        return json.dumps({"kind": self.kind, **held}, ensure_ascii=False) + "\n"

    @classmethod
    def load(cls, path: Path, kind: str | None = None) -> "Vocabulary":
        """What `to_json` wrote. kind: that it must be of ("byte" stands for "ids" too).

        Raises OSError, or ValueError for a file that holds no vocabulary or one of another kind.
        """
        try:
            held = json.loads(path.read_bytes().decode())
            made = cls(held["kind"], tuple(held.get("tokens", ())), held.get("size", 256))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a vocabulary of fusegen: {error}") from error
        if made.unknown is not None and (
            made.tokens[:1] != (UNKNOWN,)
            or len(set(made.tokens)) != len(made.tokens)
            or not all(isinstance(token, str) for token in made.tokens)
        ):
            raise ValueError(
                f"{path} is not a vocabulary of fusegen: its tokens are not {UNKNOWN!r} and others"
            )
        if kind and kind not in (made.kind, "byte" if made.kind == "ids" else made.kind):
            raise ValueError(f"{path} does not fit: it is of kind {made.kind!r}, this run reads {kind!r}")
        return made

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}


BYTES = Vocabulary("byte")


def cut(text: str, kind: str) -> Sequence[str]:
    """text -> its characters or words; joined, they are the text."""
    return text if kind == "character" else _WORD.findall(text)


def count_characters(tokens: Tensor) -> int:
    """UTF-8 characters in bytes [N] (uint8), counted by their first bytes; at least 1."""
    return max(1, int(((tokens & 0xC0) != 0x80).sum()))
