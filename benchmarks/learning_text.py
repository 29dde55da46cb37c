"""What a text model learns of pydocs in five minutes: `python benchmarks/learning_text.py --seeds 3`.

Each run is the command of docs/text_lstm.md in a process of its own, timed from its start to its end; bits
per character are those of its last evaluation, on the last 10 % of the text. Rows, one for each evaluation,
go to benchmarks/results/MACHINE/learning/. Further flags are passed on to `fusegen train text`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record
from fusegen.train.run import read_log
from fusegen.train.tasks.text import BITS

BITS_BAR, SECONDS_BAR = 1.66, 300
WITTEN_BELL = 1.90  # a 5-gram model of the same split
COLUMNS = ("suite", "seed", "command", "step", "seconds", "bits", "passed")
PRESET = ["--steps", "1300"]  # and the defaults: a two-layer LSTM, H 256, 16 x 64 bytes a step


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--folder", help="keep the runs there, as seed-0, seed-1, ...")
    parser.add_argument("--no-save", action="store_true", help="write no CSV")
    parser.add_argument("--picture", metavar="FILE", help="draw the curves there, as PNG")
    asked, flags = parser.parse_known_args()
    held, rows = True, []
    with (
        tempfile.TemporaryDirectory() as temporary,
        record.learning("text", COLUMNS, dry=asked.no_save) as (path, add),
    ):
        for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
            folder = Path(asked.folder or temporary) / f"seed-{seed}"
            of_seed = trained(folder, seed, [*PRESET, *flags])
            add(of_seed)
            rows += of_seed
            held = held and bool(rows[-1]["passed"])
    if asked.picture:
        draw(rows, Path(asked.picture))
    if path is not None:
        print(f"written: {path.relative_to(record.ROOT)}")
    return 0 if held else 1


def trained(folder: Path, seed: int, flags: list[str]) -> list[dict[str, object]]:
    """A row for each evaluation of one run; the last one says whether it passed."""
    arguments = ["train", "text", *flags, "--seed", str(seed)]
    command = [sys.executable, "-m", "fusegen.cli", *arguments, "--folder", str(folder), "--no-tensorboard"]
    begin = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - begin
    shared = {"suite": "learning-text", "seed": seed, "command": " ".join(["fusegen", *arguments])}
    lines = [line for line in read_log(folder) if BITS in line]
    rows = [
        {
            **shared,
            "step": line["step"],
            "seconds": line["seconds"],
            "bits": f"{line[BITS]:.4f}",
            "passed": "",
        }
        for line in lines
    ]
    bits = lines[-1][BITS]
    rows[-1] |= {"seconds": f"{seconds:.1f}", "passed": bits <= BITS_BAR and seconds <= SECONDS_BAR}
    verdict = "pass" if rows[-1]["passed"] else "FAIL"
    print(
        f"{verdict}  seed {seed}: {bits:.4f} <= {BITS_BAR} bits per character, "
        f"{seconds:.0f} <= {SECONDS_BAR} s"
    )
    return rows


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Bits per character of each evaluation after the first, by seconds, a line for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    for seed in dict.fromkeys(row["seed"] for row in rows):
        own = [row for row in rows if row["seed"] == seed and row["step"]]
        points = [(float(row["seconds"]), float(row["bits"])) for row in own]
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"seed {seed}")
    for bits, name in ((WITTEN_BELL, "Witten–Bell 5-gram"), (BITS_BAR, "bar")):
        axis.axhline(bits, color="grey", linewidth=0.8, linestyle="--")
        axis.annotate(
            f"{name} {bits:.2f}", (0.99, bits), xycoords=("axes fraction", "data"), ha="right", va="bottom"
        )
    axis.set(xlabel="seconds", ylabel="held-out bits per character", xlim=(0, None))
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
