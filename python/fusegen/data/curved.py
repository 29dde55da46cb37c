"""Forecasts that are not linear: products of what matters most in each channel's own past."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor

LEADING = 3  # principal components of a channel's own past, at most
BOUND = 3.0  # deviations beyond which a component counts as this much: products do not run away
GAINS = 0.9  # held-out errors have to fall to so much of those of the usual forecast


@dataclass(frozen=True)
class Curved:
    """The products of two and of three of the leading principal components of each channel's own past, and
    what each adds to the forecast of a step.

    centres [K, n], of n steps before; ways [K, n, M]: components are (past - centres) @ ways, of deviation 1.
    weights [K Q, K], Q products a channel. float64.
    """

    centres: Tensor
    ways: Tensor
    weights: Tensor

    @classmethod
    def of(cls, before: Tensor, K: int, noise: float) -> Curved:
        """For rows of K channels' n steps before, [N, n K], with weights of 0. noise: a variance; components
        with less are left out."""
        n = before.shape[1] // K
        own = before.view(-1, n, K).movedim(2, 0)
        centres = own.mean(1)
        left = own - centres[:, None]
        variances, directions = torch.linalg.eigh(left.mT @ left / left.shape[1])
        M = min(LEADING, n)
        variances, directions = variances[:, -M:].flip(1), directions[..., -M:].flip(2)
        scaled = directions / variances.clamp(min=noise).sqrt()[:, None]
        ways = torch.where((variances > noise)[:, None], scaled, 0.0)
        return cls(centres, ways, before.new_zeros(K * _count(M), K))

    def products(self, before: Tensor) -> Tensor:
        """[N, n K] -> [N, K Q]"""
        K, n = self.centres.shape
        own = before.view(-1, n, K).movedim(2, 0)
        x = ((own - self.centres[:, None]) @ self.ways).clamp(-BOUND, BOUND)
        first, second, pair, third = (each.to(x) for each in _chosen(x.shape[2]))
        # Products with matrices of 0 and 1: indexing takes longer, above all backward.
        pairs = (x @ first) * (x @ second)
        return torch.cat((pairs, (pairs @ pair) * (x @ third)), 2).movedim(0, 1).flatten(1)

    def __call__(self, before: Tensor) -> Tensor:
        """What is added to a linear forecast: [N, n K] -> [N, K], differentiable."""
        return self.products(before) @ self.weights

    def tensors(self) -> dict[str, Tensor]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads: tensors as lists."""
        return {name: x.tolist() for name, x in self.tensors().items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Curved:
        """What `to_json` gave. Raises KeyError for a missing part."""
        return cls(*(torch.tensor(content[each.name], dtype=torch.float64) for each in fields(cls)))


def _count(M: int) -> int:
    first, _, pair, _ = _chosen(M)
    return first.shape[1] + pair.shape[1]


@lru_cache(maxsize=8)
def _chosen(M: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of M components: which are the first and the second of each pair, [M, pairs]; of each product of three,
    which pair, [pairs, threes], and which third, [M, threes]."""
    pairs = list(combinations_with_replacement(range(M), 2))
    threes = [(p, k) for p, (_, j) in enumerate(pairs) for k in range(j, M)]
    one_hot = lambda index, n: torch.eye(n)[list(index)].T.contiguous()
    return (
        one_hot((i for i, _ in pairs), M),
        one_hot((j for _, j in pairs), M),
        one_hot((p for p, _ in threes), len(pairs)),
        one_hot((k for _, k in threes), M),
    )
