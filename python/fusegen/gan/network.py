"""What kind of discriminator this is: a stack of dense layers that the fused step knows, or why it is not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks
from torch.nn.utils.parametrize import type_before_parametrizations

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_DENSE = (nn.Linear, nn.LeakyReLU, nn.ReLU)
# Modules that treat each sample of the first dim by itself and draw no random numbers, so that real and fake
# samples can pass together.
_PER_SAMPLE = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Flatten, nn.Identity, nn.ReLU, nn.LeakyReLU, nn.Tanh,
    nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Sigmoid, nn.GroupNorm, nn.LayerNorm, nn.AvgPool1d, nn.AvgPool2d,
    nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Upsample, nn.ZeroPad2d,
)  # fmt: skip


class NotKnown(Exception):
    """A network is of another kind than was asked for; the text says what is in the way."""


@dataclass(frozen=True)
class Dense:
    """Dense layers [n_l, n_{l-1}] down to one output, with the slopes of their activations below zero."""

    layers: tuple[nn.Linear, ...]
    slopes: tuple[float, ...]
    flatten: bool

    def parameters(self) -> tuple[list[Tensor], list[Tensor | None]]:
        """Weights and biases, each read once: a parametrisation (spectral norm) then runs once a step."""
        return [m.weight for m in self.layers], [m.bias for m in self.layers]

    def logits(self, x: Tensor) -> Tensor:
        """[N] of samples [N, ...], in torch's operators: the network without its modules' calls."""
        x = x.flatten(1)
        for m, slope in zip(self.layers, (*self.slopes, 1.0), strict=True):
            x = F.linear(x, m.weight, m.bias)
            if slope != 1.0:
                x = F.leaky_relu(x, slope) if slope else F.relu(x)
        return x.squeeze(1)


def hooked(module: nn.Module) -> bool:
    """True if something is called whenever this module, or any module, is, or in place of its forward."""
    m, every = module, global_hooks
    return bool(
        "forward" in m.__dict__
        or m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        or every._global_forward_hooks or every._global_forward_pre_hooks
        or every._global_backward_hooks or every._global_backward_pre_hooks
    )  # fmt: skip


def stages(D: nn.Module) -> Iterator[nn.Module]:
    """The modules that an nn.Sequential applies one after another, those of nested ones in their place.

    Raises NotKnown, saying what is in the way, for another kind of module.
    """
    if type(D) is not nn.Sequential:
        raise NotKnown(f"{type(D).__name__} is not an nn.Sequential but has a forward of its own")
    if hooked(D):
        raise NotKnown(
            "the network has hooks, which would see the layers' inputs, or a forward put in its place"
        )
    for child in D:
        if type(child) is nn.Sequential:
            yield from stages(child)
        elif hooked(child):
            kind = type(child).__name__
            raise NotKnown(f"{kind} has hooks, which would see its input, or a forward put in its place")
        else:
            yield child


def dense(D: nn.Module) -> Dense:
    """D as dense layers. Raises NotKnown, saying what is in the way, where it is something else."""
    layers: list[nn.Linear] = []
    slopes: list[float] = []
    flatten = False
    for m in stages(D):
        # Asking a module for parametrisations that it does not have costs as much as a small layer.
        kind = type(m) if type(m) in _DENSE else type_before_parametrizations(m)
        if kind is nn.Flatten and not layers and (m.start_dim, m.end_dim) == (1, -1):
            flatten = True
        elif kind is nn.Linear:
            layers.append(m)
            slopes.append(1.0)
        elif kind in (nn.ReLU, nn.LeakyReLU) and layers and slopes[-1] == 1.0:
            slopes[-1] = slope_of(m)
        elif kind is not nn.Identity:
            raise NotKnown(
                f"{kind.__name__} stands where the fused step knows dense layers, ReLU and LeakyReLU only"
            )
    if not layers:
        raise NotKnown("there is no dense layer")
    if layers[-1].out_features != 1 or slopes.pop() != 1.0:
        raise NotKnown("the last layer does not give one logit a sample")
    return Dense(tuple(layers), tuple(slopes), flatten)


def slope_of(m: nn.Module) -> float:
    """Of a ReLU or LeakyReLU below zero. Raises NotKnown where it is negative."""
    slope = m.negative_slope if isinstance(m, nn.LeakyReLU) else 0.0
    if slope < 0:
        raise NotKnown(f"a LeakyReLU of negative slope {slope} is not monotonic")
    return slope


def has_batch_norm(D: nn.Module) -> bool:
    """Whether D takes statistics over the batch."""
    return any(isinstance(m, BATCH_NORMS) for m in D.modules())


def per_sample(D: nn.Module) -> bool:
    """True if D is a chain of modules known to treat each sample of the first dim by itself."""
    try:
        return all(type_before_parametrizations(m) in _PER_SAMPLE for m in stages(D))
    except NotKnown:
        return False


def ends_in_sigmoid(D: nn.Module) -> bool:
    """True if the last module of a chain is a Sigmoid."""
    last = D
    while isinstance(last, nn.Sequential) and last._modules:
        last = next(reversed(last._modules.values()))
    return isinstance(last, nn.Sigmoid)


def has_recurrence(D: nn.Module) -> bool:
    """Whether fusegen's recurrent layers or cells are in D."""
    return any(type_before_parametrizations(m).__module__.startswith("fusegen.nn") for m in D.modules())


def is_wrapped(D: nn.Module) -> bool:
    """Whether D is an instance of DDP or FSDP: of FullyShardedDataParallel, or of what fully_shard makes."""
    return isinstance(D, (nn.parallel.DistributedDataParallel, *_fsdp()))


def has_sharded_layers(D: nn.Module) -> bool:
    """Whether FSDP was told to shard parts of D one by one."""
    kinds = _fsdp()
    return bool(kinds) and any(isinstance(m, kinds) for m in D.modules())


def _fsdp() -> tuple[type, ...]:
    """FSDP's classes of both generations."""
    # An instance has imported it, and nobody else should pay.
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return () if fsdp is None else (fsdp.FullyShardedDataParallel, fsdp.FSDPModule)
