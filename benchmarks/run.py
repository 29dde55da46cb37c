"""fusegen's benchmarks: `python benchmarks/run.py SUITE --device cpu [--quick]`.

Every figure is read beside its peers' in one process, in turn; every peer's result is checked first. The bars
are printed at the end, and the rows go to benchmarks/results/MACHINE/DATE-COMMIT.csv.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

import torch

import record
from bars import select
from options import Options

SUITES = {
    "rnn": "layers against torch.nn, torch.compile, ONNX Runtime, oneDNN and the machine's peak",
    "cells": "single-step cells against torch.nn and torch.compile",
    "ragged": "lengths uniform in 1..T, against torch.nn on the packed input",
    "memory": "bytes kept for backward, against torch.nn",
    "accuracy": "fp32 error against float64, beside torch.nn's own",
    "gan": "one discriminator step, plain and with penalties, against plain torch",
    "peak": "the large fp32 inference cases against the machine's practical peak",
    "text": "a training step of the demo's model and of a larger one, against the same on torch.nn",
    "imports": "time of `import fusegen`",
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:10} {what}" for name, what in SUITES.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nsuites:\n{listed}\n  all        all but peak (a part of rnn), in one file",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suites", nargs="+", choices=[*SUITES, "all"], metavar="SUITE")
    parser.add_argument("--device", choices=["cpu"], default="cpu")
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
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--minutes", type=float, help="wall time for each suite that times")
    parser.add_argument(
        "--save", action="store_true", help="write the CSV of a partial run (quick, only, peers) too"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    asked = parse(argv)
    torch.set_num_threads(asked.threads)
    options = Options(asked.quick, tuple(asked.only), tuple(asked.peers), asked.minutes)
    # What peak reads is part of rnn.
    names = [name for name in SUITES if name != "peak"] if "all" in asked.suites else asked.suites
    print("  ".join(f"{name} {value}" for name, value in record.environment().items()), flush=True)

    rows = []
    for name in names:
        print(f"\n{name}: {SUITES[name]}", flush=True)
        rows += import_module(f"suites.{name}").run(options)
    if not rows:
        print("no case has all the words of --only", file=sys.stderr)
        return 2
    print_bars(names, rows, options)
    if asked.save or not options.partial:
        path = record.write(rows, suffix="-partial" if options.partial else "")
        print(f"\nwritten: {path.relative_to(record.ROOT)}")
    return 0


def print_bars(names: list[str], rows: list[record.Row], options: Options) -> None:
    print("\nbars" + (" (a partial run: no verdict)" if options.partial else ""))
    for name in names:
        for bar in import_module(f"suites.{name}").bars(select(rows, suite=name)):
            print(bar)


if __name__ == "__main__":
    sys.exit(main())
