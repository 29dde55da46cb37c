"""What an operator of a discriminator has to tell, so that a penalty of ||grad D|| needs no second backward.

With y = f(x) and its Jacobian J(x), a step with a penalty sweeps four times through D (``program``): y; the
adjoints J^T u of one logit; the tangents J t of the penalty's direction; and the gradient by x and by the
parameters of <a, f(x)> + <u, J(x) t>, where a has come down from the loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

Parameters = Sequence[Tensor | None]


class Point(NamedTuple):
    """Where derivatives are taken. x and y: rows are samples, group by group. extra: what ``forward`` kept
    beside them. groups: how many samples each has; one is a batch of its own."""

    x: Tensor
    y: Tensor
    extra: tuple[Tensor, ...]
    groups: tuple[int, ...]


def size_of(*modules: nn.Module) -> int:
    """How many numbers they hold; of a parametrised weight, those that it is made of."""
    return sum(p.numel() for m in modules for p in m.parameters())


class Second(NamedTuple):
    """Of the samples that a penalty looks at, the first rows: the adjoints by y, the tangents of x, and the
    point there."""

    u: Tensor
    t: Tensor
    at: Point


class Operator(ABC):
    count = 0  # of parameters
    kept = 0  # how many tensors ``extra`` holds
    by_group = False  # whether these are rows of groups, not of samples
    bends = False  # whether J depends on x, but for signs, or ties samples together

    def parameters(self) -> tuple[Tensor | None, ...]:
        """Those of the module, read once: a parametrisation (spectral norm) then runs once a step."""
        return ()

    def size(self) -> int:
        """How many numbers these are, without reading them."""
        return 0

    @abstractmethod
    def forward(self, x: Tensor, p: Parameters, groups: tuple[int, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """y, and what the point keeps; differentiable by x and p any number of times."""

    @abstractmethod
    def adjoint(self, u: Tensor, at: Point, p: Parameters) -> Tensor:
        """J^T u; differentiable by u, x and p any number of times."""

    @abstractmethod
    def tangent(self, t: Tensor, at: Point, p: Parameters) -> Tensor:
        """J t"""

    def bend(self, second: Second, p: Parameters) -> Tensor | None:
        """The gradient of <u, J(x) t> by x, None where J does not depend on it."""
        return None

    def gradients(
        self, a: Tensor, second: Second, at: Point, p: Parameters, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        """By the parameters, of <a, f(x)> + <u, J(x) t>."""
        return ()

    def rows(self, at: Point, count: int, groups: int) -> Point:
        """The point of the first ``count`` rows, which are so many groups."""
        extra = tuple(t[: groups if self.by_group else count] for t in at.extra)
        return Point(at.x[:count], at.y[:count], extra, at.groups[:groups])
