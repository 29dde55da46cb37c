"""Evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

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
