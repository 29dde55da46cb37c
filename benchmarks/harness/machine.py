"""The machine that is measured, the versions of what runs on it, and this checkout's commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

import fusegen
from fusegen import _C
from harness import cap

ROOT = Path(__file__).parent.parent.parent


@cache
def processor() -> str:
    """CPU model and core count, nothing that names the host."""
    cpuinfo = Path("/proc/cpuinfo")
    model = model_name(cpuinfo.read_text() if cpuinfo.exists() else "")
    return f"{model or platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def model_name(cpuinfo: str) -> str:
    """The model by the name that it gives itself; vendor, family and model beside a name that tells no model,
    as a virtual machine's ("AMD EPYC" of Zen 3 and of Zen 5 alike). "" where there is no such name."""

    def field(name: str) -> str:
        found = re.search(rf"^{name}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
        return found[1] if found else ""

    model = re.sub(r"\((R|TM|tm)\)|\bCPU\b|\bProcessor\b", " ", field("model name"))
    model = " ".join(model.split())
    if not model or re.search(r"\d{3}", model.partition("@")[0]) or not field("cpu family"):
        return model
    vendor = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}.get(field("vendor_id"), field("vendor_id"))
    known = "" if vendor.lower() in model.lower() else f"{vendor} "
    return f"{model} ({known}family {field('cpu family')} model {field('model')})"


@cache
def commit() -> str:
    """Short hash of HEAD, "-dirty" after it if measured sources differ from it; "unversioned" outside git."""
    if not (ROOT / ".git").exists():
        return "unversioned"

    def git(command: str) -> str:
        words = ["git", "-C", ROOT, *command.split()]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    try:
        dirty = git("status --porcelain -- csrc python CMakeLists.txt benchmarks/peers")
        return git("rev-parse --short=10 HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):  # no git here, or a checkout of another user's
        return "unversioned"


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


@cache
def gpu() -> dict[str, str]:
    """The GPU in use, its driver and the libraries that torch brings."""
    found = torch.cuda.get_device_properties(0)
    return {
        "machine": found.name,
        "host": processor(),
        "capability": f"{found.major}.{found.minor}",
        "driver": nvidia_smi("driver_version"),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }


def nvidia_smi(what: str) -> str:
    """One value of the first GPU."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.splitlines()[0].strip()


@cache
def environment(device: str = "cpu") -> dict[str, str]:
    """The columns that all rows of a run share."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%MZ"),
        "commit": commit(),
        "machine": processor(),
        **(gpu() if device == "cuda" else {}),
        "isa": _C.isa(),
        "capped": cap.applied,
        "threads": str(torch.get_num_threads()),
        "fusegen": fusegen.__version__,
        "torch": torch.__version__,
        "onnxruntime": version("onnxruntime"),
        "openvino": version("openvino"),
        "onednn": version("onednn-cpu-gomp"),
        "tract": version("tract"),
        "python": platform.python_version(),
        "compiler": str(_C.build_info()["compiler"]),
    }
