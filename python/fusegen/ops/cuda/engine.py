"""What runs the CUDA half of an op."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _C


class Engine(NamedTuple):
    """The module that has the kernels, and the transport that a recurrence is asked to use: "best", or one of
    "launch", "block", "l2", "cluster"."""

    kernels: Any = _C
    transport: str = "best"


ENGINE = Engine()

_errors: dict[torch.device, Tensor] = {}


def error_word(device: torch.device) -> Tensor:
    """The word of host memory in which kernels of this device leave an error for the next call to raise."""
    word = _errors.get(device)
    if word is None:
        # Of two threads that come first at once, one's word serves both: kernels write there later.
        new = torch.zeros(1, dtype=torch.int64, device="cpu", pin_memory=device.type == "cuda")
        word = _errors.setdefault(device, new)
    return word


def stream_of(x: Tensor) -> int:
    """The current stream of x's device, as the engine takes it; 0 on the CPU."""
    return torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else 0


def dtype_name(x: Tensor) -> str:
    """As the engine names dtypes: "bfloat16"."""
    return str(x.dtype).removeprefix("torch.")
