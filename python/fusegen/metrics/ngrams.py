"""Models of text by counting: a baseline to draw from, and a judge of what others write."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .._arguments import whole, wholes
from ._checks import check_tokens


class NGram:
    """An interpolated n-gram model with the weights of Witten and Bell (1991; Chen and Goodman 1999, eq. 17
    and 18): a context that n tokens of t kinds have followed gives n / (n + t) to its own shares and the rest
    to those of the context one token shorter, the shortest to all tokens evenly.

    order: tokens that a chance looks at, itself included (2: a bigram model). vocab_size: of the tokens 0 to
    vocab_size - 1. Raises TypeError or ValueError, naming the argument.
    """

    def __init__(self, order: int, vocab_size: int) -> None:
        self.order, self.vocab_size = whole("order", order, 1), whole("vocab_size", vocab_size, 1)
        self._after: list[dict[tuple[int, ...], Counter[int]]] = [
            defaultdict(Counter) for _ in range(self.order)
        ]

    def fit(self, tokens: Tensor) -> NGram:
        """Counts integers [N] (or those of sequences [T, B], each by itself); adds to what was counted."""
        for row in self._rows(tokens):
            for length, after in enumerate(self._after):
                for i in range(length, len(row)):
                    after[tuple(row[i - length : i])][row[i]] += 1
        return self

    def chances(self, before: Sequence[int]) -> Tensor:
        """Of each token after those, of which the last order - 1 count: float64 [vocab_size]. Raises
        TypeError or ValueError, naming ``before``, for what are no such tokens."""
        if any(token >= self.vocab_size for token in wholes("before", before, 0)):
            most = self.vocab_size - 1
            raise ValueError(f"before: expected values from 0 to {most}, got {max(before)}")
        return self._chances(before)

    def _chances(self, before: Sequence[int]) -> Tensor:
        p = torch.full((self.vocab_size,), 1 / self.vocab_size, dtype=torch.float64)
        for length in range(min(self.order - 1, len(before)) + 1):
            found = self._after[length].get(tuple(before[len(before) - length :]))
            if found:
                n, kinds = found.total(), len(found)
                p *= kinds / (n + kinds)
                index = torch.tensor(list(found))
                p[index] += torch.tensor(list(found.values()), dtype=torch.float64) / (n + kinds)
        return p

    def nats(self, tokens: Tensor) -> float:
        """-log p of integers [N] or of sequences [T, B], each read from its own beginning, summed."""
        return -math.fsum(
            math.log(self._chance(row[max(0, i - self.order + 1) : i], token))
            for row in self._rows(tokens)
            for i, token in enumerate(row)
        )

    def sample(self, n: int, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """n sequences of so many steps, int64 [steps, n]."""
        drawn = torch.zeros(whole("steps", steps, 1), whole("n", n, 1), dtype=torch.int64)
        known: dict[tuple[int, ...], Tensor] = {}
        for b in range(n):
            row: list[int] = []
            for t in range(steps):
                context = tuple(row[max(0, t - self.order + 1) :])
                if context not in known:
                    known[context] = self._chances(context).cumsum(0)
                level = torch.rand((), dtype=torch.float64, generator=generator) * known[context][-1]
                row.append(
                    min(int(torch.searchsorted(known[context], level, right=True)), self.vocab_size - 1)
                )
            drawn[:, b] = torch.tensor(row)
        return drawn

    def _chance(self, before: list[int], token: int) -> float:
        """One of `chances`."""
        p = 1 / self.vocab_size
        for length in range(len(before) + 1):
            found = self._after[length].get(tuple(before[len(before) - length :]))
            if found:
                n, kinds = found.total(), len(found)
                p = (found.get(token, 0) + kinds * p) / (n + kinds)
        return p

    def _rows(self, tokens: Tensor) -> Iterator[list[int]]:
        """Raises TypeError or ValueError for what are no such tokens."""
        check_tokens("tokens", tokens, self.vocab_size)
        for row in tokens.unsqueeze(1).T if tokens.dim() == 1 else tokens.T:
            yield row.tolist()
