"""Token sequences that stand alone: lines and sentences of a text, kept end to end and padded on demand."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

# A full stop and the like, white space, then what may begin a sentence.
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")


def lines(text: str) -> list[str]:
    """The lines of a text, stripped, empty ones left out.

    text: any string; nothing is raised.
    """
    return [line for line in map(str.strip, text.splitlines()) if line]


def sentences(text: str) -> list[str]:
    """The sentences of a text, white space in them made one space: paragraphs end at blank lines, sentences
    at . ! or ? before white space and a capital letter, a quote or a parenthesis. Abbreviations cut too.

    text: any string; nothing is raised.
    """
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        found += _SENTENCE.split(" ".join(paragraph.split()))
    return [sentence for sentence in found if sentence]


class Ragged:
    """Sequences of tokens, end to end in one tensor.

    rows: integers [T_i]; an empty one is allowed. lengths: int64 [N].

    Nothing is checked: rows that are no vectors end in torch's own errors.
    """

    def __init__(self, rows: Sequence[Tensor]):
        self.lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        self.tokens = torch.cat([row.int() for row in rows]) if rows else torch.empty(0, dtype=torch.int32)
        self._starts = self.lengths.cumsum(0) - self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def padded(self, index: Tensor | slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Those at `index`: (tokens int64 [T, B], 0 past each end, T at least 1; lengths int64 [B])."""
        lengths, starts = self.lengths[index], self._starts[index]
        T = max(1, int(lengths.max())) if len(lengths) else 1
        steps = torch.arange(T).unsqueeze(1)
        within = steps < lengths
        tokens = torch.zeros(within.shape, dtype=torch.int64)
        tokens[within] = self.tokens[(starts + steps)[within]].long()
        return tokens, lengths
