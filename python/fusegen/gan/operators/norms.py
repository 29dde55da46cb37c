"""Norms: y = w z + b with z = (x - mean) r, r = 1 / sqrt(variance + eps), over a sample's features
(LayerNorm) or over a group's samples (BatchNorm, which ties them together).

Over one set of n numbers, with <.> the mean over it, J t = w r (t - <t> - z <t z>), symmetric but for w.
With g = w u, f = n r (<g t> - <g><t> - <g z><t z>) is <u, J t>, and its gradient by x

    -r^2 [z (<g t> - <g><t> - 3 <g z><t z>) + <t z> (g - <g>) + <g z> (t - <t>)]

since dr/dx = -r^2 z / n and d<c z>/dx = r (c - <c> - z <c z>) / n. By w it is u r (t - <t> - z <t z>),
summed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .operator import Operator, Parameters, Point, Second, size_of

_aten = torch.ops.aten
_Kept = tuple[Tensor, tuple[Tensor, ...]]
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def _statistics(x: Tensor, dims: list[int], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, r and variance over these dims, which are kept. With ``_through`` what is to be differentiated
    more than twice, as torch's own double backward of norms cannot be: it takes these for constants."""
    mean = x.mean(dims, keepdim=True)
    var = (x - mean).square().mean(dims, keepdim=True)
    return mean, (var + eps).rsqrt(), var


def _through(c: Tensor, z: Tensor, r: Tensor, dims: list[int]) -> Tensor:
    """r (c - <c> - z <c z>)"""
    return r * (c - c.mean(dims, keepdim=True) - z * (c * z).mean(dims, keepdim=True))


