"""Linear maps: dense layers, convolutions, pooling, the class-projection head, what only moves numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import Projection
from .operator import Operator, Parameters, Point, Second, size_of

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_Kept = tuple[Tensor, tuple[Tensor, ...]]
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def _matrix(t: Tensor) -> Tensor:
    return t if t.dim() == 2 else t.flatten(0, -2)


class Dense(Operator):
    count = 2

    def __init__(self, m: nn.Linear) -> None:
        self.m = m

    def parameters(self) -> tuple[Tensor | None, ...]:
        return self.m.weight, self.m.bias

    def size(self) -> int:
        return size_of(self.m)

    def forward(self, x: Tensor, p: Parameters, groups: tuple[int, ...]) -> _Kept:
        W, b = p
        assert W is not None
        return F.linear(x, W, b), ()

    def adjoint(self, u: Tensor, at: Point, p: Parameters) -> Tensor:
        assert p[0] is not None
        return u @ p[0]

    def tangent(self, t: Tensor, at: Point, p: Parameters) -> Tensor:
        assert p[0] is not None
        return F.linear(t, p[0])

    def gradients(
        self, a: Tensor, second: Second, at: Point, p: Parameters, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        dW = db = None
        if wanted[0]:
            dW = torch.addmm(_matrix(a).t() @ _matrix(at.x), _matrix(second.u).t(), _matrix(second.t))
        if wanted[1]:
            db = _matrix(a).sum(0)
        return dW, db


class Convolve(Operator):
    count = 2

    def __init__(self, m: Convolution) -> None:
        self.m = m

    def parameters(self) -> tuple[Tensor | None, ...]:
        return self.m.weight, self.m.bias

    def size(self) -> int:
        return size_of(self.m)

    def forward(self, x: Tensor, p: Parameters, groups: tuple[int, ...]) -> _Kept:
        return self._convolve(x, p[0], p[1]), ()

    def _convolve(self, x: Tensor, W: Tensor | None, b: Tensor | None) -> Tensor:
        m = self.m
        convolve: Callable[..., Tensor] = _CONVOLVE[len(m.kernel_size)]
        return convolve(x, W, b, m.stride, m.padding, dilation=m.dilation, groups=m.groups)

    def adjoint(self, u: Tensor, at: Point, p: Parameters) -> Tensor:
        return self._backward(u, at.x, p[0], [True, False, False])[0]

    def tangent(self, t: Tensor, at: Point, p: Parameters) -> Tensor:
        return self._convolve(t, p[0], None)

    def gradients(
        self, a: Tensor, second: Second, at: Point, p: Parameters, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        dW = db = None
        if wanted[0]:
            dW = self._backward(a, at.x, p[0], [False, True, False])[1]
            dW = dW + self._backward(second.u, second.t, p[0], [False, True, False])[1]
        if wanted[1]:
            db = a.sum([d for d in range(a.dim()) if d != 1])
        return dW, db

    def _backward(
        self, u: Tensor, x: Tensor, W: Tensor | None, wanted: list[bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        m, none = self.m, [0] * len(self.m.kernel_size)
        dx, dW, db = torch.ops.aten.convolution_backward(
            u, x, W, None, m.stride, m.padding, m.dilation, False, none, m.groups, wanted
        )
        return dx, dW, db


class AveragePool(Operator):
    """nn.AvgPool2d"""

    def __init__(self, m: nn.AvgPool2d) -> None:
        two = [(n, n) if isinstance(n, int) else tuple(n) for n in (m.kernel_size, m.stride, m.padding)]
        self.how: tuple[Any, ...] = *two, m.ceil_mode, m.count_include_pad, m.divisor_override

    def forward(self, x: Tensor, p: Parameters, groups: tuple[int, ...]) -> _Kept:
        return F.avg_pool2d(x, *self.how), ()

    def adjoint(self, u: Tensor, at: Point, p: Parameters) -> Tensor:
        dx: Tensor = torch.ops.aten.avg_pool2d_backward(u, at.x, *self.how)
        return dx

    def tangent(self, t: Tensor, at: Point, p: Parameters) -> Tensor:
        return F.avg_pool2d(t, *self.how)


class Flat(Operator):
    """nn.Flatten from a sample's dims on."""

    def __init__(self, m: nn.Flatten) -> None:
        self.dims = m.start_dim, m.end_dim

    def forward(self, x: Tensor, p: Parameters, groups: tuple[int, ...]) -> _Kept:
        return x.flatten(*self.dims), ()

    def adjoint(self, u: Tensor, at: Point, p: Parameters) -> Tensor:
        return u.reshape(at.x.shape)

    def tangent(self, t: Tensor, at: Point, p: Parameters) -> Tensor:
        return t.flatten(*self.dims)


class Project(Operator):
    """linear(h) + <embedding(labels), h>: a vector of weights for each sample."""

    count = 3
    kept = 1

    def __init__(self, m: Projection, labels: Tensor) -> None:
        self.m, self.labels = m, labels

    def parameters(self) -> tuple[Tensor | None, ...]:
        return self.m.linear.weight, self.m.linear.bias, self.m.embedding.weight

    def size(self) -> int:
        return size_of(self.m.linear, self.m.embedding)

    def forward(self, x: Tensor, p: Parameters, groups: tuple[int, ...]) -> _Kept:
        W, b, E = p
        assert W is not None and E is not None
        h = self.m.pooled(x)
        own = E[self.labels]
        return F.linear(h, W, b) + (own * h).sum(1, keepdim=True), (W + own,)

    def adjoint(self, u: Tensor, at: Point, p: Parameters) -> Tensor:
        W, _, E = p
        assert W is not None and E is not None
        own = at.extra[0]
        v = u * own
        return v.reshape(*v.shape, *[1] * (at.x.dim() - 2)).expand_as(at.x)

    def tangent(self, t: Tensor, at: Point, p: Parameters) -> Tensor:
        return (self.m.pooled(t) * at.extra[0]).sum(1, keepdim=True)

    def gradients(
        self, a: Tensor, second: Second, at: Point, p: Parameters, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        own = a * self.m.pooled(at.x)
        m = len(second.u)
        own[:m] += second.u * self.m.pooled(second.t)
        dE = None
        if wanted[2] and p[2] is not None:
            dE = torch.zeros_like(p[2]).index_add_(0, self.labels, own)
        return own.sum(0, keepdim=True), a.sum(0), dE
