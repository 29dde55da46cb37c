"""Checks of what a step is given: each error names the argument, what was expected and what came."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._arguments import check_floats, whole
from . import modules
from .blocks import Projection
from .objective import Objective


def penalty(name: str, weight: float) -> float:
    if type(weight) is not float and (isinstance(weight, bool) or not isinstance(weight, (int, float))):
        raise TypeError(f"{name}: expected a number, got {type(weight).__name__}")
    if not 0 <= weight <= sys.float_info.max:  # an int may be beyond
        raise ValueError(f"{name}: expected a finite weight of at least 0, got {weight}")
    return float(weight)


def deviation(name: str, given: float | None, penalty: str, weight: float) -> float:
    """The weight of squared differences: ``weight`` over the square of this deviation, 0 for None. Raises
    ValueError for a deviation without a weight, which would change nothing."""
    if given is None:
        return 0.0
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise TypeError(f"{name}: expected a number or None, got {type(given).__name__}")
    if not 0 < given <= sys.float_info.max:
        raise ValueError(
            f"{name}: expected a finite deviation above 0 of the noise, got {given}; None is exact"
        )
    if not weight:
        raise ValueError(
            f"{name}: expected a weight {penalty} above 0 beside it, got {penalty}={weight}: without one "
            f"there is no penalty to approximate; give {penalty}=, or leave {name} out"
        )
    square = float(given) * float(given)  # where ** would raise, this is infinity
    if square == 0 or weight / square > sys.float_info.max or weight / square == 0:
        raise ValueError(f"{name}: expected a finite {penalty} / {name}^2 above 0, got {weight} and {given}")
    return weight / square


def counted(D: nn.Module) -> tuple[int, int] | None:
    """The dim of D's input along which conditions lie behind a sample, and how much of it is the sample."""
    if type(D) is nn.Sequential:  # which searches long for what it does not have
        return None
    at, width = getattr(D, "condition_dim", None), getattr(D, "width", None)
    return None if at is None or width is None else (whole("condition_dim", at, 0), whole("width", width, 1))


def conditions(counted: tuple[int, int] | None, name: str, x: Tensor) -> None:
    """Whether samples have as many features as are to count. Raises ValueError."""
    if counted is None:
        return
    at, width = counted
    if at >= x.dim() or x.shape[at] < width:
        raise ValueError(
            f"width: expected at most what samples have along dim {at}, got {width} and {name} of shape "
            f"{list(x.shape)}"
        )


def labels(
    D: nn.Module, both: object, real: object, fake: object, sizes: tuple[int, int]
) -> tuple[Tensor | None, Tensor | None]:
    """Those of real and of fake samples, checked against D and the samples."""
    if both is not None:
        if real is not None or fake is not None:
            raise ValueError("labels: expected labels alone, or real_labels and fake_labels, got both")
        pair = (("labels", both), ("labels", both))
    else:
        pair = (("real_labels", real), ("fake_labels", fake))
    if pair[0][1] is None and pair[1][1] is None:
        _without_labels(D)
        return None, None
    _with_labels(D, pair[0][0])
    r, f = (_labels(name, given, n, D) for (name, given), n in zip(pair, sizes, strict=True))
    return r, f


def generator_labels(
    D: nn.Module, labels: object, real: object, pairs: bool, samples: int
) -> tuple[Tensor | None, Tensor | None]:
    """Those of real samples, where the loss pairs them, and of fake ones."""
    if labels is None and real is None:
        _without_labels(D)
        return None, None
    _with_labels(D, "labels" if real is None else "real_labels")
    fake = _labels("labels", labels, samples, D)
    if not pairs:
        return None, fake
    return (fake if real is None else _labels("real_labels", real, samples, D)), fake


def not_packed(pac: int, D: nn.Module, labels: tuple[Tensor | None, Tensor | None]) -> None:
    """A packed sample has no one label, and its conditions lie between its samples."""
    if pac != 1 and (labels != (None, None) or counted(D) is not None):
        what = "labels" if counted(D) is None else type(modules.original(D)).__name__
        conditions = "" if counted(D) is None else "'s conditions"
        raise ValueError(
            f"pac: expected 1 with {what}{conditions}, which samples packed together do not share, got {pac}"
        )


def paired_labels(labels: tuple[Tensor | None, Tensor | None]) -> None:
    """What lies between a real and a fake sample has the label of both."""
    r, f = labels
    if r is not f and r is not None and f is not None and not r.is_meta and not torch.equal(r, f):
        raise ValueError("gp: expected pairs of real and fake samples of the same label, got others")


def _without_labels(D: nn.Module) -> None:
    if type(D) is nn.Sequential or torch.compiler.is_compiling():  # which does not see through a signature
        return
    if modules.takes_labels(D)[1]:
        raise ValueError(
            f"labels: {type(modules.original(D)).__name__} takes samples and their labels, got None; give "
            "labels= (or real_labels= and fake_labels=)"
        )


def _with_labels(D: nn.Module, name: str) -> None:
    if not torch.compiler.is_compiling() and not modules.takes_labels(D)[0]:
        raise ValueError(
            f"{name}: {type(modules.original(D)).__name__} takes samples alone, got labels for it"
        )


def _labels(name: str, given: object, n: int, D: nn.Module) -> Tensor:
    if not isinstance(given, Tensor):
        raise TypeError(f"{name}: expected a tensor [{n}] of labels, got {type(given).__name__}")
    if given.dim() == 0 or len(given) != n:
        raise ValueError(f"{name}: expected a label for each of {n} samples, got shape {list(given.shape)}")
    D = modules.original(D)
    if not isinstance(D, Projection) or type(D).forward is not Projection.forward:
        return given
    classes = D.embedding.num_embeddings
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool or given.dim() != 1:
        raise ValueError(f"{name}: expected integers [{n}], got {given.dtype} {list(given.shape)}")
    if given.device.type == "cpu" and type(given) is Tensor:  # elsewhere it would wait for the device
        low, high = (int(end) for end in given.aminmax())
        if low < 0 or high >= classes:
            raise ValueError(f"{name}: expected classes from 0 to {classes - 1}, got {low} to {high}")
    return given.long()


def network(D: nn.Module) -> None:
    if not isinstance(D, nn.Module):
        raise TypeError(f"D: expected an nn.Module, got {type(D).__name__}")
    D = modules.original(D)
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
