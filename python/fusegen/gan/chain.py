"""A discriminator as a chain of linear maps, dense layers and convolutions, each with maybe a batch norm, an
activation and dropout behind it: the one place that reads what D is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from ..ops.discriminator import PIECEWISE
from .modules import stages

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Linear = nn.Linear | Convolution
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = {nn.Linear: nn.BatchNorm1d, nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d}
_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_SMOOTH = {
    nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.SiLU: "silu", nn.GELU: "gelu", nn.ELU: "elu",
}  # fmt: skip
# Asking a module for parametrisations that it does not have costs as much as a small layer.
_USUAL = (nn.Linear, nn.LeakyReLU, nn.ReLU, nn.Dropout)


class Chain(NamedTuple):
    """What D applies, one after another, down to one logit or one patch of logits.

    layers: its linear maps. slopes: of the activation behind each, below zero, 1 for none; of ELU its alpha.
    activations: their names in ``ops.discriminator.ACTIVATIONS``. dropouts: how likely an element of what
    each map reads is dropped, now, in training or evaluation mode. norms: the batch norms between a map and
    its activation, by the map's number. flattens: the numbers of the maps that nn.Flatten stands before, and
    how many maps there are where it stands at the end. convolves: whether there is a convolution.
    """

    layers: tuple[Linear, ...]
    slopes: tuple[float, ...]
    norms: dict[int, BatchNorm]
    flattens: set[int]
    convolves: bool
    activations: tuple[str, ...]
    dropouts: tuple[float, ...]

    @property
    def drops(self) -> bool:
        return any(self.dropouts)

    @property
    def smooth(self) -> bool:
        return any(name != PIECEWISE for name in self.activations)

    @property
    def beyond(self) -> str:
        """What stands in it beside piecewise linear activations, a module's name; "" for nothing."""
        if self.drops:
            return "Dropout"
        name = next((name for name in self.activations if name != PIECEWISE), "")
        return next((m.__name__ for m, known in _SMOOTH.items() if name and name.startswith(known)), "")


def parse(D: nn.Module) -> Chain | str:
    """D as a chain, or what is in the way."""
    modules = stages(D)
    if isinstance(modules, str):
        return modules
    layers: list[Linear] = []
    slopes: list[float] = []
    activations: list[str] = []
    dropouts: list[float] = []
    norms: dict[int, BatchNorm] = {}
    flattens: set[int] = set()
    convolves, pending = False, 0.0
    for m in modules:
        layer = type(m)
        if layer not in _USUAL:
            layer = type_before_parametrizations(m)
        if layer is nn.Linear or layer in _CONVOLUTIONS:
            layers.append(m)  # type: ignore[arg-type]
            slopes.append(1.0)
            activations.append(PIECEWISE)
            dropouts.append(pending)
            pending = 0.0
            if layer is not nn.Linear:
                convolves = True
        elif layer is nn.Identity:
            continue
        elif isinstance(m, nn.Flatten) and layer is nn.Flatten and (m.start_dim, m.end_dim) == (1, -1):
            flattens.add(len(layers))
        elif isinstance(m, nn.Dropout) and layer is nn.Dropout:
            if reason := _unfit_dropout(m, bool(layers)):
                return reason
            # What two drop one after the other, one drops by itself as likely, at the same scale.
            pending += (1 - pending) * (m.p if m.training else 0.0)
            if pending == 1:
                return "Dropouts in a row drop all there is"  # as far as a double can tell
        elif not layers or slopes[-1] != 1.0 or activations[-1] != PIECEWISE or len(layers) in flattens:
            return _misplaced(layer)
        elif layer is nn.LeakyReLU or layer is nn.ReLU:
            slope = m.negative_slope if isinstance(m, nn.LeakyReLU) else 0.0
            if slope < 0:
                return f"LeakyReLU has the negative slope {slope}; the fused step needs 0 or more"
            slopes[-1] = slope  # it and dropout may change places
        elif layer in _SMOOTH:
            if pending:
                return f"{layer.__name__} stands behind Dropout; the fused step needs it before the Dropout"
            activations[-1] = _SMOOTH[layer]
            if isinstance(m, nn.GELU) and m.approximate == "tanh":
                activations[-1] = "gelu_tanh"
            elif isinstance(m, nn.ELU):
                slopes[-1] = float(m.alpha)
        elif (
            pending
            or len(layers) - 1 in norms
            or layer is not _NORMS.get(type_before_parametrizations(layers[-1]))
        ):
            return _misplaced(layer)
        elif not m.training:
            return f"{layer.__name__} is in evaluation mode; the fused step needs it in training mode"
        else:
            norms[len(layers) - 1] = m  # type: ignore[assignment]
    if not layers:
        return "D has no Linear and no convolution"
    if pending:
        return "Dropout stands behind D's last layer, where the fused step needs the logits"
    if slopes[-1] != 1.0 or activations[-1] != PIECEWISE or len(layers) - 1 in norms:
        return "D does not end in a Linear or a convolution"
    if _channels(layers[-1])[1] != 1:
        return "D's last layer has several outputs or channels; the fused step needs one logit or one patch"
    return Chain(
        tuple(layers), tuple(slopes), norms, flattens, convolves,
        activations=tuple(activations), dropouts=tuple(dropouts),
    )  # fmt: skip


