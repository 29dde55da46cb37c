"""Measures of drawn stretches of text, as tokens: pairs of neighbours, and how many differ."""

from __future__ import annotations

import torch
from torch import Tensor

from .._arguments import whole
from ._checks import check_tokens


def bigram_divergence(real: Tensor, fake: Tensor, vocab_size: int) -> float:
    """The Jensen-Shannon divergence, in bits, between the pairs of neighbouring tokens of two texts: 0 for
    equal shares, 1 for disjoint ones (Lin 1991, "Divergence measures based on the Shannon entropy"); lower is
    better. Finite samples bias it upwards: compare figures of equal numbers.

    real: the data's tokens, integers [N], or [T, B] for B sequences, which are read down dim 0. fake: the
    generated ones, in either shape. vocab_size: tokens are from 0 to vocab_size - 1.

    Raises TypeError or ValueError, naming the argument, for what are no such tokens, for a ``vocab_size``
    below 1 and for a text without a pair.
    """
    V = whole("vocab_size", vocab_size, 1)
    for name, x in (("real", real), ("fake", fake)):
        check_tokens(name, x, V)
        if len(x) < 2 or not x.numel():
            raise ValueError(f"{name}: expected at least two tokens, got shape {list(x.shape)}")
    return jensen_shannon(*(_pairs(x, V).double() for x in (real, fake)))


def unique_share(samples: Tensor) -> float:
    """The share, 0 to 1, of sequences that are like no other of them; 1 where all differ. No paper defines
    it: it counts.

    samples: B sequences of T tokens, integers [T, B]. Raises TypeError or ValueError, naming the argument,
    for what are none, and where there is no sequence (B = 0).
    """
    _check_samples(samples)
    return _counts(samples).eq(1).sum().item() / samples.shape[1]


def copied_share(samples: Tensor, text: Tensor) -> float:
    """The share, 0 to 1, of sequences that stand in a text as they are, token by token; 0 where the text is
    shorter than they are. No paper defines it: it counts.

    samples: B sequences of T tokens, integers [T, B]. text: the data's tokens, integers [N]. Raises
    TypeError or ValueError, naming the argument, for what are none, and where there is no sequence (B = 0).
    """
    _check_samples(samples)
    check_tokens("text", text, dims=(1,))
    T, B = samples.shape
    if len(text) < T:
        return 0.0
    stretches = text.unfold(0, T, 1)
    # Sequences of the text by a hash first: there are too many to compare each with each.
    weights = torch.randint(-(2**62), 2**62, (T,), generator=torch.Generator().manual_seed(0))
    of_text, own = (stretches.long() * weights).sum(1), (samples.long() * weights[:, None]).sum(0)
    order = of_text.argsort(stable=True)
    place = torch.searchsorted(of_text[order], own).clamp(max=len(order) - 1)
    found = stretches[order[place]].long() == samples.T.long()
    return found.all(1).sum().item() / B


def _check_samples(samples: Tensor) -> None:
    check_tokens("samples", samples, dims=(2,))
    if not samples.numel():
        raise ValueError(f"samples: expected at least one token, got shape {list(samples.shape)}")


def jensen_shannon(a: Tensor, b: Tensor) -> float:
    """The Jensen-Shannon divergence of two counts [K], in bits."""
    p, q = a / a.sum(), b / b.sum()
    middle = (p + q) / 2
    sides = [torch.where(x > 0, x * (x / middle).log2(), 0.0).nansum() for x in (p, q)]
    return ((sides[0] + sides[1]) / 2).item()


def _pairs(x: Tensor, V: int) -> Tensor:
    """How often each of V * V pairs follows itself down dim 0: [V * V]."""
    return torch.bincount((x[:-1].long() * V + x[1:].long()).flatten(), minlength=V * V)


def _counts(samples: Tensor) -> Tensor:
    """Of each different sequence of [T, B], how often it is there."""
    counts: Tensor = samples.unique(dim=1, return_counts=True)[1]
    return counts
