"""How the tensors of a chain of maps lie while a step goes through it: samples first and in torch's
operators, or samples side by side and in fusegen's kernels. Both give the closed form the same few products.

Groups are real, fake and mixed samples; ``counts`` tells how many there are of each, 0 for none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import convolution
from ..ops.convolution import Geometry
from .chain import BatchNorm, Convolution, Map


class SamplesFirst:
    """Activations [N, C, *spatial], in torch's operators on any device."""

    def __init__(self, maps: Sequence[Map], counts: Sequence[int]) -> None:
        self.counts = tuple(counts)
        self._maps = maps
        ends = list(accumulate(counts))
        self._parts = [slice(end - n, end) for end, n in zip(ends, counts, strict=True)]

    def join(self, samples: Sequence[Tensor | None]) -> Tensor:
        """What the first map reads, of all groups."""
        return self._maps[0].shaped(torch.cat([t for t in samples if t is not None]))

    def rows(self, groups: Sequence[bool], device: torch.device) -> Tensor:
        """Indices by the first dim of what belongs to these groups."""
        parts = torch.arange(sum(self.counts), device=device).split(list(self.counts))
        return torch.cat([p for p, wanted in zip(parts, groups, strict=True) if wanted])

    def spread(self, s: Tensor, groups: Sequence[bool], like: Tensor) -> Tensor:
        """A factor of each sample of these groups, to be multiplied with what lies like ``like``."""
        return s.reshape(-1, *[1] * (like.dim() - 1))

    def lengths(self, v: Tensor, groups: Sequence[bool]) -> tuple[Tensor, Tensor]:
        """||v||^2 and ||v|| of each sample of these groups."""
        v = v.flatten(1)
        return v.square().sum(1), torch.linalg.vector_norm(v, dim=1)

    def measured(self, v: Tensor, channels: int | None) -> Tensor:
        """v, zero in all but the first channels, where not all count; in place."""
        if channels is not None:
            v[:, channels:] = 0
        return v

    def forward(self, i: int, x: Tensor, W: Tensor, b: Tensor | None, slope: float) -> Tensor:
        m = self._maps[i]
        x = m.apply(m.shaped(x), W, b)
        return x if slope == 1.0 else F.leaky_relu(x, slope)

    def input_gradient(self, i: int, u: Tensor, W: Tensor, x: Tensor, slope: float) -> Tensor:
        """By the input x of map i, which an activation of this slope gave."""
        m = self._maps[i]
        x = m.shaped(x)
        c = m.convolution
        u = u @ W if c is None else _by_input(c, u, x, W)
        u = activation_gradient(u, x, slope)
        return u.reshape(len(u), -1, *m.inner) if m.flatten else u

    def weight_gradient(self, i: int, u: Tensor, x: Tensor, W: Tensor) -> Tensor:
        m = self._maps[i]
        x = m.shaped(x)
        c = m.convolution
        return u.t() @ x if c is None else _by_weight(c, u, x, W)

    def bias_gradient(self, u: Tensor) -> Tensor:
        return u.sum([d for d in range(u.dim()) if d != 1])

    def logits(self, h: Tensor) -> Tensor:
        return h.flatten(1).mean(1)

    def seed(self, h: Tensor) -> Tensor:
        """The gradient of each logit by what the last map gave."""
        return torch.full_like(h, 1 / max(1, h[0].numel()))

    def leave(self, dx: Tensor, shape: torch.Size) -> Tensor:
        """What lies like a group's samples as a tensor of their shape."""
        return dx.reshape(shape)

    def part(self, group: int) -> slice:
        """Where a group lies by the first dim."""
        return self._parts[group]


