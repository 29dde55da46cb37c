"""Which tokens drive a unit most."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ... import _arguments
from ..recording.recorded import Plane
from .values import beside, check_fits, parts, values_of

_WHAT = "fusegen.inspect.drivers"


class Driver(NamedTuple):
    """A token, by how much it moves a unit on average, and how often it was read."""

    token: int
    effect: float
    count: int  # type: ignore[assignment]  # the name, which hides a tuple's method, is public


class Drivers(NamedTuple):
    """Of the K tokens that were read: tokens int64 [K], in rising order; counts int64 [K]; effects [K, U]: by
    how much each unit's value changes, on average, in a step that reads the token. share [U]: what part of
    the variance of a unit's changes the token just read explains: near 1 the unit echoes its input, near 0
    it goes by what it remembers. All in float64."""

    tokens: Tensor
    counts: Tensor
    effects: Tensor
    share: Tensor

    def most(self, unit: int, top: int = 8, least: int = 5) -> tuple[list[Driver], list[Driver]]:
        """(those that raise the unit most, those that lower it most), the strongest first, ``top`` of each
        at most, of tokens read ``least`` times or more. Raises TypeError or ValueError for a unit that does
        not exist."""
        unit = _arguments.whole(f"{_WHAT}: unit", unit, 0, self.effects.shape[1] - 1)
        top, least = _arguments.whole(f"{_WHAT}: top", top, 1), _arguments.whole(f"{_WHAT}: least", least, 1)
        often = (self.counts >= least).nonzero().flatten()
        order = often[self.effects[often, unit].argsort(descending=True, stable=True)].tolist()
        found = [
            Driver(int(self.tokens[k]), self.effects[k, unit].item(), int(self.counts[k])) for k in order
        ]
        up = [each for each in found if each.effect > 0][:top]
        return up, [each for each in reversed(found) if each.effect < 0][:top]


def drivers(values: Plane | Tensor, tokens: Tensor, *, array: str | None = None) -> Drivers:
    """Which tokens drive each unit: the mean change of its value from the step before to the step that reads
    a token, by token (what Karpathy et al. 2015, arXiv:1506.02078, section 4.2, read off by eye).

    Args:
        values: a plane of ``record``, of all steps, or a Tensor [T, B, U] (or [T, U]). May be a memory map
            that is longer than memory; it is read a stretch at a time.
        tokens: integers [T, B]: what the layer read at each step.
        array: of a plane; by default "c" where there is one, else "h".

    The first step of each sequence is left out, and padding. Raises TypeError or ValueError, which name the
    argument, and ValueError where there are not two steps; MemoryError where a table of tokens by units does
    not fit.
    """
    held, mask = values_of(_WHAT, values, array)
    read = beside(_WHAT, "tokens", tokens, held)
    mask = mask.cpu()
    live = mask[1:] & mask[:-1]
    if not live.any():
        raise ValueError(f"{_WHAT}: expected two steps or more of a sequence, got {len(held)}")
    known, at = read[1:][live].unique(return_inverse=True)
    places = torch.full(live.shape, -1)
    places[live] = at
    U = held.shape[2]
    check_fits(_WHAT, 16 * len(known) * U, "record fewer units (units=), or give fewer tokens")
    sums, squares = torch.zeros(len(known), U, dtype=torch.float64), torch.zeros(U, dtype=torch.float64)
    for begin, end in parts(held[1:]):
        change = held[begin + 1 : end + 1].cpu().double() - held[begin:end].cpu().double()
        moved = change[live[begin:end]]
        sums.index_add_(0, places[begin:end][live[begin:end]], moved)
        squares += moved.square().sum(0)
    counts = at.bincount(minlength=len(known))
    effects = sums / counts.unsqueeze(1)
    mean = sums.sum(0) / counts.sum()
    total = squares - counts.sum() * mean.square()
    between = (counts.unsqueeze(1) * (effects - mean).square()).sum(0)
    share = torch.where(total > 0, between / total.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    return Drivers(known, counts, effects, share.clamp(0, 1))
