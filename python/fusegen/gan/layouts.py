"""How the tensors of a chain of maps lie while a step goes through it: samples first and in torch's
operators, or samples side by side and in fusegen's kernels. Both give the closed form the same few products.

Groups are real, fake and mixed samples; ``counts`` tells how many there are of each, 0 for none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import convolution
from ..ops.convolution import Geometry
from .chain import Map, linear


class SamplesFirst:
    """Activations [N, C, *spatial], in torch's operators on any device."""

    def __init__(self, maps: Sequence[Map], counts: Sequence[int]) -> None:
        self._maps, self._counts = maps, counts
        ends = list(accumulate(counts))
        self._parts = [slice(end - n, end) for end, n in zip(ends, counts, strict=True)]

    def join(self, samples: Sequence[Tensor | None]) -> Tensor:
        """What the first map reads, of all groups."""
        return self._maps[0].shaped(torch.cat([t for t in samples if t is not None]))

    def rows(self, groups: Sequence[bool], device: torch.device) -> Tensor:
        """Indices by the first dim of what belongs to these groups."""
        parts = torch.arange(sum(self._counts), device=device).split(list(self._counts))
        return torch.cat([p for p, wanted in zip(parts, groups, strict=True) if wanted])

    def spread(self, s: Tensor, groups: Sequence[bool], like: Tensor) -> Tensor:
        """A factor of each sample of these groups, to be multiplied with what lies like ``like``."""
        return s.reshape(-1, *[1] * (like.dim() - 1))

    def lengths(self, v: Tensor, groups: Sequence[bool]) -> tuple[Tensor, Tensor]:
        """||v||^2 and ||v|| of each sample of these groups."""
        v = v.flatten(1)
        return v.square().sum(1), torch.linalg.vector_norm(v, dim=1)

    def forward(self, i: int, x: Tensor, W: Tensor, b: Tensor | None, slope: float) -> Tensor:
        x = linear(self._maps[i], self._maps[i].shaped(x), W, b)
        return x if slope == 1.0 else F.leaky_relu(x, slope)

    def input_gradient(self, i: int, u: Tensor, W: Tensor, x: Tensor, slope: float) -> Tensor:
        """By the input x of map i, which an activation of this slope gave."""
        m = self._maps[i]
        x = m.shaped(x)
        u = self._backward(m, u, x, W, (True, False))[0] if m.convolves else u @ W
        u = masked(u, x, slope)
        return u.reshape(len(u), -1, *m.inner) if m.flatten else u

    def weight_gradient(self, i: int, u: Tensor, x: Tensor, W: Tensor) -> Tensor:
        m = self._maps[i]
        x = m.shaped(x)
        return self._backward(m, u, x, W, (False, True))[1] if m.convolves else u.t() @ x

    def bias_gradient(self, u: Tensor) -> Tensor:
        return u.sum([d for d in range(u.dim()) if d != 1])

    @staticmethod
    def _backward(m: Map, u: Tensor, x: Tensor, W: Tensor, wanted: tuple[bool, bool]):
        c, dims = m.module, len(m.inner)
        return torch.ops.aten.convolution_backward(
            u, x, W, None, c.stride, c.padding, c.dilation, False, [0] * dims, c.groups, [*wanted, False]
        )

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
        self._counts, self._width = counts, width
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
                return "there are no kernels of three spatial dims"
            c = m.module
            if m.convolves and c.groups > 1 and min(c.in_channels, c.out_channels) < cls.FEWEST * c.groups:
                return f"a convolution has fewer than {cls.FEWEST} channels a group"
        lanes = convolution.lanes(dtype)

        def cost(vectors: int) -> float:
            width = vectors * lanes
            return sum(-(-n // width) * width for n in counts) * cls.COST[vectors - 1]

        best = min((4, 3, 2, 1), key=cost)
        if cost(best) > cls.TORCH * sum(counts):
            return f"samples too few, or too many by a few, for vectors of {lanes}"
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
        counts = [n for n, wanted in zip(self._counts, groups, strict=True) if wanted]
        sizes = [(p.stop - p.start) * self._width for p in self._chosen(groups)]
        padded = [F.pad(t, (0, size - len(t))) for t, size in zip(s.split(counts), sizes, strict=True)]
        return torch.cat(padded).view(-1, 1, 1, self._width)

    def lengths(self, v: Tensor, groups: Sequence[bool]) -> tuple[Tensor, Tensor]:
        squares = self._samples(v.square().sum((1, 2)), groups)
        return squares, squares.sqrt()

    def _samples(self, t: Tensor, groups: Sequence[bool]) -> Tensor:
        """Of values [blocks, width], those that are samples'."""
        counts = [n for n, wanted in zip(self._counts, groups, strict=True) if wanted]
        sizes = [p.stop - p.start for p in self._chosen(groups)]
        return torch.cat([part.reshape(-1)[:n] for part, n in zip(t.split(sizes), counts, strict=True)])

    def forward(self, i: int, x: Tensor, W: Tensor, b: Tensor | None, slope: float) -> Tensor:
        b = None if b is None else b.detach().contiguous()
        return convolution.forward(self._at[i], x, self._kernel(i, W), b, slope, self._pixels[i])

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
        return self._samples(h.mean((1, 2)), [n > 0 for n in self._counts])

    def seed(self, h: Tensor) -> Tensor:
        return torch.full_like(h, 1 / h.shape[1])

    def leave(self, dx: Tensor, shape: torch.Size) -> Tensor:
        return dx.permute(0, 3, 2, 1).reshape(-1, *shape[1:])[: shape[0]]

    def part(self, group: int) -> slice:
        return self._parts[group]

    def batch_norm(self, m: Map, x: Tensor, weight: Tensor | None, bias: Tensor | None):
        """What m's norm and activation make of x, each group by itself, and the groups' statistics."""
        y, stats = torch.empty_like(x), []
        weight, bias = (None if t is None else t.detach().contiguous() for t in (weight, bias))
        for part, n in zip(self._parts, self._counts, strict=True):
            if n:
                stats += convolution.batch_norm(x[part], n, weight, bias, m.norm.eps, m.slope, y[part])
        return y, stats

    def batch_norm_backward(
        self,
        m: Map,
        dy: Tensor,
        y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        stats: Sequence[Tensor],
        wanted: bool,
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """The gradients by x, where wanted, and by the norm's weight and bias."""
        dx, dweight, dbias, stats = torch.empty_like(x) if wanted else None, 0, 0, iter(stats)
        weight = None if weight is None else weight.detach().contiguous()
        for part, n in zip(self._parts, self._counts, strict=True):
            if n:
                of = dy[part], y[part], x[part], n, weight, next(stats), next(stats), m.norm.eps, m.slope
                dw, db = convolution.batch_norm_backward(*of, None if dx is None else dx[part])
                dweight, dbias = dw + dweight, db + dbias
        return dx, dweight, dbias


def masked(t: Tensor, h: Tensor, slope: float) -> Tensor:
    """t behind an activation of this slope that gave h; NaN goes where torch lets it, as in the kernels."""
    if slope == 0.0:
        return torch.where(h <= 0, 0.0, t)
    return t if slope == 1.0 else torch.where(h > 0, t, slope * t)


def _geometry(m: Map) -> Geometry:
    sizes = (1,) * (2 - len(m.inner)) + m.inner
    if not m.convolves:
        return Geometry(*sizes)
    c = m.module
    more = 2 - len(m.inner)
    one, none = (1,) * more, (0,) * more
    return Geometry(*sizes, *one, *c.stride, *none, *c.padding, *one, *c.dilation, c.groups)
