"""What `fusegen info` prints: what this build is, what it found, and what it would run."""

import glob
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from . import _C, _backend, _choice, _precision
from ._arguments import whole
from ._backend import get_backend
from .ops.spec import CELLS as SPECS

LAYERS = tuple(spec.name for spec in SPECS)
CELLS = (*LAYERS, *(f"{name}_cell" for name in LAYERS))
DTYPES = ("float32", "bfloat16", "float16", "float64")
MODES = ("train", "infer")
SHAPE = "cell,I,H,B,T,dtype,train|infer"

# GPU generation -> one of its devices: name, multiprocessors, KiB of shared memory that a block may have.
GPUS = {
    "sm_80": ("A100", 108, 163),
    "sm_86": ("RTX 3090", 82, 99),
    "sm_89": ("RTX 4090", 128, 99),
    "sm_90": ("H200", 132, 227),
    "sm_100": ("B200", 148, 227),
    "sm_103": ("B300", 160, 227),
    "sm_110": ("Thor", 20, 227),
    "sm_120": ("RTX 5090", 170, 99),
    "sm_121": ("GB10", 48, 99),
}

# What a build for every GPU holds: cmake/cuda.cmake. A name alone is machine code and PTX.
ALL_ARCHS = ("80", "90-virtual", "90a-real", "100-real", "120-real")

_OPENMP = re.compile(r"/lib(?:g|i)?omp5?[-.][^/]*$")


def info(shape: str | None = None, device: str = "cpu") -> str:
    """The report as text. shape: "cell,I,H,B,T,dtype,train|infer" adds the kernel that would run, and why, on
    ``device``: "cpu", a GPU generation ("sm_80", "sm_90" and the other names of ``GPUS``; none need be
    here), or "cuda", the current GPU of this machine.

    Raises ValueError, naming the part, for a shape that is not of that form or another device.
    """
    if shape is None and device != "cpu":
        raise ValueError("device: expected a shape beside it")
    chosen = None if shape is None else choice(shape) if device == "cpu" else gpu_choice(shape, device)
    lines = [*_versions(), *_processor(), *_gpu(), *_policy()]
    if shape is not None and chosen is not None:
        lines += [("shape", shape), *chosen]
    return "\n".join(f"{name:<22} {value}".rstrip() for name, value in lines)


def choice(shape: str) -> list[tuple[str, str]]:
    """(name, value) pairs for `shape` as in `info`: the path taken, the kernel, and the reason for each."""
    cell, I, H, B, T, dtype, mode = _parse(shape)
    train = mode == "train"
    why_torch = _backend.why_torch_on_cpu(cell, I, H, B, T, getattr(torch, dtype), train=train)
    if isinstance(why_torch, str):
        return [("runs", f"torch's own operators: {why_torch}")]
    if why_torch is not None:
        return [("runs", "torch's own operators: measured faster"), ("rule", told(why_torch))]
    # A cell's call is planned as one step of a layer.
    chosen = _C.choose(engine_name(cell), I, H, B, T, dtype, train, torch.get_num_threads())
    why = chosen.pop("why", "")
    parts = [(name.replace("_", " "), str(value)) for name, value in chosen.items()]
    return [("runs", "fusegen"), *parts, ("why", why)]


def engine_name(cell: str) -> str:
    """A cell of `CELLS` as the engine plans it: without relu, on which no plan depends."""
    return next(s for s in SPECS if s.name == cell.removesuffix("_cell")).engine_name(False)


def told(rule: _choice.Rule) -> str:
    """What a rule of the CPU's table is about, and which file says so."""
    sizes = [f"{name} {_range(getattr(rule, name))}" for name in "IHBT" if getattr(rule, name) != _choice.ANY]
    if rule.threads != _choice.ANY:
        sizes.append(f"{_range(rule.threads)} thread(s)")
    on = " ".join(part for part in (rule.vendor, rule.isa) if part) or "any CPU"
    mode = "train" if rule.train else "infer"
    where = ", ".join([rule.cell, rule.dtype, mode, *sizes])
    return f"{where} on {on}, measured in {rule.source} (fusegen/_cpu_rules.py)"


def _range(ends: tuple[int, int]) -> str:
    low, high = ends
    if high == _choice.ANY[1]:
        return f"{low} and more"
    return str(low) if low == high else f"{low} to {high}"


