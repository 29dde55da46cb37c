"""Which implementation runs a call, and telling the user when it is not the fused one.

``FUSEGEN_BACKEND`` sets the backend at start, ``FUSEGEN_VERBOSE=1`` prints every fallback at the call; each
kind is counted in ``fallbacks`` whether printed or not, for ``fusegen info``.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from . import _C, _choice, _precision

BACKENDS = ("auto", "fused", "torch")
# meta: shapes only, through the fake implementations.
FUSED_DEVICES = ("cpu", "meta", "cuda") if _C.build_info()["cuda_archs"] else ("cpu", "meta")


def _any(*tensors: object) -> bool:
    return any(isinstance(t, Tensor) and t.requires_grad for t in tensors)


# torch 2.6 has neither. There, an exported program has the choice that was measured where it was exported.
any_requires_grad = getattr(torch._C, "_any_requires_grad", _any)
_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)

_functorch = torch._C._are_functorch_transforms_active

fallbacks: Counter[str] = Counter()
_counting = threading.Lock()


def _valid(name: object, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{source}: expected one of {', '.join(BACKENDS)}, got {name!r}")
    return str(name)


class _Unknown(str):
    """What FUSEGEN_BACKEND asks for and there is not: whoever asks which backend it is gets the error. Not
    raised at import: a program that imports fusegen shall be able to say it in its own way."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        _valid(str.__str__(self), "FUSEGEN_BACKEND")
        return False

    __hash__ = str.__hash__


def _from_environment() -> str:
    name = os.environ.get("FUSEGEN_BACKEND") or "auto"
    return name if name in BACKENDS else _Unknown(name)


_backend = _from_environment()


def set_backend(name: str) -> None:
    """Sets what runs recurrent layers and cells in this process.

    Args:
        name: "fused": fusegen's kernels; a call raises RuntimeError where there are none for its device or
            dtype. "torch": torch's own operators. "auto", the value at start unless FUSEGEN_BACKEND is set:
            the fused kernels, except where a committed measurement says that torch is faster, where nothing
            was measured yet (GPUs), and where there are no fused kernels.

    Raises ValueError for other names.
    """
    global _backend
    _backend = _valid(name, "set_backend")


@contextmanager
def fused_alone() -> Iterator[None]:
    """The fused kernels run in here, whatever ``set_backend`` chose before."""
    before = get_backend()
    set_backend("fused")
    try:
        yield
    finally:
        set_backend(before)


def get_backend() -> str:
    """The backend set last: "auto", "fused" or "torch". Raises ValueError where FUSEGEN_BACKEND names another
    one."""
    return _backend if _backend in BACKENDS else _valid(_backend, "FUSEGEN_BACKEND")


def note(what: str) -> None:
    """Counts a fallback, and prints it where FUSEGEN_VERBOSE=1. Not inside torch.compile: its graphs run
    without this."""
    if torch.compiler.is_dynamo_compiling():
        return
    with _counting:
        fallbacks[what] += 1
    if os.environ.get("FUSEGEN_VERBOSE", "0") not in ("", "0"):
        print(f"fusegen: {what}", file=sys.stderr)


def needs_grad(*tensors: Tensor | None) -> bool:
    """True if a gradient is to be recorded for any of these."""
    if not torch.is_grad_enabled():
        return False
    if torch.compiler.is_compiling():
        return _any(*tensors)
    return bool(any_requires_grad(*tensors))


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast computes in on x's device; None where it is off or unknown (meta)."""
    if not torch._C._is_any_autocast_enabled():
        return None
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def missing(device: str, dtype: torch.dtype) -> str:
    """What there are no fused kernels for, of a device that is not the CPU; "" where there are."""
    if device not in FUSED_DEVICES:
        return f"this build has no fused kernels for device {device!r} (it has: cpu)"
    if device == "cuda" and dtype == torch.float64:
        return "on a GPU there are no fused kernels of float64"
    return ""


def lacks_kernels(what: str, x: Tensor) -> bool:
    """Whether such a call, which torch's own operators cannot run, has no fused kernels: what was set, the
    device or dtype, or torch.jit.trace, which does not see them.

    Raises RuntimeError under set_backend("fused") where there are none.
    """
    if _backend == "torch" or torch._C._get_tracing_state() is not None:
        return True
    if x.is_cpu or not (lacking := missing(x.device.type, x.dtype)):
        return False
    if _backend == "fused":
        raise RuntimeError(
            f"fusegen {what}: {lacking}; use set_backend('auto') for torch's own operators there"
        )
    return True


