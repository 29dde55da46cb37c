"""What the tasks learn on this machine: `python benchmarks/learn.py BAR --seeds 3`.

Each run is `fusegen train TASK` with the flags shown, as a user would start it; what it measured is held
against a baseline. Rows go to benchmarks/results/MACHINE/learning/DATE-COMMIT-BAR.csv.

Exit status: 0 done; 1 a bar was missed; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path

import torch

from harness import record
from learning.figures import Asked, Figure
from learning.gan import gan
from learning.int8 import int8
from learning.processes import processes
from learning.seq2seq import seq2seq, translation
from learning.series import WAYS, sounds, sweep
from learning.text import draw, text
from learning.vae import seqvae, vae
from learning.writing import writing

BARS: dict[str, Callable[[Asked], Iterator[Figure]]] = {
    bar.__name__: bar
    for bar in (vae, seqvae, seq2seq, translation, text, int8, gan, writing, sounds, sweep, processes)
}


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    described = "\n".join(f"  {name:12} {bar.__doc__}" for name, bar in BARS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nbars:\n{described}\n\nother flags are those of fusegen train, in place of "
        "its defaults; gan needs --arch ARCH, translation --data mo:FOLDER:LANGUAGE",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what is no flag of ours is one of fusegen train
    )
    parser.add_argument("bar", choices=BARS, metavar="BAR")
    parser.add_argument("--seeds", type=int, default=3, help="so many, 0, 1, ... (default: 3)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--keep", type=Path, help="a folder for the runs, which are thrown away otherwise")
    parser.add_argument("--dry", action="store_true", help="write no CSV")
    parser.add_argument("--by", choices=["fusegen", "torch", "both"], default="both", help="gan: who trains")
    parser.add_argument(
        "--judges", type=int, default=0, help="gan of series, sounds, sweep: so many of each kind of judge"
    )
    parser.add_argument(
        "--judge-steps", type=int, default=0, metavar="N",
        help="gan of series, sounds, sweep: training steps of each judge (default: as fusegen evaluate)",
    )  # fmt: skip
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY",
        help=f"sweep: these alone, of {', '.join(WAYS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--no-beside",
        dest="beside",
        action="store_false",
        help="gan: leave out what a GAN of series or text is held against",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="text: draw the curves there, as PNG")
    asked, flags = parser.parse_known_args(argv)
    for flag, given, bars in (
        ("--by", asked.by != "both", ("gan",)),
        ("--no-beside", not asked.beside, ("gan",)),
        ("--judges", asked.judges, ("gan", "sounds", "sweep")),
        ("--judge-steps", asked.judge_steps, ("gan", "sounds", "sweep")),
        ("--ways", asked.ways != list(WAYS), ("sweep",)),
        ("--picture", asked.picture, ("text",)),
    ):
        if given and asked.bar not in bars:
            parser.error(f"{flag}: expected the bar {' or '.join(bars)}, got {asked.bar}")
    return asked, flags


def main(argv: list[str] | None = None) -> int:
    asked, flags = parse(argv)
    torch.set_num_threads(asked.threads)
    figures: list[Figure] = []
    names = [each.name for each in fields(Figure)]
    with tempfile.TemporaryDirectory() as aside, record.learning(asked.bar, names, asked.dry) as (path, add):
        for seed in range(asked.first, asked.first + asked.seeds):
            folder = (asked.keep or Path(aside)) / f"{asked.bar}-{seed}"
            this = Asked(
                bar=asked.bar,
                seed=seed,
                folder=folder,
                flags=tuple(flags),
                by=asked.by,
                judges=asked.judges,
                judge_steps=asked.judge_steps,
                beside=asked.beside,
                ways=tuple(asked.ways),
            )
            for figure in BARS[asked.bar](this):  # a long sweep that is stopped has left what it found
                add([asdict(figure)])
                figures.append(figure)
    print("\n" + "\n".join(map(line, figures)))
    if asked.picture:
        draw(figures, asked.picture)
    if path is not None:
        print(f"written: {path}")
    return int(any(each.passed is False for each in figures))


def line(figure: Figure) -> str:
    against = f"{figure.baseline} {figure.baseline_value:.4g}" if figure.baseline else ""
    verdict = {True: "reached", False: "MISSED", "": ""}[figure.passed]
    step = f"step {figure.step}" if figure.step != "" else ""
    return (
        f"{figure.bar} seed {figure.seed}  {figure.measure:28} {figure.value:11.4g}  {step:10} {against:36} "
        f"{verdict:8} {figure.seconds:.0f} s, {figure.cpu_seconds:.0f} of the CPU"
    )


if __name__ == "__main__":
    sys.exit(main())