def gpu_choice(shape: str, device: str) -> list[tuple[str, str]]:
    """(name, value) pairs for `shape` on a GPU as in `info`: the transport of each pass, and why."""
    name, sms, shared_kib, capability = _gpu_named(device)
    binary, ptx = _C.gpu_code(torch.cuda.current_device()) if device == "cuda" else code_for(capability)
    cell, _, H, B, _, dtype, mode = _parse(shape)
    if cell not in LAYERS:
        raise ValueError(f"shape: cell: expected one of {', '.join(LAYERS)} on a GPU, got {cell!r}")
    seen = [("device", f"{name}: {sms} multiprocessors, {shared_kib} KiB of shared memory a block")]
    seen.append(("  code", told_code(binary, ptx)))
    backend = get_backend()
    if backend == "torch" or dtype == "float64":
        reason = (
            "the backend is set so" if backend == "torch" else "on a GPU there are no fused kernels of it"
        )
        return [*seen, ("runs", f"torch's own operators: {reason}")]
    measured = ", ".join(_choice.MEASURED_GPUS)
    auto = (
        f"as measured on {measured} (fusegen/_gpu_rules.py); torch's own operators on other GPUs"
        if measured
        else "torch's own operators: no GPU was measured yet; set_backend('fused') runs what follows"
    )
    seen.append(("runs", "fusegen" if backend == "fused" else auto))
    tf32 = dtype == "float32" and _precision.recurrence_in_tf32(torch.float32)
    if dtype == "float32":
        seen.append(
            ("products", f"{'TF32' if tf32 else 'float32'} (torch.backends.cudnn.allow_tf32 is {tf32})")
        )
    for backward in (False, True)[: 1 + (mode == "train")]:
        try:
            p = _C.gpu_plan_on(
                sms, shared_kib * 1024, capability // 10, ptx, engine_name(cell), dtype, tf32, backward, B, H,
                H, 1, "best",
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"shape: {error}") from None
        seen += [
            ("backward" if backward else "forward", f"{p.transport}: {p.why}"),
            (
                "  blocks",
                f"{p.groups} group(s) of {p.blocks}, R's columns dealt to {p.k_splits} warp(s)",
            ),
            ("  rows of the batch", f"{p.slices} slice(s) of {p.rows} a group"),
            ("  shared memory", f"{p.shared_bytes} bytes a block"),
            ("  workspace", f"{p.workspace_bytes} bytes"),
        ]
    return seen


def code_for(capability: int, archs: Sequence[str] = ()) -> tuple[int, int]:
    """(machine code, the PTX it was compiled from) that the driver loads on a GPU of 10 times this compute
    capability, of what a build for ``archs`` holds (unless said this one, or without kernels one for every
    GPU); (0, 0) where there is nothing for it. Machine code runs on later minor versions of its generation,
    that of an architecture with an "a" on it alone; PTX is compiled for any later GPU. A build assembles
    machine code from the newest PTX it keeps that is not newer (cmake/cuda.cmake)."""
    machine: dict[int, int] = {}  # and from which PTX
    ptx: list[int] = []
    for arch in archs or _C.build_info()["cuda_archs"] or ALL_ARCHS:
        name, _, kind = arch.partition("-")
        number, own = int(name.rstrip("a")), name.endswith("a")
        if (
            kind != "virtual"
            and number // 10 == capability // 10
            and (number == capability if own else number <= capability)
        ):
            machine[number] = (
                number if own or kind != "real" else max((p for p in ptx if p <= number), default=number)
            )
        if kind != "real" and not own and number <= capability:
            ptx.append(number)
    if machine:
        return max(machine), machine[max(machine)]
    return (capability, max(ptx)) if ptx else (0, 0)


def told_code(binary: int, ptx: int) -> str:
    """What was loaded, in words."""
    if not ptx:
        return "none: this build holds nothing for it"
    archs = [arch.partition("-") for arch in _C.build_info()["cuda_archs"] or ALL_ARCHS]
    if binary == ptx or str(binary) in (name for name, _, kind in archs if kind != "virtual"):
        return f"machine code of sm_{binary}"
    return f"PTX of compute_{ptx}, which the driver compiles for sm_{binary}"


def _gpu_named(device: str) -> tuple[str, int, int, int]:
    """(name, multiprocessors, KiB of shared memory a block, 10 times the compute capability)."""
    if device in GPUS:
        name, sms, shared_kib = GPUS[device]
        return f"{device}, as {name}", sms, shared_kib, int(device[3:])
    if device == "cuda" and torch.cuda.is_available():
        found = torch.cuda.get_device_properties(torch.cuda.current_device())
        shared_kib = getattr(found, "shared_memory_per_block_optin") // 1024  # noqa: B009  (not in torch's stubs)
        return found.name, found.multi_processor_count, shared_kib, 10 * found.major + found.minor
    here = "" if torch.cuda.is_available() else " (no GPU is here)"
    raise ValueError(f"device: expected one of cpu, cuda{here}, {', '.join(GPUS)}, got {device!r}")


