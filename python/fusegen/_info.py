"""What `fusegen info` prints: what this build is, what it found, and what it would run."""

import glob
import platform
import re
from pathlib import Path

import numpy
import torch

from . import _C, _backend, _choice, get_backend
from ._arguments import whole

CELLS = ("lstm", "gru", "rnn")
DTYPES = ("float32", "bfloat16", "float16", "float64")
MODES = ("train", "infer")
SHAPE = "cell,I,H,B,T,dtype,train|infer"

_OPENMP = re.compile(r"/lib(?:g|i)?omp5?[-.][^/]*$")


def info(shape: str | None = None) -> str:
    """The report as text. shape: "cell,I,H,B,T,dtype,train|infer" adds the kernel that would run, and why.

    Raises ValueError, naming the part, for a shape that is not of that form.
    """
    chosen = None if shape is None else choice(shape)
    lines = [*_versions(), *_processor(), *_gpu(), *_policy()]
    if chosen is not None:
        lines += [("shape", shape), *chosen]
    return "\n".join(f"{name:<22} {value}".rstrip() for name, value in lines)


def choice(shape: str) -> list[tuple[str, str]]:
    """(name, value) pairs for `shape` as in `info`: the path taken, the kernel, and the reason for each."""
    cell, I, H, B, T, dtype, mode = _parse(shape)
    backend, train = get_backend(), mode == "train"
    to_torch = backend == "torch" or (
        backend == "auto" and _choice.prefers_torch(cell, I, H, B, T, dtype, "cpu", train)
    )
    if to_torch:
        reason = "the backend is set so" if backend == "torch" else "measured faster (fusegen/_choice.py)"
        return [("runs", f"torch's own operators: {reason}")]
    chosen = _C.choose(cell, I, H, B, T, dtype, train, torch.get_num_threads())
    why = chosen.pop("why", "")
    parts = [(name.replace("_", " "), str(value)) for name, value in chosen.items()]
    return [("runs", "fusegen"), *parts, ("why", why)]


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
    return cell, *numbers, dtype, mode


def _versions() -> list[tuple[str, str]]:
    build = _C.build_info()
    return [
        ("fusegen", f"{build['version']} ({build['compiler']})"),
        ("torch", torch.__version__),
        ("numpy", numpy.__version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
    ]


def _processor() -> list[tuple[str, str]]:
    available = ", ".join(_C.available_isas())
    runtimes = openmp_runtimes()
    openmp = ", ".join(runtimes) or "unknown"
    if len(runtimes) > 1:
        openmp += f" ({len(runtimes)} at once: they compete for the cores)"
    return [
        ("processor", _processor_name()),
        ("instruction set", f"{_C.isa()} (this machine and build have: {available}; FUSEGEN_ISA chooses)"),
        ("OpenMP runtime", openmp),
        ("threads", f"{torch.get_num_threads()} (torch.set_num_threads changes it)"),
    ]


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or "unknown"


def _gpu() -> list[tuple[str, str]]:
    build = _C.build_info()
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found = ", ".join(names)
    elif glob.glob("/dev/nvidia[0-9]*"):
        found = "an NVIDIA device is here, but this torch cannot use it"
    else:
        found = "none found"
    return [("CUDA kernels", " ".join([build["cuda_note"], *build["cuda_archs"]])), ("GPU", found)]


def _policy() -> list[tuple[str, str]]:
    fallbacks = "; ".join(f"{what} ({times} calls)" for what, times in _backend.fallbacks.items())
    rules = len(_choice.RULES)
    auto = (
        f"leaves {rules} measured range(s) of shapes to torch"
        if rules
        else "nothing measured faster on torch"
    )
    return [
        ("backend", get_backend() + (f" ({auto})" if get_backend() == "auto" else "")),
        ("fallbacks", fallbacks or "none in this process"),
    ]
