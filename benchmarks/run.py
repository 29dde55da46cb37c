"""fusegen's benchmarks: `python benchmarks/run.py SUITE --device cpu|cuda [--quick]`.

Every figure is read beside its peers' in one process, in turn; every peer's result is checked first. The bars
are printed at the end, and the rows go to benchmarks/results/MACHINE/ISA/DATE-COMMIT.csv.

Rows are written as they are read: what a run that is stopped has read is in
DATE-COMMIT-partial-unfinished.csv. With --out FILE they all go to that file, and nothing is written in
benchmarks/results.

Exit status: 0 done; 1 a result of ours was wrong, or a case was not run; 2 wrong arguments, an `--isa` that
is not there, an `--out` that is there already, or no GPU for `--device cuda`; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from harness import cap

if __name__ == "__main__" and (wrong := cap.apply(sys.argv[1:])):  # before torch is imported
    print(f"run.py: {wrong}", file=sys.stderr)
    sys.exit(2)

import torch

from fusegen import _C
from harness import machine, record
from harness.bars import select
from harness.options import Options
from harness.steadiness import of_this_run
from harness.sweep import FAILED, WRONG

SUITES = {
    "rnn": "layers against torch.nn, torch.compile, ONNX Runtime, OpenVINO, oneDNN and the machine's peak",
    "cells": "single-step cells against torch.nn and torch.compile",
    "small": "one step of one row: cells, and layers with and without frozen, on one thread and two",
    "stream": "fusegen.Stream, a step of one session on one thread, against torch.nn, ONNX Runtime and tract",
    "int8": "fusegen.quantize against our float32, torch.ao, ONNX Runtime and torch.nn, one thread and two",
    "ragged": "lengths uniform in 1..T, against torch.nn on the packed input",
    "samples": "gradients of each sample, by torch.func and under Opacus, against Opacus' own layers",
    "ppo": "an update of sb3-contrib's RecurrentPPO, its own policy against fusegen's",
    "ctgan": "CTGAN's critic and epoch against the ctgan package's own, and what Dropout costs",
    "normalised": "layer-norm layers against a loop of cells, torch.compile of it and our plain layer",
    "inside": "resets, recurrent dropout, zoneout, weight drop beside the plain layer and torch.nn's loop",
    "memory": "bytes kept for backward and peak memory of a training step, against torch.nn",
    "accuracy": "error against float64, beside torch.nn's own",
    "gan": "one discriminator step, plain and with penalties, against plain torch",
    "peak": "the large fp32 inference cases against the machine's practical peak",
    "text": "a training step of the demo's model and of a larger one, against the same on torch.nn",
    "models": "people's own models at their published sizes, against torch.nn, on one thread and two",
    "imports": "time of `import fusegen`",
}
IN_LIBRARIES = ("samples", "ppo", "ctgan")  # speed/libraries
IN_PARTS = ("rnn", "cells", "ragged", "accuracy", "small", "stream", "int8", "models", "normalised")
ON_GPU = ("rnn", "cells", "ragged", "accuracy", "gan")


def parse(argv: list[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:10} {what}" for name, what in SUITES.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nsuites:\n{listed}\n  all        all but peak (a part of rnn), in one file\n"
        f"with --device cuda, torch.nn is cuDNN; the suites are {', '.join(ON_GPU)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what reads --isa before torch is there takes no abbreviation
    )
    parser.add_argument("suites", nargs="+", choices=[*SUITES, "all"], metavar="SUITE")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--isa",
        default="",
        metavar="SET",
        help=f"hold both sides to an instruction set of the machine: {', '.join(cap.SETS)}",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer cases and rounds: minutes, not a quarter of an hour"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORD",
        help="cases with all these words, e.g. gru training H512",
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        default=[],
        metavar="NAME",
        help="only these contestants, e.g. fused torch onednn",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help=f"(default: {torch.get_num_threads()}; small, int8 and models: one, and two)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="wall time for each suite that times; on the CPU the run is a partial one",
    )
    parser.add_argument(
        "--part",
        type=part,
        default=(1, 1),
        metavar="K/N",
        help="the K-th of N shares of each suite's cases, of about the same work",
    )
    parser.add_argument(
        "--save", action="store_true", help="write the CSV of a partial run (quick, only, peers, minutes) too"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the CSV of any run to this new file, not into benchmarks/results",
    )
    asked = parser.parse_args(argv)
    if "all" in asked.suites:  # what peak reads is part of rnn
        asked.suites = list(ON_GPU) if asked.device == "cuda" else [name for name in SUITES if name != "peak"]
    for flag, given, suites in (
        ("--device cuda", asked.device == "cuda", ON_GPU),
        ("--part", asked.part != (1, 1), IN_PARTS),
    ):
        strange = [name for name in asked.suites if name not in suites]
        if given and strange:
            parser.error(f"{flag}: expected suites among {', '.join(suites)}, got {', '.join(strange)}")
    return asked


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def part(text: str) -> tuple[int, int]:
    k, slash, n = text.partition("/")
    if not (slash and k.isdigit() and n.isdigit() and 1 <= int(k) <= int(n)):
        raise argparse.ArgumentTypeError(f"expected K/N with 1 <= K <= N, got {text!r}")
    return int(k), int(n)


def missing_for_gpu() -> str:
    """Why `--device cuda` cannot run here, in one line; "" if it can."""
    if not torch.cuda.is_available():
        return "this torch sees no NVIDIA GPU; nothing was timed"
    if not _C.build_info()["cuda_archs"]:
        note = _C.build_info()["cuda_note"]
        return f"this fusegen was built without CUDA kernels ({note}); nothing was timed"
    return ""


def wrong_isa(isa: str) -> str:
    """Why `--isa` cannot be obeyed, in one line; "" if it is."""
    there = _C.available_isas()
    if isa not in there:
        return f"expected one of {', '.join(there)} (which this machine and build have), got {isa!r}"
    if isa != cap.applied:
        return "has to be there before torch is imported: start benchmarks/run.py as a program"
    return ""


def wrong_output(path: Path) -> str:
    """Why `--out` cannot be written, in one line; "" if it can."""
    if path.exists():
        return f"expected a new file, since results are never written over, got {path}, which is there"
    if not path.absolute().parent.is_dir():
        return f"expected a file in a folder that is there, got {path}"
    return ""


def main(argv: list[str] | None = None) -> int:
    asked = parse(argv)
    if asked.isa and (wrong := wrong_isa(asked.isa)):
        print(f"run.py: --isa: {wrong}", file=sys.stderr)
        return 2
    if asked.device == "cuda" and (missing := missing_for_gpu()):
        print(f"run.py: --device cuda: {missing}", file=sys.stderr)
        return 2
    if asked.out and (wrong := wrong_output(asked.out)):
        print(f"run.py: --out: {wrong}", file=sys.stderr)
        return 2
    if asked.threads:
        torch.set_num_threads(asked.threads)
    options = Options(
        quick=asked.quick, only=tuple(asked.only), peers=tuple(asked.peers), minutes=asked.minutes,
        device=asked.device, part=asked.part, threads=asked.threads,
    )  # fmt: skip
    described = machine.environment(asked.device)
    print("  ".join(f"{name} {value}" for name, value in described.items()), flush=True)
    for library, why in cap.unreached().items():
        print(f"--isa {asked.isa} does not reach {library}: {why}", flush=True)
    if not asked.isa and asked.device == "cpu" and _C.isa() != cap.best():
        isa, best = _C.isa(), cap.best()
        print(f"peers may use {best}, for which this build has no kernels: --isa {isa} holds them too")

    (k, n), saved = options.part, asked.save or not options.partial
    part_of = f"-{k}of{n}" if n > 1 else ""
    with record.Running(suffix=part_of, device=asked.device, output=asked.out) as running:
        try:
            rows = read(asked.suites, options)
        except KeyboardInterrupt:
            kept = f"; what was read is in {running.path}" if running.path else ""
            print(f"\nrun.py: stopped{kept}", file=sys.stderr)
            return 130
        if not select(rows, suite=tuple(asked.suites)):
            running.remove()
            print("no case has all the words of --only", file=sys.stderr)
            return 2
        amiss = select(rows, unit=(WRONG, FAILED))
        print_bars(asked.suites, [entry for entry in rows if entry not in amiss], options)
        if asked.out:
            record.saw(rows)
            print(f"\nwritten: {asked.out}")
        elif saved:
            suffix = ("-partial" if options.partial else "") + part_of
            path = record.write(rows, suffix=suffix, device=asked.device)
            print(f"\nwritten: {path.relative_to(machine.ROOT)}")
        if not asked.out:
            running.remove()
    for entry in amiss:
        print(f"{entry.unit}: {entry.suite} {entry.peer} {entry.note}", file=sys.stderr)
    return 1 if amiss else 0


def read(names: list[str], options: Options) -> list[record.Row]:
    """The rows of the suites, each kept as it is read."""
    rows = ceilings("before", options)
    record.saw(rows)
    print(f"\n{LEGEND}", flush=True)
    for name in names:
        print(f"\n{name}: {SUITES[name]}", flush=True)
        found = suite(name, options).run(options)
        record.saw(found)  # what its sweeps have not told of
        rows += found
    rows += ceilings("after", options)
    if options.device == "cpu":
        steady = of_this_run(torch.get_num_threads())
        print(f"\nsteady loop between rounds: {steady}")
        if busy := steady.busy():
            print(f"run.py: {busy}", file=sys.stderr)
    return rows


LEGEND = """\
A line a case: cell, inference or training, dtype, H units, B rows, T steps; then each contestant with its
milliseconds a call, the median over rounds. Other units are named.
  fused    fusegen's kernels         frozen  the same, with weights packed beforehand
  auto     what fusegen's layers run by default: the kernels, or torch's operators where these measured faster
  peak     the time that the case's matrix products take at the machine's best rate
  matmul   the time of one torch product with as many operations, all steps at once
(1.60x fused): the contestant takes 1.60 times as long as fused; above 1, fusegen is faster."""


def suite(name: str, options: Options) -> ModuleType:
    folder = "gpu" if options.device == "cuda" else "speed.libraries" if name in IN_LIBRARIES else "speed"
    return import_module(f"{folder}.{name}")


def ceilings(when: str, options: Options) -> list[record.Row]:
    """What the GPU does at best, before and after: a drift between them is the machine's."""
    if options.device != "cuda":
        return []
    from gpu.ceilings import measure

    return measure(when)


def print_bars(names: list[str], rows: list[record.Row], options: Options) -> None:
    judged = not (options.partial or options.part[1] > 1)
    print("\nbars" + ("" if judged else " (a partial run: figures beside their limits, no verdict)"))
    unsteady = [entry for entry in rows if "unsteady machine" in entry.note]
    if unsteady:
        print(f"  {len(unsteady)} of {len(rows)} rows were read on an unsteady machine: their notes say so")
    for name in names:
        for bar in suite(name, options).bars(select(rows, suite=(name, "ceilings"))):
            print(bar.line(judged))


if __name__ == "__main__":
    sys.exit(main())
