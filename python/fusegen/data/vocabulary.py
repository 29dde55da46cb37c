"""What tokens mean: bytes, characters, words, a `tokenizers` file's, or numbers that somebody else made."""

import codecs
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .files.paths import path_of

KINDS = ("byte", "character", "word", "tokenizer", "ids")
BUILT = ("byte", "character", "word")  # what needs no file of tokens
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# Tokens of a tokenizer that are decoded together, and of these how many stand before what is new.
_GROWN, _CONTEXT = 32, 8
# Words, runs of white space, single signs: nothing is lost, so joining the pieces gives the text back.
_WORD = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by number. `kind`: "byte" (256), "character" or "word" (`tokens`), "ids" (`size` of them), or
    "tokenizer": those of `definition`, the text of a file of Hugging Face's tokenizers.

    Number 0 of characters and words is the unknown one, written U+FFFD; a tokenizer has its own, or none.
    Raises ValueError for another kind, for a definition that is not one, and where `tokenizers` is needed and
    not installed.
    """

    kind: str
    tokens: tuple[str, ...] = ()
    size: int = 256
    definition: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.kind == "tokenizer":
            _ = self._tokenizer

    @classmethod
    def build(cls, kind: str, pieces: Iterable[str], limit: int) -> "Vocabulary":
        """The `limit` most frequent pieces, equally frequent ones in the order of their characters."""
        counts = Counter(pieces)
        counts.pop(UNKNOWN, None)
        ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
        return cls(kind, (UNKNOWN, *ranked[:limit]))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], argument: str = "path") -> "Vocabulary":
        """That of a tokenizer.json, as Hugging Face's `tokenizers` saves it.

        Raises OSError or ValueError, beginning with `argument` and naming the file.
        """
        try:
            return cls("tokenizer", definition=path_of(path, argument).read_bytes().decode("utf-8"))
        except OSError as error:
            if error.strerror is None:
                raise
            raise type(error)(f"{argument}: cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"{argument}: {path}: {error}") from error

    def __len__(self) -> int:
        if self.kind == "tokenizer":
            # Not their count: numbers may be left out.
            return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())
        return len(self.tokens) if self.kind in ("character", "word") else self.size

    @cached_property
    def unknown(self) -> int | None:
        """The number of the unknown token, where there is one."""
        if self.kind == "tokenizer":
            model = json.loads(self.definition)["model"]
            named = model.get("unk_token")
            return model.get("unk_id") if named is None else self._tokenizer.token_to_id(named)
        return 0 if self.kind in ("character", "word") else None

    def encode(self, text: str) -> Tensor:
        """text -> integers [N]; for "ids", the numbers written in it. Raises ValueError for others.

        A tokenizer adds no special tokens, cuts nothing off and pads nothing, whatever its file says.
        """
        if self.kind == "tokenizer":
            return torch.tensor(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.int32)
        if self.kind == "byte":
            return torch.from_numpy(np.frombuffer(bytearray(text.encode()), np.uint8))
        if self.kind == "ids":
            for word in text.split():
                if not word.isdecimal() or int(word) >= len(self):
                    raise ValueError(f"expected token numbers below {len(self)}, got {word!r}")
            return torch.tensor([int(word) for word in text.split()], dtype=torch.int32)
        return self.encode_pieces(cut(text, self.kind))

    def unknown_in(self, text: str) -> list[str]:
        """The characters or words of ``text`` that are not in the vocabulary, each once, in order; [] where
        every text can be spelt (bytes, "ids", and tokenizers without an unknown token).

        text: any string.
        """
        if self.unknown is None or self.kind not in ("character", "word", "tokenizer"):
            return []
        if self.kind == "tokenizer":
            found = self._tokenizer.encode(text, add_special_tokens=False)
            spans = [
                span for number, span in zip(found.ids, found.offsets, strict=True) if number == self.unknown
            ]
            return list(dict.fromkeys(text[begin:end] for begin, end in spans))
        return [piece for piece in dict.fromkeys(cut(text, self.kind)) if piece not in self._numbers]

    def some(self, count: int = 8) -> list[str]:
        """Some tokens as text, of characters and words the most frequent ones, white space left aside; [] of
        bytes and "ids".

        count: how many at most.
        """
        if self.kind == "tokenizer":
            named = sorted(
                self._tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda each: each[1]
            )
            known = [token for token, number in named if number != self.unknown]
        else:
            known = [token for token in self.tokens if token != UNKNOWN]
        return [token for token in known if token.strip()][: max(0, count)]

    def encode_pieces(self, pieces: Sequence[str]) -> Tensor:
        """Characters or words -> int32 [N]."""
        numbers = (self._numbers.get(piece, 0) for piece in pieces)
        return torch.from_numpy(np.fromiter(numbers, np.int32, len(pieces)))

    def decode(self, tokens: Tensor) -> str:
        """integers [N] -> text; bytes that are not UTF-8 become U+FFFD. A tokenizer leaves out nothing."""
        if self.kind == "tokenizer":
            return self._tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
        if self.kind == "byte":
            return bytes(tokens.tolist()).decode("utf-8", errors="replace")
        if self.kind == "ids":
            return " ".join(map(str, tokens.tolist()))
        return "".join(self.tokens[token] for token in tokens.tolist())

    def pieces(self, tokens: Tensor) -> list[str]:
        """integers [N] -> N texts, what each token adds; joined they are what ``decode`` gives.

        A character of several tokens stands at the last of them, the ones before are empty. Numbers ("ids")
        have a space before them, but for the first.
        """
        if self.kind == "byte":
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            found = [decoder.decode(bytes([token])) for token in tokens.tolist()]
            return [*found[:-1], found[-1] + decoder.decode(b"", True)] if found else []
        if self.kind == "ids":
            return [f"{' ' if i else ''}{token}" for i, token in enumerate(tokens.tolist())]
        if self.kind == "tokenizer":
            return self._grown(tokens.tolist())
        return [self.tokens[token] for token in tokens.tolist()]

    def _grown(self, tokens: list[int]) -> list[str]:
        """What each token adds to the text of a few before it: a tokenizer's tokens have no text of their
        own, a space or half a character depending on their neighbours."""
        found: list[str] = []
        begin, told = 0, ""  # the text from a token on, as far as it has been given out
        for end in range(1, len(tokens) + 1):
            text = self._decoded(tokens[begin:end])
            whole = not text.endswith(UNKNOWN) or end == len(tokens)
            found.append(text[len(told) :] if whole and text.startswith(told) else "")
            if whole:
                told = text
            if whole and end - begin >= _GROWN:
                begin = end - _CONTEXT
                told = self._decoded(tokens[begin:end])
        return found

    def _decoded(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=False)
        return text

    def count_characters(self, tokens: Tensor) -> int:
        """The characters that integers [N] spell, at least 1; an unknown token counts as 1, so do "ids".

        With a tokenizer, those of the text it decodes them to: its normalisation may have changed the text.
        """
        if self.kind == "tokenizer":
            return max(1, len(self.decode(tokens)))
        if self.kind == "byte":
            return count_characters(tokens)
        if self.kind == "ids":
            return max(1, tokens.numel())
        lengths = torch.tensor([len(token) for token in self.tokens])
        return max(1, int(lengths[tokens.long()].sum()))

    def to_json(self) -> str:
        """The text of a file that `load` reads."""
        held: dict[str, str | list[str] | int]
        if self.kind == "tokenizer":
            held = {"definition": self.definition}
        elif self.kind in ("character", "word"):
            held = {"tokens": list(self.tokens)}
        else:
            held = {"size": self.size}
        return json.dumps({"kind": self.kind, **held}, ensure_ascii=False) + "\n"

    @classmethod
    def load(cls, path: str | os.PathLike[str], kind: str | None = None) -> "Vocabulary":
        """What `to_json` wrote. kind: that it must be of ("byte" stands for "ids" too).

        Raises OSError, or ValueError for a file that holds no vocabulary or one of another kind.
        """
        path = path_of(path, "path")
        try:
            held = json.loads(path.read_bytes().decode())
            tokens, size, definition = held.get("tokens", ()), held.get("size", 256), held.get("definition")
            made = cls(held["kind"], tuple(tokens), size, definition or "")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a vocabulary of fusegen: {error}") from error
        if made.kind in ("character", "word") and (
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
    def _tokenizer(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ValueError("it needs the tokenizers library: pip install tokenizers") from error
        try:
            tokenizer = Tokenizer.from_str(self.definition)
        except Exception as error:  # the library raises no other class
            raise ValueError(f"it is not a file of the tokenizers library: {error}") from error
        if not tokenizer.get_vocab_size():
            raise ValueError("its vocabulary is empty")
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}


BYTES = Vocabulary("byte")

_SIGNS = {" ": "\u2423", "\N{NO-BREAK SPACE}": "\u2423", "\n": "\u21b5", "\t": "\u21e5"}


def visible(token: str) -> str:
    """A token as one can see it in a list: spaces, line ends and tabs by signs, other characters that cannot
    be printed by their code.

    token: any string.
    """
    return "".join(_SIGNS.get(c) or (c if c.isprintable() else ascii(c)[1:-1]) for c in token)


def cut(text: str, kind: str) -> Sequence[str]:
    """text -> its characters or words; joined, they are the text."""
    return text if kind == "character" else _WORD.findall(text)


def count_characters(tokens: Tensor) -> int:
    """UTF-8 characters in bytes [N] (uint8), counted by their first bytes; at least 1.

    tokens: uint8 [N]. Nothing is raised for bytes that are no UTF-8: first bytes are counted.
    """
    return max(1, int(((tokens & 0xC0) != 0x80).sum()))
