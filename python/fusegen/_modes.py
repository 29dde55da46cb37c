"""What a module is measured as: in evaluation mode for a while, with an average of its weights; and where
and in what dtype it computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


@contextmanager
def evaluating(module: M) -> Iterator[M]:
    """``module`` in evaluation mode; afterwards each part of it is in the mode that it was in before, also
    where they differed."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield module
    finally:
        for part, mode in modes.items():
            part.training = mode


def like_of(module: nn.Module) -> Tensor:
    """A tensor of the device and the floating dtype that ``module`` computes in: a parameter, or a buffer
    where none has a parameter, as those of 8 bits."""
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            return tensor
    return torch.empty(0)


_Tensors = tuple[Tensor, ...] | list[Tensor]


class Average:
    """The update of an exponential moving average for ``AveragedModel``.

    The decay rises with the number of updates t as min(decay, (1 + t) / (10 + t)), the schedule of
    tf.train.ExponentialMovingAverage, so that the first, untrained weights are soon forgotten. Integer
    buffers (BatchNorm's counter) are copied.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def __call__(self, averages: _Tensors, now: _Tensors, updates: Tensor | int) -> None:
        t = int(updates)
        decay = min(self.decay, (1 + t) / (10 + t))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, now, 1 - decay)
        else:
            torch._foreach_copy_(averages, now)
