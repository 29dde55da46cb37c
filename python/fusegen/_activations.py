"""The smooth activations of a discriminator's dense layers in plain torch: values, and first derivatives that
can be differentiated again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Smooth(NamedTuple):
    """Functions of what the layer gave, and of ELU's alpha."""

    value: Callable[[Tensor, float], Tensor]
    derivative: Callable[[Tensor, float], Tensor]


def _gated(x: Tensor, w: Tensor, dw: Tensor | float) -> Tensor:
    """The derivative of x sigmoid(w) by x, dw being w's."""
    s = torch.sigmoid(w)
    return s + x * s * torch.sigmoid(-w) * dw


def _gelu(x: Tensor, _: float) -> Tensor:
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * torch.erfc(-x / math.sqrt(2)) + x * density


def _gelu_tanh(x: Tensor, _: float) -> Tensor:
    k, a = 2 * math.sqrt(2 / math.pi), 0.044715
    return _gated(x, k * (x + a * x**3), k * (1 + 3 * a * x * x))


SMOOTH = {
    "tanh": Smooth(lambda x, _: torch.tanh(x), lambda x, _: 1 - torch.tanh(x) ** 2),
    "sigmoid": Smooth(lambda x, _: torch.sigmoid(x), lambda x, _: torch.sigmoid(x) * torch.sigmoid(-x)),
    "silu": Smooth(lambda x, _: F.silu(x), lambda x, _: _gated(x, x, 1.0)),
    "gelu": Smooth(lambda x, _: F.gelu(x), _gelu),
    "gelu_tanh": Smooth(lambda x, _: F.gelu(x, approximate="tanh"), _gelu_tanh),
    "elu": Smooth(
        lambda x, alpha: F.elu(x, alpha),
        # so that what lies above 0 sends nothing infinite back
        lambda x, alpha: torch.where(x > 0, 1.0, alpha * torch.exp(x.clamp(max=0))),
    ),
}
