"""The gradients of a layer or a cell where those of the weights stay apart for each group of the batch: one
backward of the recurrence, which gives the gates' gradients, then one batched product a weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ... import _C
from ..layout import dense, dense_all, present, rows
from ..spec import GRU, CellSpec

Tensors = Sequence[Tensor | None]


class Gates(NamedTuple):
    """What a backward of the recurrence gives. ``dgates`` [T, B, D*n*H]: of the gates before their
    activations, n being 4 of LSTM and GRU (n_x, r, z, n_h), 1 of an RNN; ``dh`` [T, B, D*P]: of the
    projection's product, where there is one. Both are zero past a sequence's end."""

    dx: Tensor | None
    dh0: Tensor | None
    dc0: Tensor | None
    dgates: Tensor
    dh: Tensor | None


GateGradients = Callable[[tuple[object, ...], Tensors, Tensors, Sequence[bool]], Gates]


class Sequences(NamedTuple):
    """What a layer was given and kept, and in how many groups its batch is."""

    spec: CellSpec
    groups: int
    x: Tensor
    h0: Tensor | None
    weights: Tensors
    lengths: Tensor | None
    kept: Tensors  # y, gates, cells

    @property
    def past(self) -> Tensor | None:
        """Where there is nothing [T, B, 1]: it must not matter, NaN included."""
        if self.lengths is None:
            return None
        steps = torch.arange(self.x.shape[0], device=self.x.device).unsqueeze(1)
        return (steps >= self.lengths).unsqueeze(-1)

    def states_before(self, d: int) -> Tensor:
        """The h that each step of direction d read [T, B, P]."""
        (T, B, _), R = self.x.shape, self.weights[1]
        assert R is not None
        P, y = R.shape[1], self.kept[0]
        start = self.x.new_zeros(1, B, P) if self.h0 is None else self.h0[d : d + 1]
        if T == 1:
            return start
        assert y is not None
        y = y[..., d * P : (d + 1) * P]
        if d == 0:
            return torch.cat([start, y[:-1]])
        before = torch.cat([y[1:], start])
        if self.lengths is None:
            return before
        last = torch.arange(T, device=y.device).unsqueeze(1) == self.lengths - 1
        return torch.where(last.unsqueeze(-1), start, before)

    def hidden(self, d: int) -> Tensor:
        """What the projection of direction d multiplied [T, B, H]."""
        _, gates, cells = self.kept
        assert gates is not None and cells is not None
        H = cells.shape[-1]
        return gates[d, ..., 3 * H :] * torch.tanh(cells[d])


def of_weights(given: Sequences, gates: Gates, wanted: Sequence[bool]) -> list[Tensor]:
    """The gradients wanted of the weights, each [groups, ...]: of group g, the samples from g * B / groups
    on."""
    # each thread of the engine's has a group's steps beside it: of few groups, as many copies as threads
    engine = given.x.is_cpu and given.groups >= torch.get_num_threads()
    return (by_engine if engine else by_torch)(given, gates, wanted)


def by_torch(given: Sequences, gates: Gates, wanted: Sequence[bool]) -> list[Tensor]:
    """By batched products of torch's."""
    spec, past, names = given.spec, given.past, given.spec.weights
    per = len(names) if len(given.weights) % len(names) == 0 else len(given.weights)  # a cell has fewer
    R = given.weights[1]
    assert R is not None
    H = R.shape[0] // spec.gates

    def masked(t: Tensor) -> Tensor:
        return t if past is None else t.masked_fill(past, 0)

    def product(a: Tensor, b: Tensor) -> Tensor:
        """The sum of a [T, B, m] times b [T, B, n] over each group."""
        left = _apart(a, given.groups).permute(1, 3, 0, 2).flatten(2)
        right = _apart(masked(b).to(a.dtype), given.groups).transpose(0, 1).flatten(1, 2)
        return torch.bmm(left, right).to(given.x.dtype)

    out = []
    for d in range(len(given.weights) // per):
        g = gates.dgates.unflatten(-1, (-1, gates.dgates.shape[-1] * per // len(given.weights)))[..., d, :]
        of_x, of_h = (torch.cat([g[..., H : 3 * H], g[..., :H]], -1), g[..., H:]) if spec is GRU else (g, g)
        for name in (n for n, w in zip(names, wanted[d * per : (d + 1) * per], strict=False) if w):
            if name == "W":
                out.append(product(of_x, given.x))
            elif name == "R":
                out.append(product(of_h, given.states_before(d)))
            elif name == "W_hr":
                assert gates.dh is not None
                P = R.shape[1]
                out.append(product(gates.dh[..., d * P : (d + 1) * P], given.hidden(d)))
            else:
                sums = _apart(of_x if name == "b_ih" else of_h, given.groups).sum((0, 2))
                out.append(sums.to(given.x.dtype))
    return out


def by_engine(given: Sequences, gates: Gates, wanted: Sequence[bool]) -> list[Tensor]:
    """By the engine's, on the CPU."""
    x, weights, missing = given.x, [*given.weights], -len(given.weights) % len(given.spec.weights)
    weights += [None] * missing  # of a cell, which has fewer
    out = [
        x.new_empty(given.groups, *w.shape) if n and w is not None else None
        for w, n in zip(weights, (*wanted, *[False] * missing), strict=True)
    ]
    y, saved, cells = given.kept if gates.dh is not None else (given.kept[0], None, None)
    _C.layer_group_gradients(
        given.spec.engine_names[0], given.groups, rows(x), dense(given.h0), dense_all(weights), given.lengths,
        y if x.shape[0] > 1 else None, saved, cells, gates.dgates, gates.dh, out, torch.get_num_threads(),
    )  # fmt: skip
    return present(out)


def _apart(t: Tensor, groups: int) -> Tensor:
    """t [T, B, n] as [T, groups, B / groups, n]."""
    return t.reshape(t.shape[0], groups, t.shape[1] // groups if groups else 0, t.shape[2])
