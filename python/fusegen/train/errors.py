"""Errors of torch that have no type of their own, given one: its words are read here and nowhere else."""

import contextlib
import re
from collections.abc import Iterator

import torch
import torch.distributed as dist

from .._errors import first_line
from ..data._memory import told


class NotEnoughMemory(RuntimeError):
    """What was asked for does not fit into the memory of the CPU or the GPU."""


class ProcessLost(RuntimeError):
    """Another process of the run did not answer."""


@contextlib.contextmanager
def typed() -> Iterator[None]:
    """Raises NotEnoughMemory and ProcessLost where torch raises a RuntimeError that says so, NotEnoughMemory
    for a MemoryError; others pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        found = type_of(error)
        if found is type(error):
            raise
        raise found(_said(error) if found is NotEnoughMemory else first_line(error)) from error


def _said(error: BaseException) -> str:
    """What did not fit. The CPU's allocator says it behind what it enforces, in its own source's lines."""
    line = first_line(error)
    asked = re.search(r"DefaultCPUAllocator.*you tried to allocate (\d+) bytes", line)
    return f"{told(int(asked[1]))} at once cannot be had" if asked else line


def type_of(error: RuntimeError | MemoryError) -> type[BaseException]:
    """What `typed` would raise for an error."""
    if isinstance(error, MemoryError):  # Python's and numpy's own
        return NotEnoughMemory
    text = str(error).lower()
    # The CPU's allocator raises a plain RuntimeError, CUDA's own calls one of several types.
    if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in text or "out of memory" in text:
        return NotEnoughMemory
    # An exchange of gradients that fails within backward is a plain RuntimeError too.
    if isinstance(error, dist.DistError) or any(word in text for word in ("gloo", "nccl", "tcpstore")):
        return ProcessLost
    return type(error)
