"""Checks of what a step is given: each error names the argument, what was expected and what came."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._arguments import check_floats, whole
from . import modules
from .objective import Objective


def penalty(name: str, weight: float) -> float:
    if type(weight) is not float and (isinstance(weight, bool) or not isinstance(weight, (int, float))):
        raise TypeError(f"{name}: expected a number, got {type(weight).__name__}")
    if not 0 <= weight <= sys.float_info.max:  # an int may be beyond
        raise ValueError(f"{name}: expected a finite weight of at least 0, got {weight}")
    return float(weight)


def network(D: nn.Module) -> None:
    if not isinstance(D, nn.Module):
        raise TypeError(f"D: expected an nn.Module, got {type(D).__name__}")
    if modules.is_wrapped(D):
        raise RuntimeError(
            f"D: {type(D).__name__} reduces only what runs through its own forward; wrap "
            "fusegen.gan.DiscriminatorStep(D) instead and call that"
        )
    if modules.ends_in_sigmoid(D):
        raise ValueError("D: expected logits, but it ends in a Sigmoid; drop it, the losses contain it")


def whole_layers(D: nn.Module, penalties: Sequence[str]) -> None:
    """Penalties need D's weights until their backward."""
    if penalties and modules.has_sharded_layers(D):
        raise RuntimeError(
            f"{penalties[0]}: a penalty differentiates through D twice, but FSDP shards parts of D one by "
            "one and frees their weights in between; shard fusegen.gan.DiscriminatorStep(D) as one unit "
            "instead"
        )


def sample_dim(D: nn.Module, given: int | None) -> int:
    """The dim along which samples lie: the given one, D's own, or 0."""
    if given is None and type(D) is nn.Sequential:  # which searches long for what it does not have
        given = D.__dict__.get("sample_dim")
    elif given is None:
        given = getattr(D, "sample_dim", None)
    if given is None:
        return 0
    return given if type(given) is int else whole("sample_dim", given, 0)


def sample(name: str, x: Tensor, dim: int) -> None:
    check_floats(name, x)
    if not 0 <= dim < x.dim():
        raise ValueError(f"{name}: expected samples along dim {dim}, got shape {list(x.shape)}")
    if x.shape[dim] == 0:
        raise ValueError(f"{name}: expected at least one sample, got shape {list(x.shape)}")


def samples(real: Tensor, fake: Tensor, dim: int) -> None:
    sample("real", real, dim)
    sample("fake", fake, dim)
    if real.device != fake.device:
        raise RuntimeError(f"real, fake: expected the same device, got {real.device} and {fake.device}")
    if real.dtype != fake.dtype:
        raise RuntimeError(f"real, fake: expected the same dtype, got {real.dtype} and {fake.dtype}")
    if real.shape != fake.shape:
        ours, theirs = ([*x.shape[:dim], *x.shape[dim + 1 :]] for x in (real, fake))
        if ours != theirs:
            raise ValueError(f"real, fake: expected samples of the same shape, got {ours} and {theirs}")


def features(D: nn.Module, name: str, x: Tensor) -> None:
    """A D of one's own may take samples [N]; layers read them as one sample."""
    if x.dim() == 1 and modules.per_sample(D):
        raise ValueError(f"{name}: expected samples of features, [N, ...], got shape {list(x.shape)}")


def packed(name: str, x: Tensor, dim: int, pac: int) -> Tensor:
    """``pac`` neighbours along ``dim`` as one sample, their features, along the next dim, side by side."""
    if type(pac) is not int:
        pac = whole("pac", pac, 1)
    if pac == 1:
        return x
    count, shape = x.shape[dim], [*x.shape]
    if pac < 1 or count % pac:
        raise ValueError(f"pac: expected at least 1 that divides {count} {name} samples, got {pac}")
    features = shape[dim + 1] if dim + 1 < len(shape) else 1
    return x.reshape(*shape[:dim], count // pac, pac * features, *shape[dim + 2 :])


def pairs(objective: Objective, real: Tensor, fake: Tensor, dim: int) -> None:
    if (objective.gp or objective.loss == "relativistic") and real.shape[dim] != fake.shape[dim]:
        what = f"gp={objective.gp}" if objective.gp else "the relativistic loss"
        raise ValueError(
            f"real, fake: expected equal sizes for {what}, got {real.shape[dim]} and {fake.shape[dim]}"
        )


def random_generator(generator: torch.Generator, like: Tensor | None) -> None:
    """like: what it draws for, if anything."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator, got {type(generator).__name__}")
    if like is None or like.is_meta:
        return
    ours, theirs = generator.device, like.device
    if ours.type != theirs.type or (None not in (ours.index, theirs.index) and ours.index != theirs.index):
        raise RuntimeError(f"generator: expected one of {theirs}, as the samples, got one of {ours}")


def parameters(
    fake: Tensor, weights: Sequence[Tensor | None], biases: Sequence[Tensor | None], layer: str
) -> None:
    """Raises RuntimeError where D's are on another device than the samples, or of another dtype."""
    dtype, device, on_cpu = fake.dtype, fake.device, fake.is_cpu
    for t in (*weights, *biases):
        # Two devices take longer to compare than a small layer's arithmetic.
        if t is not None and (t.dtype is not dtype or not (t.is_cpu if on_cpu else t.device == device)):
            break
    else:
        return
    for i, pair in enumerate(zip(weights, biases, strict=True)):
        for name, t in zip(("weight", "bias"), pair, strict=True):
            if t is None:
                continue
            if t.device != fake.device:
                raise RuntimeError(f"D: {name} of {layer} {i} is on {t.device}, the samples on {fake.device}")
            if t.dtype != fake.dtype:
                raise RuntimeError(f"D: {name} of {layer} {i} is {t.dtype}, the samples are {fake.dtype}")
