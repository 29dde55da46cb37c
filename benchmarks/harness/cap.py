"""`run.py --isa SET`: every library of the process held to one instruction set, ours and theirs alike.

The libraries read these variables when they are loaded or first called, so `apply` runs before torch is
imported, and nothing here imports it. torch.compile gets a cache of its own for each set: its key of a graph
(torch 2.13) does not tell the width of the vectors that the code was written for, and code of 16 numbers a
step, found there and compiled for AVX2, leaves out half of them. Seen to act (by the libraries' own logs, and
by their speed): torch's oneDNN, OpenVINO's copy of it and the wheel's name the set or change their speed with
it; ATen names it, and torch.compile generates for what ATen is held to. FBGEMM reads its variable; that it
acts was not seen, for want of a quiet machine. MKL's documentation limits its
variable to Intel's processors, and on an AMD it changed nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from functools import cache
from pathlib import Path

# FUSEGEN_ISA -> the same for oneDNN, MKL, ATen and FBGEMM (of torch.ao): the nearest that they have.
SETS = {
    "baseline": ("SSE41", "SSE4_2", "default", "AVX2"),
    "avx2": ("AVX2", "AVX2", "avx2", "AVX2"),
    "avx2_vnni": ("AVX2_VNNI", "AVX2_E1", "avx2", "AVX2"),
    "avx512": ("AVX512_CORE", "AVX512", "avx512", "AVX512"),
    "avx512_vnni": ("AVX512_CORE_VNNI", "AVX512_E1", "avx512", "AVX512_E1"),
    "avx512_bf16": ("AVX512_CORE_BF16", "AVX512_E3", "avx512", "AVX512_E1"),
}
VARIABLES = (
    "ONEDNN_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
    "ATEN_CPU_CAPABILITY",
    "FBGEMM_ENABLE_INSTRUCTIONS",
)
# What /proc/cpuinfo names of a processor that has the set, as csrc/kernels/cpu/select.cpp asks for it.
FLAGS = {"baseline": set(), "avx2": {"avx2", "fma", "f16c"}}
FLAGS["avx2_vnni"] = FLAGS["avx2"] | {"avx_vnni"}
FLAGS["avx512"] = FLAGS["avx2"] | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
FLAGS["avx512_vnni"] = FLAGS["avx512"] | {"avx512_vnni"}
FLAGS["avx512_bf16"] = FLAGS["avx512_vnni"] | {"avx512_bf16"}

CACHE = "TORCHINDUCTOR_CACHE_DIR"

applied = ""  # the set that this process was held to; "" where nothing was


def asked_for(argv: list[str]) -> str:
    """What follows --isa, "" if it is not there."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--isa", default="", nargs="?")  # run.py itself refuses none
    return parser.parse_known_args(argv)[0].isa or ""


def cache_folder(isa: str) -> str:
    """Of torch.compile under `isa`: beside the folder that it would use."""
    usual = Path(tempfile.gettempdir()) / f"torchinductor_{os.getuid()}"
    return f"{os.environ.get(CACHE, usual)}-{isa}"


def apply(argv: list[str]) -> str:
    """Sets the environment that --isa asks for; returns what is wrong with it, in one line, or "".

    A name that is none is left to who knows which sets the build and the machine have.
    """
    global applied
    isa, alone = asked_for(argv), os.environ.get("FUSEGEN_ISA")
    if alone and not isa:
        return f"FUSEGEN_ISA={alone} would hold our side alone to it: expected --isa {alone}, for both sides"
    if isa in SETS:
        os.environ |= dict(zip(VARIABLES, SETS[isa], strict=True)) | {
            "FUSEGEN_ISA": isa,
            CACHE: cache_folder(isa),
        }
        applied = isa
    return ""


@cache
def cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def best() -> str:
    """The best of SETS that the processor has, whatever this build has kernels for."""
    found = re.search(r"^flags\s*:(.*)$", cpuinfo(), re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    names = [isa for isa, needed in FLAGS.items() if needed <= flags]
    return names[-1]


def mkl_obeys() -> bool:
    """Whether MKL lets itself be held: on Intel's processors."""
    return bool(re.search(r"^vendor_id\s*: GenuineIntel$", cpuinfo(), re.MULTILINE))


def unreached() -> dict[str, str]:
    """Which library goes on choosing by itself -> why."""
    if applied in ("", best()):
        return {}
    found = {
        "ONNX Runtime": "not capped: MLAS asks the processor itself and has no switch",
        "tract": "not capped: it asks the processor itself and has no switch",
    }
    if not mkl_obeys():
        found["MKL (in torch)"] = "MKL not capped: it obeys on Intel's processors alone"
    return found


def remark(peer: str, ours: bool) -> str:
    """What a row of `peer` says of a library that the cap does not reach."""
    libraries = unreached()
    if peer in ("onnxruntime", "tract"):
        return libraries.get({"onnxruntime": "ONNX Runtime"}.get(peer, peer), "")
    if ours or peer in ("onednn", "openvino", "torch.ao", "peak"):  # no MKL in them
        return ""
    return libraries.get("MKL (in torch)", "")
