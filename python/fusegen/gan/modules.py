"""What a discriminator's modules tell of it: whether it is a chain, hooked, wrapped, tied to its batch."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules import module as global_hooks
from torch.nn.utils.parametrize import type_before_parametrizations

from .blocks import HeldLabels, MinibatchStd, Projection, Residual

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# Modules that treat each sample of the first dim by itself and draw no random numbers, so that real and fake
# samples can pass together.
_PER_SAMPLE = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Flatten, nn.Identity, nn.ReLU, nn.LeakyReLU, nn.Tanh,
    nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Sigmoid, nn.GroupNorm, nn.LayerNorm, nn.AvgPool1d, nn.AvgPool2d,
    nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Upsample, nn.ZeroPad2d,
)  # fmt: skip

_DROPOUTS = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip


def hooked(m: nn.Module) -> bool:
    """True if something is called whenever this module is, or in place of its forward."""
    return bool(
        "forward" in m.__dict__
        or m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
    )  # fmt: skip


def every_hooked() -> bool:
    """True if something is called whenever any module is."""
    every = global_hooks
    return bool(
        every._global_forward_hooks or every._global_forward_pre_hooks
        or every._global_backward_hooks or every._global_backward_pre_hooks
    )  # fmt: skip


def original(D: nn.Module) -> nn.Module:
    """D, or the module that torch.compile(D) wraps."""
    return D._orig_mod if type(D).__module__.startswith("torch._dynamo") else D  # type: ignore[return-value]


def is_compiled(D: nn.Module) -> bool:
    """Whether torch.compile was given D, a part of it or the forward of one."""
    return any(
        original(m) is not m
        or m._compiled_call_impl is not None
        or hasattr(m.forward, "_torchdynamo_orig_callable")
        for m in D.modules()
    )


def stages(D: nn.Module) -> list[nn.Module] | str:
    """The modules that an nn.Sequential applies one after another, those of nested ones in their place; of
    another kind of module, what is in the way."""
    if type(D) is not nn.Sequential:
        if original(D) is not D:
            return "D is compiled; the fused step runs an nn.Sequential as it was before torch.compile"
        return f"{type(D).__name__} has a forward of its own; the fused step runs an nn.Sequential"
    if hooked(D) or every_hooked():
        return "D has hooks or a replaced forward, which the fused step would not call; remove them"
    found: list[nn.Module] = []
    for child in D:
        if type(child) is nn.Sequential:
            inner = stages(child)
            if isinstance(inner, str):
                return inner
            found += inner
        elif hooked(child):
            name = type(child).__name__
            return f"{name} has hooks or a replaced forward, which the fused step would not call; remove them"
        else:
            found.append(child)
    return found


def ties_samples(D: nn.Module) -> bool:
    """Whether D takes statistics over the batch."""
    return any(isinstance(m, (*BATCH_NORMS, MinibatchStd)) for m in D.modules())


def per_sample(D: nn.Module) -> bool:
    """True if D is a chain of modules known to treat each sample of the first dim by itself."""
    if type(D) is Projection and not hooked(D) and not unusual_head(D):
        return _per_sample(D.body)
    if type(D) is HeldLabels and not hooked(D):
        return _per_sample(D.D)
    found = stages(D)
    return not isinstance(found, str) and all(_per_sample(m) for m in found)


def _per_sample(m: nn.Module) -> bool:
    if type(m) is Residual and not hooked(m):
        return _per_sample(m.body) and (m.shortcut is None or _per_sample(m.shortcut))
    if type(m) is nn.Sequential:
        return per_sample(m)
    return type_before_parametrizations(m) in _PER_SAMPLE and not hooked(m)


def unusual_head(D: Projection) -> str:
    """What in a projection's own layers does more than to multiply, and to look up; "" for nothing."""
    for m, layer in ((D.linear, nn.Linear), (D.embedding, nn.Embedding)):
        if type_before_parametrizations(m) is not layer:
            return f"Projection has a {type(m).__name__} for a {layer.__name__}"
        if hooked(m):
            return f"Projection's {layer.__name__} has hooks, or a forward put in its place"
    E = D.embedding
    if E.padding_idx is not None or E.max_norm is not None or E.scale_grad_by_freq or E.sparse:
        return "Projection's Embedding has a padding_idx, max_norm, scale_grad_by_freq or sparse gradients"
    return ""


def drops(D: nn.Module) -> bool:
    """Whether modules of D draw random numbers: dropout of every kind, between recurrent layers too."""
    return any(m.training and _rate(m) for m in D.modules())


def _rate(m: nn.Module) -> float:
    """How likely a module drops an element; 1 of other draws."""
    if isinstance(m, nn.RReLU):
        return 1.0
    rate = getattr(m, "p" if isinstance(m, _DROPOUTS) else "dropout", 0.0)
    return rate if isinstance(rate, (int, float)) else 0.0


def takes_labels(D: nn.Module) -> tuple[bool, bool]:
    """Whether D's forward can be given labels behind the samples, and whether it has to be."""
    if isinstance(D, torch.jit.ScriptModule):  # whose forward has no signature that Python could read
        return True, False
    return _takes_labels(type(original(D)).forward)


@functools.cache
def _takes_labels(forward: Callable[..., object]) -> tuple[bool, bool]:
    kinds = inspect.Parameter
    found = list(inspect.signature(forward).parameters.values())[1:]
    if any(p.kind is kinds.VAR_POSITIONAL for p in found):
        return True, False
    by_position = [p for p in found if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    return len(by_position) > 1, len(by_position) > 1 and by_position[1].default is kinds.empty


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
    return type(D) is not nn.Sequential and isinstance(D, (nn.parallel.DistributedDataParallel, *_fsdp()))


def has_sharded_layers(D: nn.Module) -> bool:
    """Whether FSDP was told to shard parts of D one by one."""
    classes = _fsdp()
    return bool(classes) and any(isinstance(m, classes) for m in D.modules())


def _fsdp() -> tuple[type, ...]:
    """FSDP's classes of both generations."""
    # An instance has imported it, and nobody else should pay.
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return () if fsdp is None else (fsdp.FullyShardedDataParallel, fsdp.FSDPModule)
