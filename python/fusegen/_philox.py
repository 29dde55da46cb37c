"""Random masks as csrc/kernels/philox.h makes them, bit for bit, in plain torch: Philox 4x32-10 (Salmon et
al. 2011, "Parallel random numbers: as easy as 1, 2, 3")."""

from __future__ import annotations

import torch
from torch import Tensor

from ._inside import single

_WORD = 0xFFFFFFFF
_GROUP = 16  # blocks that lie side by side: a vector of up to so many neighbours is one word of each


def words(key: Tensor, mask: int, place: int, block: Tensor) -> tuple[Tensor, ...]:
    """The four random words of each block, as int64; key a single int64, block int64 of any shape."""
    k0, k1 = key & _WORD, (key >> 32) & _WORD
    w = (block & _WORD, (block >> 32) & _WORD, torch.full_like(block, place), torch.full_like(block, mask))
    for _ in range(10):
        # of a product that wraps, the bits are those of the unsigned one
        a, b = w[0] * 0xD2511F53, w[2] * 0xCD9E8D57
        w = (
            ((b >> 32) & _WORD) ^ w[1] ^ k0,
            b & _WORD,
            ((a >> 32) & _WORD) ^ w[3] ^ k1,
            a & _WORD,
        )
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return w


def below(key: Tensor, mask: int, place: int, rows: Tensor, n: int, probability: float) -> Tensor:
    """[len(rows), n] bool: of the ``rows`` of a mask of n elements each, whose words are below this share of
    all. They lie where ``rows`` does."""
    groups = (n + 4 * _GROUP - 1) // (4 * _GROUP)
    lane = torch.arange(groups * _GROUP, device=rows.device)
    block = rows.view(-1, 1) * (groups * _GROUP) + lane
    made = torch.stack(words(key.to(rows.device), mask, place, block), 1)  # [rows, 4, groups * 16]
    made = made.view(-1, 4, groups, _GROUP).transpose(1, 2).reshape(len(rows), 4 * groups * _GROUP)
    return made[:, :n] < int(probability * 4294967296.0)


def dropped(key: Tensor, mask: int, place: int, rows: Tensor, n: int, rate: float) -> Tensor:
    """The same of a recurrent layer's mask, whose rate is float32: which elements are dropped (of zoneout:
    keep their old state)."""
    return below(key, mask, place, rows, n, single(rate))