def _misplaced(layer: type) -> str:
    """What is in the way where a module is not known, or known only elsewhere in a chain."""
    name = layer.__name__
    if layer in _NORMS.values():
        return (
            f"{name} has to stand directly behind a layer that it fits (BatchNorm1d: Linear or Conv1d, "
            "BatchNorm2d: Conv2d), before the activation and Dropout"
        )
    if layer is nn.Flatten:
        return "Flatten has to keep the first dim and join all others (start_dim=1, end_dim=-1)"
    if layer in (nn.ReLU, nn.LeakyReLU, *_SMOOTH):
        return f"{name} has to stand directly behind a Linear, a convolution or its batch norm"
    known = ", ".join(m.__name__ for m in (nn.ReLU, nn.LeakyReLU, *_SMOOTH))
    return (
        f"the fused step does not know {name}, only Linear, convolutions, batch norms, Flatten, Dropout and "
        f"these activations: {known}"
    )


def _unfit_dropout(m: nn.Dropout, behind_a_map: bool) -> str:
    """Why a step by hand cannot run it."""
    if m.training and m.p == 1:
        return "Dropout(p=1) drops everything; the fused step needs p below 1"
    if m.training and not 0 <= m.p < 1:
        return f"Dropout has a probability of {m.p}"  # which was put there later, and is for torch to refuse
    if m.training and m.p and m.inplace and not behind_a_map:
        return "Dropout(inplace=True) before the first layer would change the samples; leave inplace out"
    return ""


def _channels(m: Linear) -> tuple[int, int]:
    """How many a map reads, and how many it gives."""
    return (m.in_features, m.out_features) if isinstance(m, nn.Linear) else (m.in_channels, m.out_channels)