class Blocked:
    """Activations [blocks, pixels, C, width] (``ops.convolution``), a block of one group alone."""

    # What a product takes for a sample of a block of one to four vectors, relative to the last, and what
    # torch's own convolutions do: measured on AVX-512, and not yet on AVX2, where four vectors are two passes
    # of two.
    COST = (1.25, 1.05, 1.0, 1.0)
    TORCH = 1.5
    FEWEST = 8  # channels of a group, of grouped convolutions

    def __init__(self, maps: Sequence[Map], counts: Sequence[int], width: int) -> None:
        self.counts, self._width = tuple(counts), width
        blocks = [-(-n // width) for n in counts]
        self._blocks = sum(blocks)
        ends = list(accumulate(blocks))
        self._parts = [slice(end - n, end) for end, n in zip(ends, blocks, strict=True)]
        self._at = [_geometry(m) for m in maps]
        self._pixels = [math.prod(m.outer) for m in maps]

    @classmethod
    def fitting(cls, maps: Sequence[Map], counts: Sequence[int], dtype: torch.dtype) -> Blocked | str:
        """A layout of the best width, or why torch's own operators are better."""
        if dtype not in convolution.DTYPES:
            return f"there are no kernels of convolutions in {str(dtype).removeprefix('torch.')}"
        for m in maps:
            if len(m.inner) > 2:
                return "there are no kernels of convolutions over three spatial dims"
            c = m.convolution
            if c is not None and c.groups > 1 and min(c.in_channels, c.out_channels) < cls.FEWEST * c.groups:
                return f"a convolution has fewer than {cls.FEWEST} channels a group"
        lanes = convolution.lanes(dtype)

        def cost(vectors: int) -> float:
            width = vectors * lanes
            return sum(-(-n // width) * width for n in counts) * cls.COST[vectors - 1]

        best = min((4, 3, 2, 1), key=cost)
        if cost(best) > cls.TORCH * sum(counts):
            return f"the kernels take blocks of {lanes} samples, of which this batch leaves too much empty"
        return cls(maps, counts, best * lanes)

    def join(self, samples: Sequence[Tensor | None]) -> Tensor:
        first = next(t for t in samples if t is not None)
        C = first.shape[1]
        x = first.new_empty(self._blocks, first[0].numel() // C, C, self._width)
        for part, t in zip(self._parts, samples, strict=True):
            if t is not None:
                blocks = part.stop - part.start
                t = t.detach().reshape(len(t), -1)
                t = F.pad(t, (0, 0, 0, blocks * self._width - len(t)))
                x[part] = t.view(blocks, self._width, C, -1).permute(0, 3, 2, 1)
        return x

    def rows(self, groups: Sequence[bool], device: torch.device) -> Tensor:
        return torch.cat([torch.arange(p.start, p.stop) for p in self._chosen(groups)])

    def _chosen(self, groups: Sequence[bool]) -> list[slice]:
        return [p for p, wanted in zip(self._parts, groups, strict=True) if wanted]

    def spread(self, s: Tensor, groups: Sequence[bool], like: Tensor) -> Tensor:
        counts = [n for n, wanted in zip(self.counts, groups, strict=True) if wanted]
        sizes = [(p.stop - p.start) * self._width for p in self._chosen(groups)]
        padded = [F.pad(t, (0, size - len(t))) for t, size in zip(s.split(counts), sizes, strict=True)]
        return torch.cat(padded).view(-1, 1, 1, self._width)

    def lengths(self, v: Tensor, groups: Sequence[bool]) -> tuple[Tensor, Tensor]:
        squares = self._samples(v.square().sum((1, 2)), groups)
        return squares, squares.sqrt()

    def measured(self, v: Tensor, channels: int | None) -> Tensor:
        if channels is not None:
            v[:, :, channels:] = 0
        return v

    def _samples(self, t: Tensor, groups: Sequence[bool]) -> Tensor:
        """Of values [blocks, width], those that are samples'."""
        counts = [n for n, wanted in zip(self.counts, groups, strict=True) if wanted]
        sizes = [p.stop - p.start for p in self._chosen(groups)]
        return torch.cat([part.reshape(-1)[:n] for part, n in zip(t.split(sizes), counts, strict=True)])

    def forward(self, i: int, x: Tensor, W: Tensor, b: Tensor | None, slope: float) -> Tensor:
        kernel = self._kernel(i, W)
        return convolution.forward(self._at[i], x, kernel, _contiguous(b), slope, self._pixels[i])

    def input_gradient(self, i: int, u: Tensor, W: Tensor, x: Tensor, slope: float) -> Tensor:
        below = None if slope == 1.0 else x
        return convolution.input_gradient(self._at[i], u, self._kernel(i, W), below, slope)

    def weight_gradient(self, i: int, u: Tensor, x: Tensor, W: Tensor) -> Tensor:
        return convolution.weight_gradient(self._at[i], u, x, self._kernel(i, W)).view(W.shape)

    def bias_gradient(self, u: Tensor) -> Tensor:
        return u.sum((0, 1)).sum(1)

    def _kernel(self, i: int, W: Tensor) -> Tensor:
        """[O, C, kh, kw]; a dense layer's takes every pixel."""
        W, at = W.detach().contiguous(), self._at[i]
        if W.dim() == 2:
            return W.view(len(W), -1, at.height, at.width)
        return W if W.dim() == 4 else W.unsqueeze(2)

    def logits(self, h: Tensor) -> Tensor:
        return self._samples(h.mean((1, 2)), [n > 0 for n in self.counts])

    def seed(self, h: Tensor) -> Tensor:
        return torch.full_like(h, 1 / h.shape[1])

    def leave(self, dx: Tensor, shape: torch.Size) -> Tensor:
        return dx.permute(0, 3, 2, 1).reshape(-1, *shape[1:])[: shape[0]]

    def part(self, group: int) -> slice:
        return self._parts[group]

    def batch_norm(
        self, m: Map, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """What m's norm and activation make of x, each group by itself, and the groups' statistics: mean [C]
        and variance [C] of each."""
        y, norm = torch.empty_like(x), _norm(m)
        stats: list[Tensor] = []
        weight, bias = _contiguous(weight), _contiguous(bias)
        for part, n in zip(self._parts, self.counts, strict=True):
            if n:
                of = x[part], n, weight, bias
                stats += convolution.batch_norm(*of, eps=norm.eps, slope=m.slope, y=y[part])
        return y, stats

    def batch_norm_backward(
        self, m: Map, dy: Tensor, normed: Normed, weight: Tensor | None, wanted: bool
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """The gradients by x, where wanted, and by the norm's weight and bias."""
        x, y, norm = normed.x, normed.y, _norm(m)
        dx = torch.empty_like(x) if wanted else None
        weight, stats = _contiguous(weight), iter(normed.stats)
        dweight, dbias = x.new_zeros(()), x.new_zeros(())
        for part, n in zip(self._parts, self.counts, strict=True):
            if n:
                dw, db = convolution.batch_norm_backward(
                    dy[part], y[part], x[part], n, weight, mean=next(stats), var=next(stats), eps=norm.eps,
                    slope=m.slope, dx=None if dx is None else dx[part],
                )  # fmt: skip
                dweight, dbias = dw + dweight, db + dbias
        return dx, dweight, dbias


class Normed(NamedTuple):
    """What a norm's backward needs of its forward: x, what it and the activation behind it made of x, and the
    groups' statistics."""

    x: Tensor
    y: Tensor
    stats: Sequence[Tensor]


Layout = SamplesFirst | Blocked


def activation_gradient(dh: Tensor, h: Tensor, slope: float) -> Tensor:
    """The gradient by what an activation of this slope below zero was given, of that by what it gave, h.

    A NaN of dh stays one, but for a ReLU's where h is 0 or less; where h is NaN, ReLU passes dh on: as torch
    and the convolutions' kernels have it.
    """
    if slope == 0.0:
        return torch.where(h <= 0, 0.0, dh)
    return dh if slope == 1.0 else torch.where(h > 0, dh, slope * dh)


def _by_input(c: Convolution, u: Tensor, x: Tensor, W: Tensor) -> Tensor:
    return _convolution_backward(c, u, x, W, [True, False, False])[0]


def _by_weight(c: Convolution, u: Tensor, x: Tensor, W: Tensor) -> Tensor:
    return _convolution_backward(c, u, x, W, [False, True, False])[1]


def _convolution_backward(
    c: Convolution, u: Tensor, x: Tensor, W: Tensor, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    none = [0] * len(c.kernel_size)
    du, dW, db = torch.ops.aten.convolution_backward(
        u, x, W, None, c.stride, c.padding, c.dilation, False, none, c.groups, wanted
    )
    return du, dW, db


def _contiguous(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.detach().contiguous()


def _norm(m: Map) -> BatchNorm:
    if m.norm is None:
        raise ValueError(f"m: expected a map with a batch norm behind it, got {m}")
    return m.norm


def _geometry(m: Map) -> Geometry:
    """Of a convolution in two spatial dims; a dense layer takes every pixel."""
    more = 2 - len(m.inner)
    height, width = (1,) * more + m.inner
    c = m.convolution
    if c is None:
        return Geometry(height, width)
    (stride_h, stride_w), (dilation_h, dilation_w) = (1,) * more + c.stride, (1,) * more + c.dilation
    padding_h, padding_w = (0,) * more + cast(tuple[int, ...], c.padding)
    return Geometry(
        height, width, groups=c.groups, stride_h=stride_h, stride_w=stride_w, padding_h=padding_h,
        padding_w=padding_w, dilation_h=dilation_h, dilation_w=dilation_w,
    )  # fmt: skip
