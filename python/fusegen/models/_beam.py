"""Beam search over sequences that a step function scores token by token, for a batch at a time."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ._sequences import trimmed


class Decoded(NamedTuple):
    """Decoded sequences, of a batch [B] or of the beams of one [B, W], the best first.

    tokens: int64 [T, B] or [T, B, W], without the end, 0 past it. lengths: int64 [B] or [B, W], how many of
    them are each sequence's own. log_probabilities: floating, of the shape of lengths, log p of the tokens
    and their end, in nats.
    """

    tokens: Tensor  # int64 [T, B] or [T, B, W], 0 past each end; T is the longest, at least 1
    lengths: Tensor  # int64 [B] or [B, W], without the end
    log_probabilities: Tensor  # [B] or [B, W]: log p of the tokens and their end, in nats


class _Found(NamedTuple):
    """The best sequences that have ended, by falling score; where there are fewer than W, log p is -inf."""

    scores: Tensor  # [B, W]
    log_p: Tensor  # [B, W]
    lengths: Tensor  # [B, W]
    tokens: Tensor  # [B, W, max_length, or 1 if that is 0]

    def with_more(self, other: "_Found") -> "_Found":
        width = self.scores.shape[1]
        both = [torch.cat(parts, 1) for parts in zip(self, other, strict=True)]
        best = both[0].topk(width)[1]
        return _Found(*(_take(part, best) for part in both))


def beam_search(
    step: Callable[[Tensor, Tensor], Tensor],
    first: Tensor,
    width: int,
    max_length: int,
    length_penalty: float,
) -> Decoded:
    """The sequences of up to max_length tokens with the highest log p / (length + 1) ** length_penalty.

    step: (last tokens [B, W], parents [B, W]) -> log p of each next token [B, W, V], whose last class is the
    end. Row w goes on from what was row parents[:, w] at the call before. first: the first last tokens, [B].

    Of the W likeliest continuations of all rows, those that end are kept, by score; the W likeliest others go
    on. A search is over when W have ended and the best of them scores no less than any that goes on does so
    far. At max_length the end alone may follow, so log p is always that of a whole sequence. Where fewer than
    W sequences exist, the last have length 0 and log p -inf.
    """
    B, W = len(first), width
    rows = torch.arange(W, device=first.device)
    last, parents = first.unsqueeze(1).expand(B, W), rows.expand(B, W)
    tokens = first.new_zeros(B, W, max(max_length, 1))
    none = torch.full((B, W), -torch.inf, device=first.device)
    alive = none.where(rows > 0, 0.0)  # all rows are the same at first: one of them counts
    found = _Found(none, none, torch.zeros_like(last), tokens)
    over = torch.zeros(B, 1, dtype=torch.bool, device=first.device)
    for t in range(max_length + 1):
        log_p = step(last, parents)
        end = log_p.shape[-1] - 1
        log_p = alive.unsqueeze(2) + log_p
        if t == max_length:
            log_p[..., :end] = -torch.inf
        best, index = log_p.flatten(1).topk(2 * W)  # at most W of them are ends
        parents, last = index // (end + 1), index % (end + 1)
        ends = last == end

        ended = best[:, :W].masked_fill(~ends[:, :W] | over, -torch.inf)
        scores = ended / (t + 1) ** length_penalty
        lengths = torch.full_like(found.lengths, t).masked_fill(ended == -torch.inf, 0)
        found = found.with_more(_Found(scores, ended, lengths, _take(tokens, parents[:, :W])))
        alive, order = best.masked_fill(ends, -torch.inf).topk(W)
        full = found.log_p[:, -1:] > -torch.inf
        over = over | full & (alive[:, :1] / (t + 1) ** length_penalty <= found.scores[:, :1])
        if t == max_length or over.all():
            break

        parents, last = parents.gather(1, order), last.gather(1, order)
        tokens = _take(tokens, parents)
        tokens[..., t] = last

    tokens = found.tokens.masked_fill(found.log_p.unsqueeze(2) == -torch.inf, 0)
    return Decoded(trimmed(tokens.permute(2, 0, 1), found.lengths), found.lengths, found.log_p)


def _take(rows: Tensor, index: Tensor) -> Tensor:
    """rows [B, N, ...] of index [B, K] -> [B, K, ...]."""
    index = index.view(*index.shape, *[1] * (rows.dim() - 2))
    return rows.gather(1, index.expand(-1, -1, *rows.shape[2:]))
