"""Check the machine code of the CUDA kernels: check_sass.py [--built FOLDER] [--only WORDS] [--counts FILE].

Compiles the instantiations of csrc/kernels/cuda/recurrent for sm_90a, or takes the objects of a CUDA build,
disassembles them, finds the loop over steps of every kernel, and holds what stands in it to RULES. How long a
step is comes from running the code for a case, H 512 and B 16 on an H200, without a GPU (tools/sass). A
kernel that no rule is for is an error.
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

from sass.cases import KERNELS, ROOT, Case, MachineCode, instantiations, machine_code, step_of, words_of
from sass.count import Step
from sass.flow import Graph, step_loop
from sass.listing import Function, extract, tool
from sass.rules import Finding, Limits, findings

ARCHITECTURE = "sm_90a"
H, B = 512, 16
PASSES, CELLS, FORMATS = ("forward", "backward"), ("lstm", "gru", "rnn"), ("bf16", "f16", "tf32", "f32")
COLUMNS = ("pass", "cell", "dtype", "H", "B", "transport", "part", "instructions", "times", "executed")
PARTS = (
    r"cuda\d+(?:(?:stepwise|wide|normalised)\d+)?([a-z_]+?)(?:_kernel)?I",
    r"\d(Lstm|Gru|Rnn)(?:Gradient)?E",
    r"\dFormat(Bf16|F16|Tf32|F32)\D",
)

# A pattern of names (see name_of) -> what may stand in the kernel's loop; the first that fits.
RULES: tuple[tuple[str, Limits], ...] = (
    # Through L2 the warp that gathers holds its addresses in pairs of registers, and TF32 has few products.
    (r"backward (lstm|gru) tf32 ", Limits(moves=1.5)),
    (r"(forward|backward) ", Limits()),  # all steps
    # Many rows at a time. What warpgroups multiply goes by descriptors, two moves of the path that all lanes
    # share for each, and one chain of sums is their own to pipeline; loads stand before the products, not
    # before the wait, which follows them.
    (r"wide forward ", Limits(chain=32, moves=2, waited_loads=None)),
    # A launch a step puts the registers of a product together from several loads: up to four moves for each,
    # which no bar is on and nobody has taken out yet.
    (r"step (forward|backward) ", Limits(moves=4)),
    # Of normalised cells, the same product.
    (r"block product ", Limits(moves=4)),
)

# Instructions of a step of H 512, B 16 as the plan runs it: what stands in the loop, inner loops times their
# trips. In the order of FORMATS; about a twentieth more than they take. The bars, of what 147aea8 took:
# 1,232 for LSTM backward in bf16 (40 %), in float32 1,738 backward and 1,452 forward (35 %; it takes 42 %).
MOST: dict[tuple[str, str], tuple[int, int, int, int]] = {
    ("forward", "lstm"): (1130, 1130, 1340, 1800),
    ("forward", "gru"): (1690, 1690, 1900, 2070),
    ("forward", "rnn"): (1130, 1130, 1230, 1610),
    ("backward", "lstm"): (720, 720, 880, 1300),
    ("backward", "gru"): (680, 680, 830, 1160),
    ("backward", "rnn"): (760, 760, 640, 1060),
}


def name_of(symbol: str) -> str:
    """'forward lstm bf16 1': kernel, cell, format, and the numbers that its template is given."""
    found = [match[1].lower().replace("_", " ") for part in PARTS if (match := re.search(part, symbol))]
    return " ".join([*found, *re.findall(r"L[ibjh](\d+)E", symbol)]) if found else symbol


def limits_of(name: str) -> Limits:
    for pattern, limits in RULES:
        if re.match(pattern, name):
            return limits
    raise SystemExit(f"check_sass: no rule for {name}")


def cubins(sources: list[Path], folder: Path, built: Path | None = None) -> list[Path]:
    """Of these sources, compiled two at a time unless they are newer than every source, or out of a build."""
    folder.mkdir(parents=True, exist_ok=True)
    newest = max(p.stat().st_mtime for p in KERNELS.parent.rglob("*.[hc]*"))
    architecture = ARCHITECTURE.removeprefix("sm_")

    def make(source: Path) -> Path:
        cubin = folder / ("_".join(source.relative_to(KERNELS).with_suffix("").parts) + ".cubin")
        if built:
            extract(built, source, ARCHITECTURE, cubin)
        elif not cubin.exists() or cubin.stat().st_mtime < newest:
            command = [
                "nvcc", "-std=c++20", "-O3", f"-gencode=arch=compute_{architecture},code={ARCHITECTURE}",
                f"-I{KERNELS}", f"-I{KERNELS.parent}", f"-I{KERNELS.parents[1]}", "--expt-relaxed-constexpr",
                "-cubin", "-o", str(cubin), str(source),
            ]  # fmt: skip
            subprocess.run(command, check=True)
        return cubin

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(make, sources))


def wanted_sources(words: list[str]) -> list[Path]:
    """Those that may hold kernels with these words in their names."""
    told = set(PASSES) | set(FORMATS)
    return [
        s
        for s in instantiations()
        if all(w in words_of(s) for w in words if w in told and told & {*words_of(s)})
    ]


def show(name: str, step: Step | None, found: list[Finding], every: bool) -> None:
    if step:
        print(f"{name}: {step.standing} instructions a step; the busiest warp executes {step.executed}")
        for part in step.parts if every else ():
            print(f"    {part.instructions:5} x {part.times:<3} {part.what} ({part.header:#x})")
    for f in found:
        if f.broken:
            where = "; ".join(f"{i.address:#x} {i}" for i in f.where[:3])
            print(f"{name}: {f.rule}: {f.found:g}, at most {f.limit:g}" + f" ({where})" * bool(where))


def check(function: Function, name: str, step: Step | None, case: Case | None) -> list[Finding]:
    """Of a kernel that multiplies; others have no rules."""
    graph = Graph(function)
    loop = step_loop(graph)
    if loop is None:
        return []
    limits = limits_of(name)
    if case:
        most = MOST[case.pass_, case.cell][FORMATS.index(case.format)]
        limits = replace(limits, instructions=most)
    if step is None:
        return findings(graph, loop, limits)
    return findings(graph, loop, limits, step.standing, step.busiest)


def counted(case: Case, step: Step, plan: dict[str, str]) -> list[tuple]:
    head = (case.pass_, case.cell, case.format, case.H, case.B, plan["transport"])
    rows = [(*head, p.what, p.instructions, p.times, "") for p in step.parts]
    return [*rows, (*head, "step", len(step.graph.code_of(step.loop.blocks)), step.standing, step.executed)]


def steps(
    code: MachineCode, words: list[str], folder: Path
) -> tuple[dict[str, tuple[Case, Step]], list[tuple]]:
    """Of the cases with these words: kernel -> its step; and the rows of --counts."""
    found: dict[str, tuple[Case, Step]] = {}
    rows: list[tuple] = []
    for format in FORMATS:
        for pass_ in PASSES:
            for cell in CELLS:
                if all(w in (pass_, cell, format) for w in words):
                    case = Case(pass_, cell, format, H, B)
                    step, made = step_of(case, code, folder, ARCHITECTURE)
                    found[step.graph.function.symbol] = case, step
                    rows += counted(case, step, made.plan)
    return found, rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="check_sass", description=__doc__.split(":", 1)[0])
    parser.add_argument("--built", type=Path, help="the folder of a CUDA build, whose objects are read")
    parser.add_argument("--only", default="", help="kernels whose name has these words: 'backward lstm bf16'")
    parser.add_argument("--counts", type=Path, help="write the counts to this file")
    parser.add_argument("--list", action="store_true", help="print the loops inside each step, too")
    options = parser.parse_args(arguments)
    for needed in ("nvdisasm", "cuobjdump"):
        if tool(needed) is None:
            raise SystemExit(f"check_sass: no {needed}: pip install -c constraints.txt nvidia-cuda-{needed}")
    words, work = options.only.split(), ROOT / "build/sass"
    code = machine_code(cubins(wanted_sources(words), work, options.built))
    known, rows = steps(code, words, work)
    kernels = broken = 0
    for symbol, kernel in code.items():
        name = name_of(symbol)
        if not all(w in name.split() for w in words):
            continue
        case, step = known.get(symbol, (None, None))
        found = check(kernel.function, name, step, case)
        kernels += 1
        broken += sum(f.broken for f in found)
        show(name, step, found, options.list)
    if options.counts:
        with options.counts.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([COLUMNS, *rows])
    print(f"{kernels} kernels for {ARCHITECTURE}, {broken} rules broken")
    return 1 if broken or not kernels else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError, LookupError, subprocess.CalledProcessError) as error:
        sys.exit(f"check_sass: {error}")
