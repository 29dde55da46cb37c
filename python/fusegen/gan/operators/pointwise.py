"""Activations: y = f(x) element by element, J = f', and the gradient of <u, f'(x) t> is u f''(x) t."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .operator import Operator, Parameters, Point, Second

_aten = torch.ops.aten
_Kept = tuple[Tensor, tuple[Tensor, ...]]


class Pointwise(Operator):
    """``times`` is u f'(x), and ``twice`` w f''(x); None of a piecewise linear f."""

    @abstractmethod
    def value(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def times(self, u: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Differentiable by both any number of times."""

    def twice(self, w: Tensor, x: Tensor, y: Tensor) -> Tensor | None:
        return None

    def forward(self, x: Tensor, p: Parameters, groups: tuple[int, ...]) -> _Kept:
        return self.value(x), ()

    def adjoint(self, u: Tensor, at: Point, p: Parameters) -> Tensor:
        return self.times(u, at.x, at.y)

    def tangent(self, t: Tensor, at: Point, p: Parameters) -> Tensor:
        return self.times(t, at.x, at.y)


class Linear(Pointwise):
    """ReLU (slope 0) and LeakyReLU."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def value(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)

    def times(self, u: Tensor, x: Tensor, y: Tensor) -> Tensor:
        if self.slope:
            du: Tensor = _aten.leaky_relu_backward(u, x, self.slope, False)
            return du
        du = _aten.threshold_backward(u, y, 0)
        return du


class Smooth(Pointwise):
    bends = True

    def bend(self, second: Second, p: Parameters) -> Tensor | None:
        return self.twice(second.u * second.t, second.at.x, second.at.y)


class Tanh(Smooth):
    def value(self, x: Tensor) -> Tensor:
        return x.tanh()

    def times(self, u: Tensor, x: Tensor, y: Tensor) -> Tensor:
        du: Tensor = _aten.tanh_backward(u, y)
        return du

    def twice(self, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return -2 * y * self.times(w, x, y)


class Sigmoid(Smooth):
    def value(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def times(self, u: Tensor, x: Tensor, y: Tensor) -> Tensor:
        du: Tensor = _aten.sigmoid_backward(u, y)
        return du

    def twice(self, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.times(w, x, y) * (1 - 2 * y)


class SiLU(Smooth):
    """x s(x), s the logistic function; its second derivative is s (1 - s) (2 + x (1 - 2 s))."""

    def value(self, x: Tensor) -> Tensor:
        return F.silu(x)

    def times(self, u: Tensor, x: Tensor, y: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            s = x.sigmoid()
            return u * s * (1 + x * (1 - s))
        du: Tensor = _aten.silu_backward(u, x)
        return du

    def twice(self, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        s = x.sigmoid()
        return w * s * (1 - s) * (2 + x * (1 - 2 * s))


class GELU(Smooth):
    """x Phi(x), whose second derivative is phi(x) (2 - x^2); or the approximation by tanh, x (1 + tanh k) / 2
    with k = sqrt(2 / pi) (x + 0.044715 x^3)."""

    CUBE = 0.044715
    SCALE = math.sqrt(2 / math.pi)

    def __init__(self, approximate: str) -> None:
        self.approximate = approximate

    def value(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate=self.approximate)

    def times(self, u: Tensor, x: Tensor, y: Tensor) -> Tensor:
        du: Tensor = _aten.gelu_backward(u, x, approximate=self.approximate)
        return du

    def twice(self, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        square = x * x
        if self.approximate == "none":
            return w * (2 - square) * torch.exp(-square / 2) / math.sqrt(2 * math.pi)
        t = torch.tanh(self.SCALE * x * (1 + self.CUBE * square))
        once, again = self.SCALE * (1 + 3 * self.CUBE * square), self.SCALE * 6 * self.CUBE * x
        return w * (1 - t * t) * (once + x * (again / 2 - t * once * once))


class Softplus(Smooth):
    def __init__(self, beta: float, threshold: float) -> None:
        self.beta, self.threshold = beta, threshold

    def value(self, x: Tensor) -> Tensor:
        return F.softplus(x, self.beta, self.threshold)

    def times(self, u: Tensor, x: Tensor, y: Tensor) -> Tensor:
        du: Tensor = _aten.softplus_backward(u, x, self.beta, self.threshold)
        return du

    def twice(self, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        s = torch.sigmoid(self.beta * x)
        return torch.where(self.beta * x > self.threshold, 0.0, w * self.beta * s * (1 - s))


class ELU(Smooth):
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def value(self, x: Tensor) -> Tensor:
        return F.elu(x, self.alpha)

    def times(self, u: Tensor, x: Tensor, y: Tensor) -> Tensor:
        du: Tensor = _aten.elu_backward(u, self.alpha, 1.0, 1.0, False, x)
        return du

    def twice(self, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(x > 0, 0.0, w * (self.alpha * x.exp()))


def activation(m: nn.Module, layer: type) -> Pointwise | None:
    """The operator of a module of this class; None of another kind."""
    if isinstance(m, nn.ReLU) and layer is nn.ReLU:
        return Linear(0.0)
    if isinstance(m, nn.LeakyReLU) and layer is nn.LeakyReLU:
        return Linear(m.negative_slope)
    if isinstance(m, nn.GELU) and layer is nn.GELU:
        return GELU(m.approximate)
    if isinstance(m, nn.Softplus) and layer is nn.Softplus:
        return Softplus(m.beta, m.threshold)
    if isinstance(m, nn.ELU) and layer is nn.ELU:
        return ELU(m.alpha)
    plain: dict[type, type[Pointwise]] = {nn.Tanh: Tanh, nn.Sigmoid: Sigmoid, nn.SiLU: SiLU}
    return plain[layer]() if layer in plain else None
