"""What a stack of layers is asked to do inside its recurrences, checked: each error names the argument, what
was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _arguments
from .._inside import Inside, single

_autocast = torch._C._is_any_autocast_enabled


class Rates(NamedTuple):
    """Probabilities: of masks as ``Inside`` has them, and that an element of R is dropped."""

    state: float = 0.0
    candidate: float = 0.0
    zoneout_h: float = 0.0
    zoneout_c: float = 0.0
    weight_drop: float = 0.0

    @property
    def of_masks(self) -> tuple[float, ...]:
        """Those that kernels take, or ()."""
        return self[:4] if any(self[:4]) else ()


NO_RATES = Rates()


class Asked(NamedTuple):
    """Of a whole stack of L layers; as ``Inside``, but for states [L*D, B, ...]."""

    resets: Tensor | None
    reset_h: Tensor | None
    reset_c: Tensor | None
    rates: Rates
    training: bool
    generator: torch.Generator | None

    def reordered(self, order: Tensor) -> Asked:
        """With the states of sequences in this order."""
        h, c = (None if s is None else s.index_select(1, order) for s in (self.reset_h, self.reset_c))
        return self._replace(reset_h=h, reset_c=c)

    @property
    def is_random(self) -> bool:
        return self.training and any(self.rates)

    @property
    def rates_of_masks(self) -> tuple[float, ...]:
        """Of this call: evaluation drops nothing."""
        rates = self.rates
        return (rates if self.training else rates._replace(state=0.0, candidate=0.0)).of_masks

    @property
    def inside_kernels(self) -> bool:
        """Whether the recurrence itself is another: weights are dropped before it."""
        return self.resets is not None or bool(self.rates_of_masks)

    def of_layer(self, layer: int, D: int, key: Tensor | None) -> Inside | None:
        if not self.inside_kernels:
            return None
        part = slice(layer * D, (layer + 1) * D)
        h, c = (None if s is None else s[part] for s in (self.reset_h, self.reset_c))
        rates = self.rates_of_masks
        state = (self.resets, h, c)
        return Inside(*state, key if rates else None, rates=rates, layer=layer, training=self.training)


def as_rates(
    what: str,
    states: int,
    *,
    recurrent_dropout: object,
    recurrent_dropout_on: object,
    zoneout: object,
    weight_drop: object,
) -> Rates:
    """Of the arguments of a layer, or of a functional form. Raises TypeError for what is no number,
    ValueError for one outside [0, 1) and another name."""
    on = _arguments.choice(f"{what}: recurrent_dropout_on", recurrent_dropout_on, ("state", "candidate"))
    dropout = _probability(what, "recurrent_dropout", recurrent_dropout)
    if states == 2:
        pair = f"{what}: expected zoneout as a pair of numbers, of h and c, got {zoneout!r}"
        if isinstance(zoneout, (int, float)) and not isinstance(zoneout, bool):
            raise ValueError(pair)
        if not isinstance(zoneout, Sequence) or isinstance(zoneout, str):
            raise TypeError(pair)
        if len(zoneout) != 2:
            raise ValueError(pair)
        zones = [_probability(what, f"zoneout[{i}]", rate) for i, rate in enumerate(zoneout)]
    else:
        zones = [_probability(what, "zoneout", zoneout), 0.0]
    dropped = _probability(what, "weight_drop", weight_drop)
    state, candidate = (dropout, 0.0) if on == "state" else (0.0, dropout)
    return Rates(state, candidate, zones[0], zones[1], dropped)


def _probability(what: str, name: str, rate: object) -> float:
    number = _arguments.number(f"{what}: {name}", rate, 0, 1, open_above=True)
    if single(number) == 1.0:  # all would be dropped, and what is kept be divided by 0
        raise ValueError(f"{what}: {name}: expected a number that is below 1 in float32, got {rate!r}")
    return number


def as_resets(what: str, resets: object, shape: tuple[int, ...], order: str) -> Tensor:
    """``resets``, checked: a bool tensor of this shape, which errors call ``order``."""
    if not isinstance(resets, Tensor):
        raise TypeError(f"{what}: expected resets to be a bool Tensor {order}, got {type(resets).__name__}")
    if resets.dtype != torch.bool:
        raise TypeError(f"{what}: expected resets of dtype torch.bool, got {resets.dtype}")
    if resets.layout != torch.strided or resets.is_meta:
        kind = "meta" if resets.is_meta else str(resets.layout)
        raise ValueError(f"{what}: expected resets as a dense tensor with values, got a {kind} one")
    if tuple(resets.shape) != shape:
        raise ValueError(f"{what}: expected resets of shape {shape}, {order}, got {tuple(resets.shape)}")
    return resets


def own(resets: Tensor, x: Tensor) -> Tensor:
    """[T, B], beside x, in memory of its own: the caller may write the next batch's into his before
    backward."""
    return resets.detach().to(x.device, copy=True, memory_format=torch.contiguous_format)


def as_starts(
    what: str, reset_to: Any, x: Tensor, planes: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """``reset_to`` as states [*planes, n] for each of ``sizes``: a tensor, or of an LSTM a pair, each of that
    shape or [n] for all."""
    given = (reset_to,) if len(sizes) == 1 else reset_to
    if not isinstance(given, (tuple, list)) or len(given) != len(sizes):
        count = f" of {len(given)}" if isinstance(given, (tuple, list)) else ""
        raise TypeError(f"{what}: expected reset_to as a pair (h, c), got {type(reset_to).__name__}{count}")
    made = []
    for i, (s, n) in enumerate(zip(given, sizes, strict=True)):
        name = "reset_to" if len(sizes) == 1 else f"reset_to[{i}]"
        if not isinstance(s, Tensor):
            raise TypeError(f"{what}: expected {name} to be a Tensor, got {type(s).__name__}")
        if tuple(s.shape) not in ((*planes, n), (n,)):
            raise ValueError(
                f"{what}: expected {name} of shape {(*planes, n)}, or {(n,)} for all, got {tuple(s.shape)}"
            )
        if s.device != x.device:
            raise ValueError(f"{what}: expected {name} on {x.device}, where the input is, got {s.device}")
        if s.dtype != x.dtype and not _autocast():
            raise ValueError(f"{what}: expected {name} of the input's dtype {x.dtype}, got {s.dtype}")
        made.append(s.expand(*planes, n))
    return made[0], made[1] if len(made) > 1 else None


def as_generator(what: str, generator: object) -> torch.Generator | None:
    """``generator``, checked: None or a CPU generator."""
    if generator is None or (isinstance(generator, torch.Generator) and generator.device.type == "cpu"):
        return generator
    came = (
        f"one of {generator.device}" if isinstance(generator, torch.Generator) else type(generator).__name__
    )
    raise TypeError(f"{what}: expected generator to be a torch.Generator of the CPU, got {came}")
