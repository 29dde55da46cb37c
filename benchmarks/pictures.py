"""Every picture of README.md and docs/, drawn anew: `make pictures`, or `python benchmarks/pictures.py`.

Pictures of measurements come from the committed rows, those of what a model draws from runs of recipes/. A
run is looked for in RUNS/RECIPE and trained there first, or gone on with, where it is not done: from a minute
to a quarter of an hour each, on one thread. A run whose options are not the recipe's any more is refused.
TRAINED says of each picture the recipe and the flags of `fusegen sample`. The same runs and the same
matplotlib give the same bytes.

Exit status: 0 done; 1 a run failed; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import report
from fusegen.cli import main as fusegen
from fusegen.train.config import flat, from_json, read_json
from fusegen.train.run import Run
from fusegen.train.tasks import find_task
from harness import machine, record
from learning import text
from learning.figures import Figure
from pages import picture
from pages.measured import PEERS, compared, platforms

ROOT = machine.ROOT
DOCS = "docs/pictures"
CURVES = "curves"  # in place of flags: those of training

# picture: (the recipe, how its run is drawn)
TRAINED: dict[str, tuple[str, tuple[str, ...] | str]] = {
    f"{DOCS}/vae.png": ("vae-digits", ()),
    f"{DOCS}/mlp-digits.png": ("gan-mlp-digits", ("--count", "64")),
    f"{DOCS}/mlp-digits-by-class.png": ("gan-mlp-digits-by-class", ("--count", "60")),
    f"{DOCS}/mlp-digits-curves.png": ("gan-mlp-digits-by-class", CURVES),
    f"{DOCS}/mlp-digits-ways.png": ("gan-mlp-digits-by-class", ("--interpolate", "10")),
    f"{DOCS}/dcgan-digits.png": ("gan-dcgan-digits", ("--count", "64")),
    f"{DOCS}/recurrent-prices.png": ("gan-recurrent-prices", ("--count", "6")),
    f"{DOCS}/recurrent-sines.png": ("gan-recurrent-sines", ("--count", "6")),
}
TEXT_ROWS = "intel-xeon-2.50ghz-2-cores/learning/2026-11-21-4094f2d8a1-text.csv"


def pictures() -> dict[str, Callable[[Path, Path], None]]:
    """Of each picture, by its path, what draws it: (the folder of the runs, the file)."""
    found: dict[str, Callable[[Path, Path], None]] = {}
    for path, (recipe, how) in TRAINED.items():
        found[path] = lambda runs, out, recipe=recipe, how=how: of_run(trained(recipe, runs), how, out)
    found[f"{DOCS}/text-lstm.png"] = lambda runs, out: text.draw(bits_of(record.RESULTS / TEXT_ROWS), out)
    for platform in platforms(record.RESULTS):
        if path := report.picture_of(platform):
            found[str(path.relative_to(ROOT))] = lambda runs, out, platform=platform: picture.draw(
                platform.rows, compared, PEERS, out
            )
    return found


def trained(recipe: str, runs: Path) -> Run:
    """The finished run of a recipe. Raises SystemExit where training fails, or where a run is there that has
    other options than the recipe."""
    config, folder = ROOT / f"recipes/{recipe}.json", runs / recipe
    task = recipe.partition("-")[0]
    arguments = ["train", task, "--config", str(config), "--folder", str(folder), "--resume"]
    run = Run.open(folder) if (folder / "config.json").exists() else None
    if run:
        wanted = flat(from_json(find_task(task, "recipe"), read_json(config, "recipe"), str(config)))
        own = flat(run.sections)
        if changed := ", ".join(sorted(name for name in wanted if wanted[name] != own[name])):
            raise SystemExit(
                f"{folder} was trained with other options than {config} has ({changed}): remove it"
            )
    steps = run.checkpoints.steps() if run else []
    if not run or not steps or steps[-1] < run.sections["fit"].steps:
        print(f"training {recipe}", flush=True)
        if status := fusegen(arguments):
            raise SystemExit(status)
    return Run.open(folder)


def of_run(run: Run, how: tuple[str, ...] | str, out: Path) -> None:
    if how == CURVES:
        run.save_curves(out)
        return
    if fusegen(["sample", str(run.folder), "--checkpoint", "last", "--out", str(out), *how]):
        raise SystemExit(1)
    for suffix in (".npy", ".csv"):  # what a series' picture shows, in numbers
        out.with_suffix(suffix).unlink(missing_ok=True)


def bits_of(path: Path) -> list[Figure]:
    """The committed evaluations of a text model, whose rows are older than `Figure`."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Figure(
            "text",
            int(row["seed"]),
            text.BITS,
            float(row["bits"]),
            int(row["step"]),
            seconds=float(row["seconds"]),
        )
        for row in rows
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found = pictures()
    parser.add_argument(
        "--runs", type=Path, default=ROOT / "build/pictures", help="(default: build/pictures)"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="those whose path has this in it")
    parser.add_argument("--out", type=Path, default=ROOT, help="write below this folder (default: in place)")
    parser.add_argument("--list", action="store_true", help="name them, and stop")
    asked = parser.parse_args(argv)
    chosen = [path for path in found if not asked.only or any(name in path for name in asked.only)]
    if not chosen:
        parser.error(f"--only: expected a part of one of {', '.join(found)}, got {' '.join(asked.only)}")
    for path in chosen:
        if not asked.list:
            out = asked.out / path
            out.parent.mkdir(parents=True, exist_ok=True)
            found[path](asked.runs, out)
        print(path, flush=True)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
