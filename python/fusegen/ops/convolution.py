"""Convolutions and batch norms on the CPU, of tensors [blocks, pixels, channels, width]: samples lie side by
side, ``width`` in a block, so that a vector of the processor holds one value of as many of them.

A convolution is then a sum of dense products, one for each tap, whatever its stride: no patch of an image is
copied (what im2col does), and the taps that would meet padding are left out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _C

DTYPES = (torch.float32, torch.float64)


class Geometry(NamedTuple):
    """Of a convolution, in two spatial dims; one of size 1 where there is but one."""

    height: int
    width: int
    stride_h: int = 1
    stride_w: int = 1
    padding_h: int = 0
    padding_w: int = 0
    dilation_h: int = 1
    dilation_w: int = 1
    groups: int = 1


def lanes(dtype: torch.dtype) -> int:
    """How many samples a vector holds; a block is of one to four vectors."""
    return _C.conv_lanes(dtype == torch.float64)


def forward(at: Geometry, x: Tensor, W: Tensor, b: Tensor | None, slope: float, pixels: int) -> Tensor:
    """[blocks, pixels, O, width] of x [blocks, height * width, C, width] and W [O, C / groups, kh, kw], an
    activation of this slope below zero applied (1: none)."""
    y = x.new_empty(x.shape[0], pixels, W.shape[0], x.shape[3])
    _C.conv_forward(at, x, W, b, slope, y, torch.get_num_threads())
    return y


def input_gradient(at: Geometry, dy: Tensor, W: Tensor, below: Tensor | None, slope: float) -> Tensor:
    """The gradient by x of ``forward`` without an activation; behind an activation of this slope that gave
    ``below`` = x, if it is there."""
    dx = dy.new_empty(dy.shape[0], at.height * at.width, W.shape[1] * at.groups, dy.shape[3])
    _C.conv_input_gradient(at, dy, W, below, slope, dx, torch.get_num_threads())
    return dx


def weight_gradient(at: Geometry, dy: Tensor, x: Tensor, W: Tensor) -> Tensor:
    """The gradient by W of ``forward`` without an activation. Where there is no sample, dy or x has to be
    zero."""
    dW = torch.empty_like(W, memory_format=torch.contiguous_format)
    _C.conv_weight_gradient(at, dy, x, dW, torch.get_num_threads())
    return dW


def batch_norm(
    x: Tensor, n: int, weight: Tensor | None, bias: Tensor | None, eps: float, slope: float, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Normalises the first n samples of x into y, an activation applied, zero past them; their mean [C] and
    variance [C]."""
    mean, var = x.new_empty(x.shape[2]), x.new_empty(x.shape[2])
    _C.batch_norm_forward(x, n, weight, bias, eps, slope, y, mean, var, torch.get_num_threads())
    return mean, var


def batch_norm_backward(
    dy: Tensor, y: Tensor, x: Tensor, n: int, weight: Tensor | None, mean: Tensor, var: Tensor, eps: float,
    slope: float, dx: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Writes the gradient by x, zero where there is no sample, if asked; gives those by weight and bias."""
    dweight, dbias = torch.empty_like(mean), torch.empty_like(mean)
    _C.batch_norm_backward(
        dy, y, x, n, weight, mean, var, eps, slope, dx, dweight, dbias, torch.get_num_threads()
    )
    return dweight, dbias