def _affine(z: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
    z = z if w is None else z * w
    return z if b is None else z + b


def _bent(z: Tensor, r: Tensor, g: Tensor, t: Tensor, dims: list[int]) -> Tensor:
    """The gradient above."""

    def mean(c: Tensor) -> Tensor:
        return c.mean(dims, keepdim=True)

    g, t = g - mean(g), t - mean(t)
    gz, tz = mean(g * z), mean(t * z)
    return (z * (mean(g * t) - 3 * gz * tz)).add_(tz * g).add_(gz * t).mul_(-r * r)


class LayerNorm(Operator):
    count = 2
    kept = 2
    bends = True

    def __init__(self, m: nn.LayerNorm) -> None:
        self.m = m
        self.shape = list(m.normalized_shape)
        self.dims = list(range(-len(self.shape), 0))

    def parameters(self) -> tuple[Tensor | None, ...]:
        return self.m.weight, self.m.bias

    def size(self) -> int:
        return size_of(self.m)

    def forward(self, x: Tensor, p: Parameters, groups: tuple[int, ...]) -> _Kept:
        if torch.is_grad_enabled():
            mean, r, _ = _statistics(x, self.dims, self.m.eps)
            return _affine((x - mean) * r, p[0], p[1]), (mean, r)
        y, mean, r = torch.native_layer_norm(x, self.shape, p[0], p[1], self.m.eps)
        return y, (mean, r)

    def adjoint(self, u: Tensor, at: Point, p: Parameters) -> Tensor:
        if torch.is_grad_enabled():
            g = u if p[0] is None else u * p[0]
            return _through(g, self._normalised(at), at.extra[1], self.dims)
        return self._backward(u, at, p[0], [True, False, False])[0]

    def tangent(self, t: Tensor, at: Point, p: Parameters) -> Tensor:
        t = self._backward(t, at, None, [True, False, False])[0]
        return t if p[0] is None else t * p[0]

    def bend(self, second: Second, p: Parameters) -> Tensor | None:
        u, t, at = second
        z, r = self._normalised(at), at.extra[1]
        return _bent(z, r, u if p[0] is None else u * p[0], t, self.dims)

    def gradients(
        self, a: Tensor, second: Second, at: Point, p: Parameters, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        if not any(wanted):
            return None, None
        _, dw, db = self._backward(a, at, p[0], [False, *wanted])
        if wanted[0]:
            u, t, here = second
            more = u * self._backward(t, here, None, [True, False, False])[0]
            dw = dw + more.sum(list(range(more.dim() - len(self.shape))))
        return (dw if wanted[0] else None), (db if wanted[1] else None)

    def _normalised(self, at: Point) -> Tensor:
        mean, r = at.extra
        return (at.x - mean) * r

    def _backward(
        self, u: Tensor, at: Point, w: Tensor | None, wanted: list[bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        b = w if wanted[2] else None  # only its shape is read
        dx, dw, db = _aten.native_layer_norm_backward(
            u.contiguous(), at.x, self.shape, *at.extra, w, b, wanted
        )
        return dx, dw, db


class BatchNormalised(Operator):
    """A batch norm in training mode, each group by itself."""

    count = 2
    kept = 3
    by_group = True
    bends = True

    def __init__(self, m: BatchNorm) -> None:
        self.m = m

    def statistics(self, at: Point) -> tuple[Tensor, Tensor]:
        """The groups' means and unbiased variances [groups, C]."""
        return at.extra[0], at.extra[2]

    @torch.no_grad()
    def track(self, mean: Tensor, var: Tensor) -> None:
        """Moves the running statistics by those of a group [C], as a pass over it would."""
        m = self.m
        if not m.track_running_stats or m.running_mean is None or m.running_var is None:
            return
        share = 0.0 if m.momentum is None else m.momentum
        if m.num_batches_tracked is not None:
            m.num_batches_tracked.add_(1)
            if m.momentum is None:
                share = 1 / m.num_batches_tracked.item()
        m.running_mean.mul_(1 - share).add_(mean, alpha=share)
        m.running_var.mul_(1 - share).add_(var, alpha=share)

    def parameters(self) -> tuple[Tensor | None, ...]:
        return self.m.weight, self.m.bias

    def size(self) -> int:
        return size_of(self.m)

    def forward(self, x: Tensor, p: Parameters, groups: tuple[int, ...]) -> _Kept:
        found: tuple[list[Tensor], ...] = [], [], [], []
        for part in x.split(groups):
            mean, var = part.new_zeros(2, part.shape[1]).unbind()  # moved all the way: what torch would track
            if torch.is_grad_enabled():
                own, centre, r, var = self._formula(part, p)
            else:
                own, centre, r = torch.ops.aten.native_batch_norm(
                    part, p[0], p[1], mean, var, True, 1.0, self.m.eps
                )
            for kept, t in zip(found, (own, centre, r, var), strict=True):
                kept.append(t)
        y, centres, rs, variances = found
        return torch.cat(y), (torch.stack(centres), torch.stack(rs), torch.stack(variances))

    def _formula(self, x: Tensor, p: Parameters) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, r, var = _statistics(x, _all_but_channels(x), self.m.eps)
        w, b = (t if t is None else self._channels(t, x) for t in p)
        return _affine((x - mean) * r, w, b), mean.flatten(), r.flatten(), var.flatten()

    def adjoint(self, u: Tensor, at: Point, p: Parameters) -> Tensor:
        if torch.is_grad_enabled():
            g, dims = u if p[0] is None else u * self._channels(p[0], u), _all_but_channels(u)
            parts = zip(g.split(at.groups), at.x.split(at.groups), *at.extra[:2], strict=True)
            return torch.cat([_through(c, *self._normalised(x, mean, r), dims) for c, x, mean, r in parts])
        return torch.cat([dx for dx, _, _ in self._backward(u, at, p[0], [True, False, False])])

    def tangent(self, t: Tensor, at: Point, p: Parameters) -> Tensor:
        t = torch.cat([dx for dx, _, _ in self._backward(t, at, None, [True, False, False])])
        return t if p[0] is None else t * self._channels(p[0], t)

    def bend(self, second: Second, p: Parameters) -> Tensor | None:
        u, t, at = second
        g = u if p[0] is None else u * self._channels(p[0], u)
        parts = zip(*(s.split(at.groups) for s in (at.x, g, t)), *at.extra[:2], strict=True)
        bent = []
        for x, own, tangent, mean, r in parts:
            bent.append(_bent(*self._normalised(x, mean, r), own, tangent, _all_but_channels(x)))
        return torch.cat(bent)

    def _normalised(self, x: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """z, and r as it lies beside that."""
        r = self._channels(r, x)
        return (x - self._channels(mean, x)) * r, r

    def gradients(
        self, a: Tensor, second: Second, at: Point, p: Parameters, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        if not any(wanted):
            return None, None
        parts = self._backward(a, at, p[0], [False, True, True])
        dw, db = (torch.stack([part[k] for part in parts]).sum(0) for k in (1, 2))
        u, t, here = second
        along = torch.cat([dx for dx, _, _ in self._backward(t, here, None, [True, False, False])])
        dw = dw + (u * along).sum(_all_but_channels(u))
        return (dw if wanted[0] else None), (db if wanted[1] else None)

    def _channels(self, c: Tensor, like: Tensor) -> Tensor:
        return c.view(-1, *[1] * (like.dim() - 2))

    def _backward(
        self, u: Tensor, at: Point, w: Tensor | None, wanted: list[bool]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [
            torch.ops.aten.native_batch_norm_backward(
                own.contiguous(), x, w, None, None, mean, r, True, self.m.eps, wanted
            )
            for own, x, mean, r in zip(u.split(at.groups), at.x.split(at.groups), *at.extra[:2], strict=True)
        ]


def _all_but_channels(x: Tensor) -> list[int]:
    return [d for d in range(x.dim()) if d != 1]
