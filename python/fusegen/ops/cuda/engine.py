"""What runs the CUDA half of an op."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ... import _C


def patience_in(environment: Mapping[str, str]) -> int:
    """What FUSEGEN_PATIENCE says, in seconds there: the nanoseconds that the blocks of a kernel wait for each
    other before they give up; 0, which sanitizers and debuggers want: they wait for ever. 10 s unless set.

    Raises ValueError where it is no number of seconds.
    """
    given = environment.get("FUSEGEN_PATIENCE") or "10"
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 1e9:
        raise ValueError(f"FUSEGEN_PATIENCE: expected seconds, 0 or more, got {given!r}")
    return math.ceil(seconds * 1e9)


_PLANS = 4096  # kept of one engine, whose batches may each be of another size


class Engine:
    """The module that has the kernels, the transport that a recurrence is asked to use ("best", or one of
    "launch", "block", "l2", "cluster"), and the nanoseconds that its blocks wait for each other."""

    def __init__(
        self, kernels: Any = _C, transport: str = "best", patience: int = patience_in(os.environ)
    ) -> None:
        self.kernels, self.transport, self.patience = kernels, transport, patience
        self._plans: dict[tuple[Any, ...], Any] = {}

    def plan(self, asked: tuple[Any, ...], *inside: bool) -> Any:
        """``gpu_plan`` of what is asked, all but the transport, and of what is ``inside`` the recurrence.
        Made once: it depends on nothing else, since a device stays what it is."""
        asked = (*asked, self.transport, *inside)
        try:
            return self._plans[asked]
        except KeyError:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            return self._plans.setdefault(asked, self.kernels.gpu_plan(*asked))


ENGINE = Engine()

_errors: dict[torch.device, Tensor] = {}


def error_word(device: torch.device) -> Tensor:
    """The word of host memory in which kernels of this device leave an error for the next call to raise."""
    word = _errors.get(device)
    if word is None:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "fusegen: the first call on a GPU cannot be captured in a CUDA graph, since it allocates "
                "host memory: run the model once before, as torch.cuda.graph asks for anyway"
            )
        # Of two threads that come first at once, one's word serves both: kernels write there later.
        new = torch.zeros(1, dtype=torch.int64, device="cpu", pin_memory=device.type == "cuda")
        word = _errors.setdefault(device, new)
    return word


def stream_of(x: Tensor) -> int:
    """The current stream of x's device, as the engine takes it; 0 on the CPU."""
    return torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else 0


_NAMES = {
    t: str(t).removeprefix("torch.") for t in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
}


def dtype_name(x: Tensor) -> str:
    """As the engine names dtypes: "bfloat16"."""
    return _NAMES.get(x.dtype) or str(x.dtype)