def openmp_runtimes() -> list[str]:
    """Paths of the OpenMP runtimes loaded into this process, as Linux lists them (elsewhere: none known)."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    paths = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if "/" in line}
    return sorted(path for path in paths if _OPENMP.search(path))


def _parse(shape: str) -> tuple[str, int, int, int, int, str, str]:
    parts = [part.strip() for part in shape.split(",")]
    if len(parts) != 7:
        raise ValueError(f"shape: expected {SHAPE}, 7 parts, got {len(parts)}: {shape!r}")
    cell, *sizes, dtype, mode = parts
    named = (("cell", cell, CELLS), ("dtype", dtype, DTYPES), ("train|infer", mode, MODES))
    for name, value, allowed in named:
        if value not in allowed:
            raise ValueError(f"shape: {name}: expected one of {', '.join(allowed)}, got {value!r}")
    numbers = []
    for name, value in zip("IHBT", sizes, strict=True):
        if not value.isascii() or not value.isdigit():
            raise ValueError(f"shape: {name}: expected an integer, got {value!r}")
        numbers.append(whole(f"shape: {name}", int(value), 1, 2**31 - 1))
    if cell not in LAYERS and numbers[-1] != 1:
        raise ValueError(f"shape: T: expected 1 of a cell, got {numbers[-1]}")
    I, H, B, T = numbers
    return cell, I, H, B, T, dtype, mode


def _versions() -> list[tuple[str, str]]:
    build = _C.build_info()
    return [
        ("fusegen", f"{build['version']} ({build['compiler']})"),
        ("torch", torch.__version__),
        ("numpy", numpy.__version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
    ]


def _processor() -> list[tuple[str, str]]:
    available, m = ", ".join(_C.available_isas()), _machine()
    in_use, floats = _C.isa(), _C.float_isa()
    if floats != in_use:
        in_use += f" in 8 bits, {floats} else"
    model = f" ({m['vendor']}, family {m['family']} model {m['model']})" if m["family"] else ""
    runtimes = openmp_runtimes()
    openmp = ", ".join(runtimes) or "unknown"
    if len(runtimes) > 1:
        openmp += f" ({len(runtimes)} at once: they compete for the cores)"
    return [
        ("processor", _processor_name() + model),
        ("caches", _caches(m)),
        ("block sizes", _blocks()),
        ("instruction set", f"{in_use} (this machine and build have: {available}; FUSEGEN_ISA chooses)"),
        ("OpenMP runtime", openmp),
        ("threads", f"{torch.get_num_threads()} (torch.set_num_threads changes it)"),
    ]


_machine = _C.machine


def _caches(m: dict[str, Any]) -> str:
    l1d, l2, l3 = (m[name] // 1024 for name in ("l1d", "l2", "l3"))
    last = f"{l3 // 1024} MiB" if l3 % 1024 == 0 else f"{l3} KiB"
    shared = f" for {m['l3_cores']} cores" if m["l3_cores"] > 1 else ""
    source = m["source"]
    if source == "FUSEGEN_CACHES":
        source = "overridden by FUSEGEN_CACHES"
    elif "default" in source:
        source += ": this machine hides them, as containers and hypervisors do; FUSEGEN_CACHES tells them"
    return f"L1 {l1d} KiB, L2 {l2} KiB a core, L3 {last}{shared} ({source})"


def _blocks() -> str:
    """What follows from the caches, in the words of csrc/kernels/cpu/plan.h."""
    parts = {
        "resident": "resident weights up to",
        "input": "input product of a thread",
        "rows": "rows",
        "panel": "panel",
        "columns": "gradient columns",
        "past_cache": "past the caches from",
    }
    sizes = _C.blocks()
    return ", ".join(f"{what} {sizes[name] // 1024} KiB" for name, what in parts.items())


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or "unknown"


def _gpu() -> list[tuple[str, str]]:
    build = _C.build_info()
    if torch.cuda.is_available():
        found = ", ".join(_gpu_here(i, bool(build["cuda_archs"])) for i in range(torch.cuda.device_count()))
    elif glob.glob("/dev/nvidia[0-9]*"):
        found = "an NVIDIA device is here, but this torch cannot use it"
    else:
        found = "none found"
    return [("CUDA kernels", " ".join([build["cuda_note"], *build["cuda_archs"]])), ("GPU", found)]


def _gpu_here(index: int, kernels: bool) -> str:
    name = torch.cuda.get_device_name(index)
    if not kernels:
        return name
    try:
        return f"{name} ({told_code(*_C.gpu_code(index))})"
    except RuntimeError as error:  # too old, or nothing of the build is for it
        return f"{name} ({error})"


def _policy() -> list[tuple[str, str]]:
    fallbacks = "; ".join(f"{what} ({times} calls)" for what, times in _backend.fallbacks.items())
    of_cpu = sum(r.device == "cpu" for r in _choice.RULES)
    here = sum(r.device != "cpu" for r in _choice.RULES)
    here += len(_choice.of_machine("cpu", _C.float_isa(), _machine()["vendor"]))
    auto = (
        f"leaves {here} measured range(s) of shapes to torch" if here else "nothing measured faster on torch"
    )
    if not here and of_cpu:
        auto += f" with {_C.float_isa()} on {_machine()['vendor']}"
    return [
        ("backend", get_backend() + (f" ({auto})" if get_backend() == "auto" else "")),
        ("fallbacks", fallbacks or "none in this process"),
    ]
