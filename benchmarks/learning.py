"""What the tasks learn on this machine: `python benchmarks/learning.py BAR --seeds 3`.

Each run is `fusegen train TASK` with the flags shown, as a user would start it; what it measured at its last
step is held against a baseline. Rows go to benchmarks/results/MACHINE/learning/.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

import record
from fusegen.cli import main as fusegen
from fusegen.train.run import Run, read_log
from mixture import best_of


@dataclass
class Figure:
    """One measure of one run beside its baseline. passed: "" where no bar is set."""

    bar: str
    seed: int
    measure: str
    value: float
    baseline: str = ""
    baseline_value: float | str = ""
    passed: bool | str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    command: str = ""


@dataclass
class Trained:
    run: Run
    last: dict[str, float]
    seconds: float
    cpu_seconds: float
    command: str


def train(folder: Path, task: str, seed: int, *flags: str) -> Trained:
    """A run from its beginning to its end, and what it measured last."""
    flags = ("--seed", str(seed), *flags)
    begin, worked = time.perf_counter(), time.process_time()
    status = fusegen(["train", task, *flags, "--folder", str(folder), "--no-tensorboard", "--device", "cpu"])
    if status:
        raise SystemExit(status)
    spent = (time.perf_counter() - begin, time.process_time() - worked)
    measured = [line for line in read_log(folder) if any(name.startswith("held-out") for name in line)]
    return Trained(
        Run.open(folder), measured[-1], *spent, " ".join(("fusegen train", task, *map(shown, flags)))
    )


def shown(flag: str) -> str:
    """A flag as it is committed: without the place of a folder of this machine."""
    kind, _, rest = flag.partition(":")
    return f"mo:FOLDER:{rest.rpartition(':')[2]}" if kind == "mo" else flag


def vae(folder: Path, seed: int, flags: list[str]) -> Iterator[Figure]:
    """-ELBO on held-out binarised digits, 10 % below the nats of a mixture of 10 Bernoullis."""
    from fusegen.train.tasks.vae import BOUND

    done = train(folder, "vae", seed, *flags)
    task = done.run.task()
    sides = [(images.pixels >= 128).flatten(1) for images in (task.training, task.held_out)]
    mixture = best_of(*sides)
    bound = done.last[BOUND]
    yield figure(done, "vae", seed, BOUND, "mixture of 10 Bernoullis", mixture, bound <= 0.9 * mixture)
    for name in ("log likelihood", "KL", "active units"):
        yield figure(done, "vae", seed, name)
    yield from importance(done, "vae", seed)


def seqvae(folder: Path, seed: int, flags: list[str]) -> Iterator[Figure]:
    """At least 5 active units, and a better bound than the same model without z, trained the same way."""
    from fusegen.train.tasks.seqvae import BOUND

    done = train(folder / "vae", "seqvae", seed, *flags)
    twin = train(folder / "twin", "seqvae", seed, *flags, "--latent", "0")
    other, units = twin.last[BOUND], done.last["active units"]
    bound = done.last[BOUND]
    yield figure(done, "seqvae", seed, BOUND, "the same without z", other, bound < other)
    yield figure(done, "seqvae", seed, "active units", "bar", 5.0, units >= 5)
    for name in ("log likelihood", "KL", "perplexity", "self-BLEU"):
        yield figure(done, "seqvae", seed, name, "the same without z", twin.last[name])
    yield from importance(done, "seqvae", seed)
    yield figure(twin, "seqvae twin", seed, BOUND)


def seq2seq(folder: Path, seed: int, flags: list[str]) -> Iterator[Figure]:
    """99 % of words of 5 to 20 letters that were never seen, reversed without a mistake."""
    done = train(folder, "seq2seq", seed, *flags)
    exact = done.last["exact %"]
    yield figure(done, "seq2seq", seed, "exact %", "bar", 99.0, exact >= 99)
    yield figure(done, "seq2seq", seed, "held-out nats per token")


def translation(folder: Path, seed: int, flags: list[str]) -> Iterator[Figure]:
    """BLEU on held-out messages of gettext catalogues, above that of the sources as they are."""
    done = train(folder, "seq2seq", seed, *TRANSLATION, *flags)
    copied = done.last["BLEU of the sources"]
    yield figure(
        done, "translation", seed, "BLEU", "the sources as they are", copied, done.last["BLEU"] > copied
    )
    for name in ("exact %", "perplexity"):
        yield figure(done, "translation", seed, name)


TRANSLATION = [
    *("--tokens", "word", "--vocabulary", "4000", "--longest", "40", "--hidden", "256", "--embedding", "128"),
    *("--dropout", "0.3", "--batch", "32", "--steps", "1500", "--beam", "4"),
]
BARS: dict[str, Callable[[Path, int, list[str]], Iterator[Figure]]] = {
    "vae": vae,
    "seqvae": seqvae,
    "seq2seq": seq2seq,
    "translation": translation,
}


def figure(
    done: Trained,
    bar: str,
    seed: int,
    measure: str,
    baseline: str = "",
    baseline_value: float | str = "",
    passed: bool | str = "",
) -> Figure:
    value = done.last[measure]
    return Figure(
        *(bar, seed, measure, value, baseline, baseline_value, passed),
        *(done.seconds, done.cpu_seconds, done.command),
    )


def importance(done: Trained, bar: str, seed: int) -> Iterator[Figure]:
    for name in done.last:
        if name.startswith("nats, "):
            yield figure(done, bar, seed, name)


def main(argv: list[str] | None = None) -> int:
    described = "\n".join(f"  {name:12} {bar.__doc__}" for name, bar in BARS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nbars:\n{described}\n\nother flags are those of fusegen train, in place of "
        "its defaults; translation needs --data mo:FOLDER:LANGUAGE",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bar", choices=BARS, metavar="BAR")
    parser.add_argument("--seeds", type=int, default=3, help="0, 1, ... so many (default: 3)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--keep", type=Path, help="a folder for the runs, which are thrown away otherwise")
    parser.add_argument("--dry", action="store_true", help="write no CSV")
    asked, flags = parser.parse_known_args(argv)
    torch.set_num_threads(asked.threads)
    figures: list[Figure] = []
    names = [each.name for each in fields(Figure)]
    with tempfile.TemporaryDirectory() as aside, record.learning(asked.bar, names, asked.dry) as (path, add):
        for seed in range(asked.first, asked.first + asked.seeds):
            folder = (asked.keep or Path(aside)) / f"{asked.bar}-{seed}"
            of_seed = list(BARS[asked.bar](folder, seed, flags))
            add(map(asdict, of_seed))
            figures += of_seed
    print()
    for each in figures:
        against = f"{each.baseline} {each.baseline_value:.4g}" if each.baseline else ""
        verdict = {True: "reached", False: "MISSED", "": ""}[each.passed]
        print(
            f"{each.bar} seed {each.seed}  {each.measure:28} {each.value:9.4f}  {against:36} {verdict:8} "
            f"{each.seconds:.0f} s, {each.cpu_seconds:.0f} of the CPU"
        )
    if path is not None:
        print(path)
    return int(any(each.passed is False for each in figures))


if __name__ == "__main__":
    sys.exit(main())
