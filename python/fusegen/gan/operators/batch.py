"""Minibatch standard deviation: a statistic of samples together, as channels more.

With d = sqrt(variance + eps) over the G samples of a group and z = (x - mean) / d, a part's statistic is the
mean of its n values of d, whose derivative by x is z / (G n), and z's own is (t - <t> - z <t z>) / d.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import blocks
from .operator import Operator, Parameters, Point, Second

_Kept = tuple[Tensor, tuple[Tensor, ...]]


class MinibatchStd(Operator):
    bends = True

    def __init__(self, m: blocks.MinibatchStd) -> None:
        self.m = m

    def forward(self, x: Tensor, p: Parameters, groups: tuple[int, ...]) -> _Kept:
        return torch.cat([self.m(part) for part in x.split(groups)]), ()

    def adjoint(self, u: Tensor, at: Point, p: Parameters) -> Tensor:
        return torch.cat([self._adjoint(own, x) for own, x in self._apart(at, u)])

    def _adjoint(self, u: Tensor, x: Tensor) -> Tensor:
        z, _ = self._normalised(x)
        own, of_statistic = u[:, : x.shape[1]], self._gathered(u, z)
        return own + (z * of_statistic / (z.shape[0] * z.shape[3])).view_as(x)

    def tangent(self, t: Tensor, at: Point, p: Parameters) -> Tensor:
        return torch.cat([self._tangent(own, x) for own, x in self._apart(at, t)])

    def _tangent(self, t: Tensor, x: Tensor) -> Tensor:
        z, _ = self._normalised(x)
        return self.m.joined(t, (z * self.m.parts(t)).mean((0, 3)))

    def bend(self, second: Second, p: Parameters) -> Tensor | None:
        u, t, at = second
        parts = zip(*(s.split(at.groups) for s in (at.x, u, t)), strict=True)
        return torch.cat([self._bend(*part) for part in parts])

    def _bend(self, x: Tensor, u: Tensor, t: Tensor) -> Tensor:
        z, d = self._normalised(x)
        t = self.m.parts(t)
        t = t - t.mean(0)
        t = (t - z * (t * z).mean(0)) / d
        return (t * self._gathered(u, z) / (z.shape[0] * z.shape[3])).view_as(x)

    def _apart(self, at: Point, t: Tensor) -> list[tuple[Tensor, Tensor]]:
        return list(zip(t.split(at.groups), at.x.split(at.groups), strict=True))

    def _normalised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z [group, groups, channels, rest] and d [groups, channels, rest]"""
        parts = self.m.parts(x)
        off = parts - parts.mean(0)
        d = (off.square().mean(0) + blocks.EPS).sqrt()
        return off / d, d

    def _gathered(self, u: Tensor, z: Tensor) -> Tensor:
        """The adjoints [groups, channels, 1] by the statistics, which all samples of a group have."""
        u = u[:, -self.m.channels :].flatten(2).sum(2) if u.dim() > 2 else u[:, -self.m.channels :]
        return u.reshape(z.shape[0], z.shape[1], -1).sum(0).unsqueeze(2)
