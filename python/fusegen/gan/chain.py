"""A discriminator as a chain of linear maps, convolutions and dense layers, each with a piecewise linear
activation and maybe a batch norm behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from . import network
from .network import NotKnown

CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}  # and their spatial dims
_NORMS = {nn.Linear: nn.BatchNorm1d, nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d}


@dataclass(frozen=True)
class Map:
    """A linear map; flatten: before it. norm: behind it. slope: of the activation behind that, below zero, 1
    for none. inner and outer: spatial sizes of what it reads and gives."""

    module: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    flatten: bool
    norm: nn.BatchNorm1d | nn.BatchNorm2d | None = None
    slope: float = 1.0
    inner: tuple[int, ...] = ()
    outer: tuple[int, ...] = ()

    @property
    def convolves(self) -> bool:
        return not isinstance(self.module, nn.Linear)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """What the weight has to be, a parametrised one too, without reading it."""
        m = self.module
        if not self.convolves:
            return m.out_features, m.in_features
        return m.out_channels, m.in_channels // m.groups, *m.kernel_size

    def shaped(self, x: Tensor) -> Tensor:
        return x.flatten(1) if self.flatten else x


class Parameters(NamedTuple):
    """Of all maps, each read once: a parametrisation (spectral norm) then runs once a step."""

    weights: list[Tensor]
    biases: list[Tensor | None]
    norm_weights: list[Tensor | None]
    norm_biases: list[Tensor | None]


def parameters(maps: tuple[Map, ...]) -> Parameters:
    norms = [m.norm for m in maps]
    return Parameters(
        [m.module.weight for m in maps],
        [m.module.bias for m in maps],
        [None if n is None else n.weight for n in norms],
        [None if n is None else n.bias for n in norms],
    )


def possible(D: nn.Module) -> bool:
    """Whether there is a convolution in D. Without one ``network.dense`` knows D better, and torch is faster
    at batch norms of dense layers."""
    return any(isinstance(m, tuple(CONVOLUTIONS)) for m in D.modules())


def detached_parameters(maps: tuple[Map, ...]) -> Parameters:
    """The same without gradients, for a step that leaves D alone."""
    return Parameters(*([t if t is None else t.detach() for t in kind] for kind in parameters(maps)))


def chain(D: nn.Module, shape: tuple[int, ...]) -> tuple[Map, ...]:
    """D as maps of samples of this shape [C, *spatial], one logit or patch of logits at their end.

    Raises NotKnown, saying what is in the way.
    """
    maps: list[dict] = []
    flatten = False
    for m in network.stages(D):
        kind = type_before_parametrizations(m)
        last = maps[-1] if maps else {}
        if kind is nn.Flatten and (m.start_dim, m.end_dim) == (1, -1):
            flatten = True
        elif kind is nn.Linear or kind in CONVOLUTIONS:
            maps.append({"module": m, "flatten": flatten, "kind": kind})
            flatten = False
        elif flatten or not maps or "slope" in last:
            if kind is not nn.Identity:
                raise NotKnown(f"{kind.__name__} stands where a dense layer or a convolution is known")
        elif kind is _NORMS.get(last["kind"]) and "norm" not in last:
            last["norm"] = _trained(m)
        elif kind in (nn.ReLU, nn.LeakyReLU):
            last["slope"] = network.slope_of(m)
        elif kind is not nn.Identity:
            raise NotKnown(
                f"{kind.__name__} stands where dense layers, convolutions, batch norms and (Leaky)ReLU are "
                "known"
            )
    if not maps or len(maps[-1].keys() & {"slope", "norm"}):
        raise NotKnown("it does not end in a linear map")
    known = tuple(_sized(maps, shape))
    end = known[-1]
    outputs = end.module.out_channels if end.convolves else end.module.out_features
    if outputs != 1 or (flatten and math.prod(end.outer) != 1):
        raise NotKnown("it does not give one logit or one patch of logits a sample")
    return known


def _trained(norm: nn.Module) -> nn.Module:
    if not norm.training:
        raise NotKnown(f"{type(norm).__name__} in evaluation mode takes no statistics")
    return norm


def _sized(maps: list[dict], shape: tuple[int, ...]):
    """The maps with their spatial sizes; what does not fit together is for torch to refuse."""
    channels, sizes = shape[0], tuple(shape[1:])
    if 0 in shape:
        raise NotKnown(f"its samples of shape {list(shape)} are empty")
    for found in maps:
        kind = found.pop("kind")
        module, norm = found["module"], found.get("norm")
        if kind is nn.Linear:
            inputs, outputs = module.in_features, module.out_features
            if found["flatten"]:
                channels, sizes, inner = channels * math.prod(sizes), (), sizes
            else:
                inner = sizes
            if sizes:
                raise NotKnown("a dense layer stands over more than one dim")
        else:
            inputs, outputs = module.in_channels, module.out_channels
            if found["flatten"] and sizes:
                raise NotKnown("a convolution stands behind Flatten")
            if module.padding_mode != "zeros" or isinstance(module.padding, str):
                raise NotKnown(f"{kind.__name__} pads in another way than with a number of zeros")
            if not all(isinstance(v, tuple) for v in (module.stride, module.padding, module.dilation)):
                raise NotKnown(f"{kind.__name__} has a stride, padding or dilation that is no tuple")
            inner = sizes
            sizes = _convolved(module, sizes)
        fits = channels == inputs and all(n > 0 for n in sizes)
        if not fits or (norm is not None and norm.num_features != outputs):
            raise NotKnown(f"{kind.__name__} does not fit what it is given")
        channels = outputs
        yield Map(**found, inner=inner, outer=sizes)


def _convolved(m: nn.Conv1d | nn.Conv2d | nn.Conv3d, sizes: tuple[int, ...]) -> tuple[int, ...]:
    if len(sizes) != len(m.kernel_size) or min(m.stride) < 1 or min(m.dilation) < 1 or min(m.padding) < 0:
        raise NotKnown(f"{type(m).__name__} does not fit what it is given")
    spans = [d * (k - 1) + 1 for k, d in zip(m.kernel_size, m.dilation, strict=True)]
    room = [n + 2 * p - span for n, p, span in zip(sizes, m.padding, spans, strict=True)]
    return tuple(r // s + 1 if r >= 0 else 0 for r, s in zip(room, m.stride, strict=True))


def through(maps: tuple[Map, ...], x: Tensor, p: Parameters) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Logits [N] of samples x [N, ...] that pass together, each map's input, and what it gave, in torch's
    operators; differentiable any number of times. Running statistics of norms stay as they are."""
    inputs, outputs = [], []
    for i, m in enumerate(maps):
        x = m.shaped(x)
        inputs.append(x)
        x = linear(m, x, p.weights[i], p.biases[i])
        if m.norm is not None:
            x = F.batch_norm(x, None, None, p.norm_weights[i], p.norm_biases[i], True, 0.0, m.norm.eps)
        outputs.append(x)
        if m.slope != 1.0:
            x = F.leaky_relu(x, m.slope)
    return x.flatten(1).mean(1), inputs, outputs


def linear(m: Map, x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    """The map alone."""
    c = m.module
    if not m.convolves:
        return F.linear(x, W, b)
    return _CONVOLVE[len(c.kernel_size)](x, W, b, c.stride, c.padding, c.dilation, c.groups)


_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