@dataclass(frozen=True)
class Map:
    """A linear map of a chain; flatten: before it. norm: behind it. slope: of the activation behind that,
    below zero, 1 for none. inner and outer: spatial sizes of what it reads and gives."""

    module: Linear
    flatten: bool
    norm: BatchNorm | None = None
    slope: float = 1.0
    inner: tuple[int, ...] = ()
    outer: tuple[int, ...] = ()

    @property
    def convolution(self) -> Convolution | None:
        """The module, where it is one."""
        return None if isinstance(self.module, nn.Linear) else self.module

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """What the weight has to be, a parametrised one too, without reading it."""
        m = self.module
        if isinstance(m, nn.Linear):
            return m.out_features, m.in_features
        return m.out_channels, m.in_channels // m.groups, *m.kernel_size

    def shaped(self, x: Tensor) -> Tensor:
        return x.flatten(1) if self.flatten else x

    def apply(self, x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
        """The linear map alone, of what ``shaped`` gives."""
        c = self.convolution
        if c is None:
            return F.linear(x, W, b)
        convolve = _CONVOLVE[len(c.kernel_size)]
        return convolve(x, W, b, c.stride, c.padding, dilation=c.dilation, groups=c.groups)


def maps(chain: Chain, shape: tuple[int, ...]) -> tuple[Map, ...] | str:
    """The chain's maps for samples of this shape [C, *spatial], or what is in the way. What does not fit
    together is for torch to refuse."""
    if 0 in shape:
        return f"the samples are empty: their shape is {list(shape)}"
    channels, sizes = shape[0], tuple(shape[1:])
    found: list[Map] = []
    for i, module in enumerate(chain.layers):
        flatten, norm, inner = i in chain.flattens, chain.norms.get(i), sizes
        name = type_before_parametrizations(module).__name__
        inputs, outputs = _channels(module)
        if isinstance(module, nn.Linear):
            if flatten:
                channels, sizes = channels * math.prod(sizes), ()
            if sizes:
                return "a Linear gets samples of more than one dim; put nn.Flatten() before it"
        else:
            if flatten and sizes:
                return "a convolution stands behind Flatten, which leaves no spatial dims"
            if reason := _unknown_geometry(module, name):
                return reason
            after = _convolved(module, sizes)
            if after is None:
                return f"{type(module).__name__} does not fit samples of this shape"
            sizes = after
        fits = channels == inputs and all(n > 0 for n in sizes)
        if not fits or (norm is not None and norm.num_features != outputs):
            return f"{name} does not fit samples of this shape"
        channels = outputs
        found.append(Map(module, flatten, norm, chain.slopes[i], inner, sizes))
    if len(found) in chain.flattens and math.prod(sizes) != 1:
        return "D ends in a Flatten that gives more than one logit a sample"
    return tuple(found)


def _unknown_geometry(m: Convolution, name: str) -> str:
    if m.padding_mode != "zeros" or isinstance(m.padding, str):
        return f"{name} pads in another way than with a number of zeros, which the fused step needs"
    if not all(isinstance(v, tuple) for v in (m.stride, m.padding, m.dilation)):
        return f"{name} has a stride, padding or dilation that was replaced by what is no tuple"
    return ""


def _convolved(m: Convolution, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
    """Spatial sizes behind a convolution, 0 where nothing is left; None where it has other dims."""
    padding = m.padding
    if isinstance(padding, str) or len(sizes) != len(m.kernel_size):
        return None
    if min(m.stride) < 1 or min(m.dilation) < 1 or min(padding) < 0:
        return None
    spans = [d * (k - 1) + 1 for k, d in zip(m.kernel_size, m.dilation, strict=True)]
    room = [n + 2 * p - span for n, p, span in zip(sizes, padding, spans, strict=True)]
    return tuple(r // s + 1 if r >= 0 else 0 for r, s in zip(room, m.stride, strict=True))


class Parameters(NamedTuple):
    """Of all maps, each read once: a parametrisation (spectral norm) then runs once a step."""

    weights: list[Tensor]
    biases: list[Tensor | None]
    norm_weights: list[Tensor | None]
    norm_biases: list[Tensor | None]

    def detached(self) -> Parameters:
        """The same without gradients, for a step that leaves D alone."""
        biases, norm_weights, norm_biases = (
            [t if t is None else t.detach() for t in group] for group in self[1:]
        )
        return Parameters([W.detach() for W in self.weights], biases, norm_weights, norm_biases)


def parameters(maps: tuple[Map, ...]) -> Parameters:
    norms = [m.norm for m in maps]
    return Parameters(
        [m.module.weight for m in maps],
        [m.module.bias for m in maps],
        [None if n is None else n.weight for n in norms],
        [None if n is None else n.bias for n in norms],
    )


def through(maps: tuple[Map, ...], x: Tensor, p: Parameters) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Logits [N] of samples x [N, ...] that pass together, each map's input, and what it gave, in torch's
    operators; differentiable any number of times. Running statistics of norms stay as they are."""
    inputs, outputs = [], []
    for i, m in enumerate(maps):
        x = m.shaped(x)
        inputs.append(x)
        x = m.apply(x, p.weights[i], p.biases[i])
        if m.norm is not None:
            affine = p.norm_weights[i], p.norm_biases[i]
            x = F.batch_norm(x, None, None, *affine, training=True, eps=m.norm.eps)
        outputs.append(x)
        if m.slope != 1.0:
            x = F.leaky_relu(x, m.slope)
    return x.flatten(1).mean(1), inputs, outputs
