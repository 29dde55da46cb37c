"""Whether a task's model and what is drawn from it fit in memory, said before they are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TypeVar

import torch
from torch import nn

from ...data._memory import GB, check_fits, memory, told
from ..options import Options, flag

M = TypeVar("M", bound=nn.Module)

DRAWN = 4 * GB  # what samples may take on their way into a file, every copy of them counted
PIXEL, ARTIST = 32, 40_000  # bytes of a value and of an image in a picture, as matplotlib's peak has them
_TRAINED = 4  # a weight, its gradient and Adam's two moments


def check_drawn(
    cost: Callable[..., float], asked: Mapping[str, int], usual: Mapping[str, int], made: str = "the samples"
) -> None:
    """Raises ValueError, naming the option, where what is to be drawn would not fit; as `check_fits`."""
    check_fits(cost, asked, usual, made, most=min(DRAWN, memory() // 2))


def picture_bytes(count: int, shape: Sequence[int]) -> float:
    """Of a picture of so many images [C, H, W]."""
    C, H, W = shape
    return count * (ARTIST + PIXEL * max(C, 3) * H * W)


def built(make: Callable[[], M], sizes: Sequence[str], *options: Options) -> M:
    """The module that `make` makes. Raises ValueError before it is made, naming one of `sizes`, the options
    that say how large it is, where its weights alone would not fit in memory."""
    try:
        with torch.device("meta"):
            made = make()
    except (RuntimeError, OverflowError, TypeError) as error:
        text = str(error).lower()
        if "overflow" not in text and "too large" not in text:
            raise
        raise _too_large(sizes, options, "more weights than can be counted") from error
    count = sum(each.numel() * each.element_size() for each in (*made.parameters(), *made.buffers()))
    if count > memory():
        raise _too_large(sizes, options, f"{told(count)} of weights")
    return make()


def check_trained(model: nn.Module, device: torch.device, sizes: Sequence[str], *options: Options) -> None:
    """Raises ValueError, naming an option as `built` does, where a model would not fit on the CPU beside its
    gradients and Adam's moments. A GPU says itself where it has no more."""
    count = _TRAINED * sum(each.numel() * each.element_size() for each in model.parameters())
    if device.type == "cpu" and count > memory():
        what = f"{told(count)} of weights, their gradients and the optimiser's moments"
        raise _too_large(sizes, options, what)


def smaller(sizes: Sequence[str], *options: Options) -> str:
    """ "smaller --batch (64), --hidden (256)": those of `sizes` that the options have, and their values."""
    return "smaller " + ", ".join(
        f"{flag(each.name)} ({getattr(own, each.name)})"
        for own in options
        for each in fields(own)
        if each.name in sizes and getattr(own, each.name) is not None
    )


def _too_large(sizes: Sequence[str], options: Sequence[Options], what: str) -> ValueError:
    found = [(own, each) for own in options for each in fields(own) if each.name in sizes]
    values = {each.name: getattr(own, each.name) for own, each in found}
    usual = {each.name: max(1, _size(each.default)) for _, each in found}
    name = max(values, key=lambda each: _size(values[each]) / usual[each])
    besides = ", ".join(
        f"{flag(each)} {value}" for each, value in values.items() if each != name and value is not None
    )
    return ValueError(
        f"{name}: expected a model that fits in memory, {told(memory())}, got {values[name]}, which with "
        f"{besides} makes {what}"
    )


def _size(value: object) -> int:
    """Of an option: the largest number in it."""
    numbers = str(value).split(",")
    return max(int(each) for each in numbers) if all(each.strip().isdecimal() for each in numbers) else 0
