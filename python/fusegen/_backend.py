"""Which implementation runs a call, and telling the user when it is not the fused one.

``FUSEGEN_BACKEND`` sets the backend at start, ``FUSEGEN_VERBOSE=1`` prints every fallback at the call; each
kind is counted in ``fallbacks`` whether printed or not, for ``fusegen info``.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from . import _C, _choice

BACKENDS = ("auto", "fused", "torch")
# meta: shapes only, through the fake implementations.
FUSED_DEVICES = ("cpu", "meta", "cuda") if _C.build_info()["cuda_archs"] else ("cpu", "meta")

fallbacks: Counter[str] = Counter()


def _valid(name: object, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{source}: expected one of {', '.join(BACKENDS)}, got {name!r}")
    return str(name)


_backend = _valid(os.environ.get("FUSEGEN_BACKEND") or "auto", "FUSEGEN_BACKEND")


def set_backend(name: str) -> None:
    """Sets what runs recurrent layers and cells in this process: "auto", "fused" or "torch".

    fused: fusegen's kernels, and a RuntimeError where there are none for the device or dtype. torch: torch's
    own operators. auto (the start value unless FUSEGEN_BACKEND is set): the fused kernels except where a
    committed measurement says that torch is faster, or where nothing was measured yet (GPUs), and torch's own
    operators where there are no fused kernels. Raises ValueError for other names.
    """
    global _backend
    _backend = _valid(name, "set_backend")


def get_backend() -> str:
    """The backend set last: "auto", "fused" or "torch"."""
    return _backend


def note(what: str) -> None:
    """Counts a fallback, and prints it where FUSEGEN_VERBOSE=1."""
    fallbacks[what] += 1
    if os.environ.get("FUSEGEN_VERBOSE", "0") not in ("", "0"):
        print(f"fusegen: {what}", file=sys.stderr)


def needs_grad(*tensors: Tensor | None) -> bool:
    """True if a gradient is to be recorded for any of these."""
    if not torch.is_grad_enabled():
        return False
    if torch.compiler.is_compiling():
        return any(t is not None and t.requires_grad for t in tensors)
    return torch._C._any_requires_grad(*tensors)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast computes in on x's device; None where it is off or unknown (meta)."""
    if not torch._C._is_any_autocast_enabled():
        return None
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def _missing(x: Tensor) -> str:
    """What there are no fused kernels for, of a tensor that is not on the CPU; "" where there are."""
    device = x.device.type
    if device not in FUSED_DEVICES:
        return f"this build has no fused kernels for device {device!r} (it has: cpu)"
    if device == "cuda" and x.dtype == torch.float64:
        return "on a GPU there are no fused kernels of float64"
    return ""


def why_torch(what: str, x: Tensor, step: bool = False) -> str:
    """Why this call, on a device that is not the CPU, goes to torch's own operators; "" where kernels run.
    ``step``: whether it is a step of a GAN, which is measured apart from the layers.

    Raises RuntimeError under set_backend("fused") where there are no kernels.
    """
    missing = _missing(x)
    if missing:
        if _backend == "fused":
            raise RuntimeError(
                f"fusegen {what}: {missing}; use set_backend('auto') for torch's own operators there"
            )
        if not torch.compiler.is_compiling():
            note(f"{what} on {x.device.type}: {missing}, torch's own operators run")
        return missing
    if _backend == "auto" and x.is_cuda and not _measured(x.device.index, step):
        return "the fused kernels were not measured on this GPU yet; set_backend('fused') asks for them"
    return ""


def use_torch(cell: str, x: Tensor, H: int, B: int, T: int, states: Sequence, weights: Sequence) -> bool:
    """True if this call goes to torch's own operators.

    x gives dtype, device and I (its last dim); it is a training call if any of x, ``states`` and ``weights``
    needs a gradient.
    """
    if _backend == "torch":
        return True
    if torch._C._get_tracing_state() is not None:  # TorchScript cannot record a list of optional weights
        note(f"{cell} under torch.jit.trace: torch's own operators are recorded")
        return True
    if not x.is_cpu and why_torch(cell, x):
        return True
    if _backend == "fused" or not _choice.RULES:
        return False
    device, dtype = x.device.type, str(x.dtype).removeprefix("torch.")
    if device == "cuda":
        device, dtype = _gpu(cell, x.device.index, dtype)
    return _choice.prefers_torch(cell, x.shape[-1], H, B, T, dtype, device, needs_grad(x, *states, *weights))


def _measured(index: int | None, step: bool) -> bool:
    """Whether the table of measurements has this GPU."""
    gpus = _choice.MEASURED_STEP_GPUS if step else _choice.MEASURED_GPUS
    return bool(gpus) and _choice.slug(torch.cuda.get_device_name(index)) in gpus


def _gpu(cell: str, index: int | None, dtype: str) -> tuple[str, str]:
    """(the GPU's name, the dtype) as the table of measurements has them."""
    from .ops import gpu  # it imports this module

    uses_tf32 = gpu.multiplies_in_tf32 if cell.endswith("_cell") else gpu.uses_tf32
    tf32 = dtype == "float32" and uses_tf32(torch.float32)
    return _choice.slug(torch.cuda.get_device_name(index)), "tf32" if tf32 else dtype


# torch.compile shall call them, not look into them: what torch.compiler.assume_constant_result does, but that
# imports the compiler.
_measured._dynamo_marked_constant = _gpu._dynamo_marked_constant = True