def why_torch(what: str, x: Tensor, step: bool = False) -> str:
    """Why this call, on a device that is not the CPU, goes to torch's own operators; "" where kernels run.
    ``step``: whether it is a step of a GAN, which is measured apart from the layers.

    Raises RuntimeError under set_backend("fused") where there are no kernels.
    """
    lacking = missing(x.device.type, x.dtype)
    if lacking:
        if _backend == "fused":
            raise RuntimeError(
                f"fusegen {what}: {lacking}; use set_backend('auto') for torch's own operators there"
            )
        if not torch.compiler.is_compiling():
            note(f"{what} on {x.device.type}: {lacking}, torch's own operators run")
        return lacking
    if _backend == "auto" and x.is_cuda and not _measured(x.device.index, step):
        return "the fused kernels were not measured on this GPU yet; set_backend('fused') asks for them"
    return ""


def use_torch(
    cell: str,
    gates: int,
    x: Tensor,
    states: Sequence[Tensor | None],
    weights: Sequence[Tensor | None],
    lengths: Tensor | None = None,
    measured: bool = True,
) -> bool:
    """True if this call of a layer (x [T, B, I]) or cell (x [B, I]) goes to torch's own operators.
    ``measured``: whether the table's measurements are of such calls.

    It is a training call if any of x, ``states`` and ``weights`` (of all layers; R [gates * H, P] is second)
    needs a gradient. On the CPU the table's measurements are of full batches: one with ``lengths``, where
    torch has to sort and pack, runs on the fused kernels.
    """
    if _backend == "torch":
        return True
    if torch._C._get_tracing_state() is not None:  # TorchScript cannot record a list of optional weights
        note(f"{cell} under torch.jit.trace: torch's own operators are recorded")
        return True
    R = weights[1]
    assert R is not None
    if type(R).__name__ == "ExpandedWeight":
        return _takes_expanded(cell)
    if x.shape[-1] == 0 or R.shape[0] == 0:  # which torch allows, and kernels have no use for
        return True
    on_cpu = x.is_cpu
    if not on_cpu and why_torch(cell, x):
        return True
    # an exported program runs elsewhere: what was measured here does not hold there
    if _backend == "fused" or not measured or not _choice.RULES or _is_exporting():
        return False
    compiling = torch.compiler.is_compiling()
    if on_cpu and (lengths is not None or not (compiling or cell in cpu_cells())):
        return False
    if _functorch():  # a batch of another size than the kernels will see
        return False
    H, B, T, I = R.shape[0] // gates, x.shape[-2], x.shape[0] if len(x.shape) == 3 else 1, x.shape[-1]
    train = needs_grad(x, *states, *weights)
    if on_cpu and not compiling:
        return cpu_rule(cell, I, H, B, T, _computed_in(x), train=train) is not None
    device, dtype = x.device.type, str(_computed_in(x) if on_cpu else x.dtype).removeprefix("torch.")
    if device == "cuda":
        device, dtype = _gpu(cell, x.device.index, dtype)
    return _within(_ranges(cell, dtype, train, device), H, B, T, I)


def _takes_expanded(cell: str) -> bool:
    """True where torch's own operator takes the weights of torch.nn.utils._expanded_weights, by a formula
    that is private to it. Raises RuntimeError where there is none."""
    others = "torch.func.vmap of torch.func.grad, and fusegen.opacus, give gradients of each sample"
    if cell.endswith("_cell"):
        raise RuntimeError(
            f"fusegen {cell}: torch.nn.utils._expanded_weights takes no cells, torch.nn's neither; {others}"
        )
    if cell == "lstm" and torch._C._get_mkldnn_enabled():
        raise RuntimeError(
            "fusegen lstm: torch.nn.utils._expanded_weights takes an LSTM, torch.nn's too, only inside "
            f"torch.backends.mkldnn.flags(enabled=False); {others}"
        )
    note(f"{cell} of expanded weights: torch's own operators run")
    return True


def why_torch_on_cpu(
    cell: str, I: int, H: int, B: int, T: int, dtype: torch.dtype, train: bool
) -> _choice.Rule | str | None:
    """Why such a call on this process's CPU goes to torch's own operators: what was set, or the rule; None
    where the fused kernels run."""
    if _backend == "torch":
        return "the backend is set so"
    return None if _backend == "fused" else cpu_rule(cell, I, H, B, T, dtype, train=train)


