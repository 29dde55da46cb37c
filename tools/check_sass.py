"""Check the machine code of the CUDA kernels: check_sass.py [--built FOLDER] [--only TEXT] [--counts FILE].

Compiles the files of csrc/kernels/cuda/recurrent/instantiations for sm_90a, or takes the objects of a CUDA
build, disassembles them, finds the loop over steps of every kernel, and holds what stands in it to RULES. How
long a step is comes from running the code for a case, H 512 and B 16 on an H200, without a GPU (tools/sass).
A kernel that has no rule is an error.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from sass.cases import KERNELS, ROOT, Case, step_of
from sass.count import Step
from sass.flow import Graph, step_loop
from sass.listing import Function, cubins, disassemble, tool
from sass.rules import Finding, Limits, findings

ARCHITECTURE = "sm_90a"
COLUMNS = ("pass", "cell", "dtype", "H", "B", "transport", "part", "instructions", "times", "executed")
CELLS = ("lstm", "gru", "rnn")
KERNEL = re.compile(
    r"\d(forward|backward)_kernelI.*?\d(Lstm|Gru|Rnn)E.*?\dFormat(Bf16|F16|Tf32|F32)E?(.*?)EEv"
)

# Pass, cell, format (a pattern each) -> what may stand in the loop; the first that fits.
RULES: tuple[tuple[str, Limits], ...] = ((".*", Limits()),)

# Instructions of a step at H 512, B 16, by the plan's transport: what stands in the loop, inner loops times
# their trips.
MOST: dict[tuple[str, str, str], int] = {}


def name_of(symbol: str) -> str | None:
    """forward lstm bf16, and what else its template is given; None of other kernels."""
    found = KERNEL.search(symbol)
    return f"{found[1]} {found[2].lower()} {found[3].lower()} {found[4]}".rstrip() if found else None


def limits_of(name: str) -> Limits:
    for pattern, limits in RULES:
        if re.match(pattern, name):
            return limits
    raise SystemExit(f"check_sass: no rule for {name}")


def compile_all(files: list[Path], folder: Path) -> list[Path]:
    """Cubins of these files, two at a time; one that is newer than every source is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    newest = max(p.stat().st_mtime for p in (ROOT / "csrc/kernels").rglob("*.[hc]*"))
    architecture = ARCHITECTURE.removeprefix("sm_")

    def make(file: Path) -> Path:
        cubin = folder / f"{file.stem}.cubin"
        if not cubin.exists() or cubin.stat().st_mtime < newest:
            command = [
                "nvcc", "-std=c++20", "-O3", f"-gencode=arch=compute_{architecture},code={ARCHITECTURE}",
                f"-I{KERNELS}", f"-I{KERNELS.parent}", f"-I{KERNELS.parents[1]}", "--expt-relaxed-constexpr",
                "-cubin", "-o", str(cubin), str(file),
            ]  # fmt: skip
            subprocess.run(command, check=True)
        return cubin

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(make, files))


def show(name: str, step: Step | None, found: list[Finding], every: bool) -> None:
    if step:
        print(f"{name}: {step.standing} instructions a step; the busiest warp executes {step.executed}")
        if every:
            for part in step.parts:
                print(f"    {part.instructions:5} x {part.times:<3} {part.what} ({part.header:#x})")
    for f in found:
        if f.broken:
            where = "; ".join(f"{i.address:#x} {i}" for i in f.where[:3])
            print(f"{name}: {f.rule}: {f.found:g}, at most {f.limit:g}" + f" ({where})" * bool(where))


def check(function: Function, name: str, step: Step | None) -> list[Finding]:
    graph = Graph(function)
    loop = step_loop(graph)
    if loop is None:
        raise SystemExit(f"check_sass: {name}: no loop that multiplies on the tensor cores")
    limits = limits_of(name)
    case = tuple(name.split()[:3])
    if step:
        limits = replace(limits, instructions=MOST.get(case))
    return findings(graph, loop, limits, step.standing if step else None)


def counted(case: Case, step: Step, plan: dict[str, str]) -> list[tuple]:
    head = (case.pass_, case.cell, case.format, case.H, case.B, plan["transport"])
    rows = [(*head, p.what, p.instructions, p.times, "") for p in step.parts]
    return [*rows, (*head, "step", len(step.graph.code_of(step.loop.blocks)), step.standing, step.executed)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="check_sass", description=__doc__.split(":", 1)[0])
    parser.add_argument("--built", type=Path, help="the folder of a CUDA build, whose objects are read")
    parser.add_argument("--only", default="", help="kernels whose name has this: 'backward lstm bf16'")
    parser.add_argument("--counts", type=Path, help="write the counts to this file")
    parser.add_argument("--list", action="store_true", help="print the loops inside each step, too")
    options = parser.parse_args(arguments)
    for needed in ("nvdisasm", "cuobjdump"):
        if tool(needed) is None:
            raise SystemExit(f"check_sass: no {needed}: pip install -c constraints.txt nvidia-cuda-{needed}")
    work = ROOT / "build/sass"
    wanted = [
        file
        for file in sorted((KERNELS / "recurrent/instantiations").glob("*.cu"))
        if not options.only or all(w in (*CELLS, *file.stem.split("_")) for w in options.only.split())
    ]
    files = cubins(options.built, wanted, ARCHITECTURE, work) if options.built else compile_all(wanted, work)
    kernels = broken = 0
    rows: list[tuple] = []
    for cubin in files:
        functions = {f.symbol: f for f in disassemble(cubin)}
        pass_, format = cubin.stem.split(".")[0].rsplit("_", 1)
        steps: dict[str, Step] = {}
        for cell in CELLS:
            case = Case(pass_, cell, format, 512, 16)
            if all(w in (pass_, cell, format) for w in options.only.split()):
                step, made = step_of(case, cubin, work, ARCHITECTURE)
                steps[made.launches[-1].symbol] = step
                rows += counted(case, step, made.plan)
        for symbol, function in functions.items():
            name = name_of(symbol)
            if name is None or not all(w in name.split() for w in options.only.split()):
                continue
            kernels += 1
            found = check(function, name, steps.get(symbol))
            broken += sum(f.broken for f in found)
            show(name, steps.get(symbol), found, options.list)
    if options.counts:
        with options.counts.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)
    print(f"{kernels} kernels for {ARCHITECTURE}, {broken} rules broken")
    return 1 if broken or not kernels else 0


if __name__ == "__main__":
    sys.exit(main())
