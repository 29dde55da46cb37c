"""What the GPU's parts do by themselves: `make gpu STAGE=micro`.

st.async latency and bytes a clock by cluster size, cluster barrier, clusters resident at once, flags through
L2, mma.sync and wgmma rate by N (micro.cu, built here by nvcc for the GPU of this machine), a copy in the
device's memory and large products (torch). Rows, suite "micro", go to
benchmarks/results/MACHINE/DATE-COMMIT-micro.csv.

Exit status: 0 done; 1 the program failed; 2 no GPU or no nvcc.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from gpu.ceilings import measure
from harness import machine, record

HERE = Path(__file__).parent
WIDTHS = (8, 16, 32, 64, 128, 256)


def wgmma_header() -> str:
    """wgmma.h: Wgmma<N>::run(d, a, description), one for each width, since asm wants its operands listed."""
    parts = ["// Written by micro.py.", "#pragma once", "template <int N> struct Wgmma;"]
    for n in WIDTHS:
        count = n // 2
        sums = ", ".join(f"%{i}" for i in range(count))
        a = ", ".join(f"%{count + i}" for i in range(4))
        outputs = ", ".join(f'"+f"(d[{i}])' for i in range(count))
        inputs = ", ".join(f'"r"(a[{i}])' for i in range(4))
        parts.append(
            f"template <> struct Wgmma<{n}> {{\n"
            f"  static __device__ __forceinline__\n"
            f"  void run(float (&d)[{count}], const uint32_t (&a)[4], uint64_t b) {{\n"
            f'    asm volatile("wgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {{{sums}}}, {{{a}}}, '
            f'%{count + 4}, 1, 1, 1, 0;"\n'
            f'                 : {outputs}\n                 : {inputs}, "l"(b));\n  }}\n}};'
        )
    return "\n".join(parts) + "\n"


def compile_command(nvcc: str, arch: str, folder: Path) -> list[str]:
    """nvcc's arguments: micro.cu for `arch` ("90a") into `folder`, where wgmma.h lies."""
    return [
        nvcc, "-O3", "-std=c++20", "-gencode", f"arch=compute_{arch},code=sm_{arch}",
        "-I", str(machine.ROOT / "csrc/kernels/cuda"), "-I", str(folder), str(HERE / "micro.cu"),
    ]  # fmt: skip


def find_nvcc() -> str | None:
    """nvcc, where the build looks for it."""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    places = os.pathsep.join([os.environ.get("PATH", ""), *(f"{home}/bin" for home in homes if home)])
    return os.environ.get("CUDACXX") or shutil.which("nvcc", path=places)


def read(text: str) -> list[tuple[str, str, float, str]]:
    """(name, configuration, value, unit) of the program's lines."""
    return [(name, what, float(value), unit) for name, what, value, unit in csv.reader(text.splitlines())]


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)
    if not torch.cuda.is_available():
        print("micro: this torch sees no NVIDIA GPU; nothing was measured", file=sys.stderr)
        return 2
    nvcc = find_nvcc()
    if nvcc is None:
        print(
            "micro: no nvcc on PATH, in CUDA_HOME or /usr/local/cuda; nothing was measured", file=sys.stderr
        )
        return 2
    major, minor = torch.cuda.get_device_capability()
    folder = machine.ROOT / "build/micro"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wgmma.h").write_text(wgmma_header())
    program = folder / "micro"
    arch = f"{major}{minor}" + ("a" if major >= 9 else "")
    subprocess.run([*compile_command(nvcc, arch, folder), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    rows = [
        record.Row("micro", peer=name, value=value, unit=unit, rounds=7, note=what)
        for name, what, value, unit in read(done.stdout)
    ]
    for entry in rows:
        print(f"{entry.peer:36} {entry.note:36} {entry.value:10.5g} {entry.unit}")
    if done.returncode:
        print(done.stderr.strip() or f"micro: exit status {done.returncode}", file=sys.stderr)
    rows += measure("micro")
    path = record.write(rows, suffix="-micro", device="cuda")
    print(f"written: {path.relative_to(machine.ROOT)}")
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