def cpu_rule(
    cell: str, I: int, H: int, B: int, T: int, dtype: torch.dtype, train: bool
) -> _choice.Rule | None:
    """The rule by which such a call on this process's CPU is left to torch under "auto"; None where it runs
    on the fused kernels. Looked up once for each kind of call."""
    table, threads = _table(), torch.get_num_threads()
    asked = (cell, I, H, B, T, dtype, train, threads)
    try:
        return table.answers[asked]
    except KeyError:
        if len(table.answers) >= _ANSWERS:
            table.answers.clear()
    except TypeError:  # sizes that are symbols cannot be looked up
        return table.look_up(*asked)
    return table.answers.setdefault(asked, table.look_up(*asked))


def cpu_cells() -> frozenset[str]:
    """The cells that rules of this process's CPU are about: nothing else need be asked for."""
    return _table().cells


def always_fused(cell: str) -> bool:
    """Whether on this process's CPU every call of ``cell`` runs on the fused kernels, whatever its sizes."""
    return _backend == "fused" or (_backend == "auto" and (not _choice.RULES or cell not in cpu_cells()))


Ranges = tuple[tuple[_choice.Range, _choice.Range, _choice.Range, _choice.Range], ...]
_ANSWERS = 4096  # kept of one process, whose batches may each be of another size


class _Table:
    """The rules of this process's instruction set and vendor, and the answers that they gave."""

    def __init__(self, rules: tuple[_choice.Rule, ...]) -> None:
        self.source = rules
        self.rules = _choice.of_machine("cpu", _C.float_isa(), _C.machine()["vendor"])
        self.cells = frozenset(r.cell for r in self.rules)
        self.answers: dict[tuple[Any, ...], _choice.Rule | None] = {}

    def look_up(
        self, cell: str, I: int, H: int, B: int, T: int, dtype: torch.dtype, train: bool, threads: int
    ) -> _choice.Rule | None:
        rules = _choice.of_call(self.rules, cell, str(dtype).removeprefix("torch."), train, threads)
        return next((r for r in rules if _choice.holds(r.H, r.B, r.T, r.I, (H, B, T, I))), None)


_found: _Table | None = None


def _table() -> _Table:
    """Made at the first call, not at import, which a wrong FUSEGEN_ISA must not fail."""
    global _found
    if _found is None or _found.source is not _choice.RULES:
        _found = _Table(_choice.RULES)
    return _found


def _computed_in(x: Tensor) -> torch.dtype:
    """The dtype that a layer on x computes in, under autocast too."""
    cast = autocast_dtype(x)
    return x.dtype if cast is None or x.dtype == torch.float64 else cast


def _ranges(cell: str, dtype: str, train: bool, device: str) -> Ranges:
    """Of H, B, T and I, in which such calls go to torch."""
    if device == "cpu":
        rules = _choice.of_call(_table().rules, cell, dtype, train, torch.get_num_threads())
    else:
        rules = _choice.of_call(_choice.of_machine(device), cell, dtype, train)
    return tuple((r.H, r.B, r.T, r.I) for r in rules)


def _within(ranges: Ranges, H: int, B: int, T: int, I: int) -> bool:
    return any(_choice.holds(*one, (H, B, T, I)) for one in ranges)


def _measured(index: int | None, step: bool) -> bool:
    """Whether the table of measurements has this GPU."""
    gpus = _choice.MEASURED_STEP_GPUS if step else _choice.MEASURED_GPUS
    return bool(gpus) and _choice.slug(torch.cuda.get_device_name(index)) in gpus


def _gpu(cell: str, index: int | None, dtype: str) -> tuple[str, str]:
    """(the GPU's name, the dtype) as the table of measurements has them."""
    in_tf32 = _precision.products_in_tf32 if cell.endswith("_cell") else _precision.recurrence_in_tf32
    tf32 = dtype == "float32" and in_tf32(torch.float32)
    return _choice.slug(torch.cuda.get_device_name(index)), "tf32" if tf32 else dtype


# torch.compile shall call them, not look into them: what torch.compiler.assume_constant_result does, but that
# imports the compiler.
for _asked_once in (_measured, _gpu, _ranges):
    setattr(_asked_once, "_dynamo_marked_constant", True)  # noqa: B010
