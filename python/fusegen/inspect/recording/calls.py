"""The call of one layer, alike for every kind of layer and cell: run with what it saves, and cut by direction
and by steps.

Notation as everywhere: T steps, B batch, I input, H hidden, P what h holds, D directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from ... import _backend

Weights = Sequence[Tensor | None]


@dataclass(frozen=True)
class Made:
    """What a layer's call gave, and of what it saved for backward: gates [D, T, B, n*H], post-activation, one
    beside the other in the order of ``names``, None of a cell without any; cells [D, T, B, H], an LSTM's."""

    y: Tensor  # [T, B, D*P]
    states: tuple[Tensor, ...]  # [D, B, P], and of an LSTM [D, B, H]
    gates: Tensor | None = None
    cells: Tensor | None = None


@dataclass(frozen=True)
class LayerCall:
    """The arguments of one layer's call. ``per`` weights a direction, R [G*H, ...] the second of them;
    ``names``: of the gates; ``run_it`` runs the kernels. Of a cell T is 1."""

    run_it: Callable[[LayerCall], Made]
    x: Tensor  # [T, B, I]
    h: Tensor | None  # [D, B, P]
    c: Tensor | None  # [D, B, H]
    weights: Weights
    per: int
    names: tuple[str, ...]
    has_c: bool
    sizes: tuple[int, int]  # P, H
    lengths: Tensor | None = None  # [B]
    resets: Tensor | None = None  # [T, B] bool
    reset_h: Tensor | None = None  # [D, B, P]
    reset_c: Tensor | None = None  # [D, B, H]
    draws: bool = False  # masks, which are those of one call

    @property
    def directions(self) -> int:
        return len(self.weights) // self.per

    @property
    def has_gradient(self) -> bool:
        return _backend.needs_grad(self.x, self.h, self.c, *self.weights, self.reset_h, self.reset_c)

    def run(self) -> Made:
        return self.run_it(self)

    def of_direction(self, d: int) -> LayerCall:
        """One direction of it, as a layer of its own; its steps are still to be put in order."""
        if self.directions == 1:
            return self
        h, c, reset_h, reset_c = (
            None if s is None else s[d : d + 1] for s in (self.h, self.c, self.reset_h, self.reset_c)
        )
        weights = self.weights[d * self.per : (d + 1) * self.per]
        return replace(self, weights=weights, h=h, c=c, reset_h=reset_h, reset_c=reset_c)


@dataclass(frozen=True)
class OwnSteps:
    """The steps of one direction, counted in the order in which it takes them: s of 0..T. ``d`` 1 begins at
    each sequence's end."""

    call: LayerCall  # of all directions
    d: int

    def places(self, begin: int, end: int) -> Tensor:
        """Where the steps begin..end lie in x: t [end - begin, B]. Past a sequence's end each stays where it
        is."""
        B = self.call.x.shape[1]
        if self.d == 0 or self.call.lengths is None:
            return self.together(begin, end).unsqueeze(1).expand(-1, B)
        s = torch.arange(begin, end, device=self.call.x.device).unsqueeze(1).expand(-1, B)
        lengths = self.call.lengths.to(s.device)
        return torch.where(s < lengths, lengths - 1 - s, s)

    def together(self, begin: int, end: int) -> Tensor:
        """t [end - begin], where it is the same for the whole batch."""
        s = torch.arange(begin, end, device=self.call.x.device)
        return self.call.x.shape[0] - 1 - s if self.d else s

    def part(self, begin: int, end: int, states: Sequence[Tensor | None]) -> LayerCall:
        """The steps begin..end as a call of their own, which starts from these states [1, B, n]."""
        one, (T, _, I) = self.call.of_direction(self.d), self.call.x.shape
        lengths, resets = one.lengths, one.resets
        if self.d == 0:
            x, at = one.x[begin:end], None if resets is None else resets[begin:end]
        elif lengths is None:
            x = one.x[T - end : T - begin].flip(0)
            at = None if resets is None else _before(resets)[T - end : T - begin].flip(0)
        else:
            t = self.places(begin, end)
            x = one.x.gather(0, t.unsqueeze(-1).expand(-1, -1, I))
            at = None if resets is None else _before(resets).gather(0, t)
            if at is not None:  # behind each sequence's last step no boundary counts
                at = at & (t + 1 < lengths.to(t.device))
        within = None if lengths is None else (lengths - begin).clamp(0, end - begin)
        h, c = (*states, None)[:2]
        return replace(one, x=x, h=h, c=c, lengths=within, resets=at)


def _before(resets: Tensor) -> Tensor:
    """Whether the reverse direction starts anew before it takes step t: the boundary between t and t + 1."""
    return torch.cat([resets[1:], resets.new_zeros(1, resets.shape[1])])


@dataclass(frozen=True)
class Place:
    """Where a part's steps lie in x, of direction ``d``: t [n] where that is the same for the whole batch,
    and side by side; else t [n, B]."""

    t: Tensor
    d: int

    def put(self, y: Tensor, part: Tensor) -> Tensor:
        """y [T, B, P] with these steps set: in place, unless a gradient is recorded."""
        if part.requires_grad or y.requires_grad:
            t = self.t if self.t.dim() == 2 else self.t.unsqueeze(1)
            return y.scatter(0, t.unsqueeze(-1).expand_as(part), part)
        if self.t.dim() == 2:
            return y.scatter_(0, self.t.unsqueeze(-1).expand_as(part), part)
        low = int(self.t.min())
        y[low : low + len(part)] = part.flip(0) if self.d else part
        return y


Run = Callable[[LayerCall], Made]


def run_in_parts(
    call: LayerCall,
    run: Run,
    cuts: Callable[[int], Sequence[int]],
    look: Callable[[LayerCall, Made, Place], Made],
) -> Made:
    """The call in parts, each direction by itself: of direction d from one of ``cuts(d)`` to the next, 0 and
    T included. ``look`` sees each part, its result and where its steps lie, and gives what goes on."""
    (T, B, _), D, P = call.x.shape, call.directions, call.sizes[0]
    whole: Tensor | None = None  # where no gradient is recorded
    of_directions: list[Tensor] = []
    finals: list[tuple[Tensor, ...]] = []
    for d in range(D):
        own, one, y = OwnSteps(call, d), call.of_direction(d), None
        states: Sequence[Tensor | None] = (one.h, one.c)[: 2 if call.has_c else 1]
        for begin, end in pairwise(cuts(d)):
            part, together = own.part(begin, end, states), d == 0 or call.lengths is None
            at = Place(own.together(begin, end) if together else own.places(begin, end), d)
            made = look(part, run(part), at)
            states = made.states
            if y is None and made.y.requires_grad:
                y = made.y.new_zeros(T, B, P)
            elif y is None:
                whole = made.y.new_zeros(T, B, D * P) if whole is None else whole
                y = whole[..., d * P : (d + 1) * P]
            y = at.put(y, made.y)
        assert y is not None
        of_directions.append(y)
        finals.append(tuple(s for s in states if s is not None))
    if whole is None or any(y.requires_grad for y in of_directions):
        whole = torch.cat(of_directions, -1) if D > 1 else of_directions[0]
    return Made(whole, tuple(torch.cat(s) if D > 1 else s[0] for s in zip(*finals, strict=True)))
