"""A text model in five minutes: the command of docs/text_lstm.md, in a process of its own, timed from its
start to its end.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fusegen import drawing
from fusegen.train.run import read_log
from fusegen.train.tasks.text import BITS
from learning.figures import Asked, Figure

BITS_BAR, SECONDS_BAR = 1.66, 300
WITTEN_BELL = 1.90  # a 5-gram model of the same split
PRESET = ("--steps", "1300")  # and the defaults: a two-layer LSTM, H 256, 16 x 64 bytes a step


def text(asked: Asked) -> Iterator[Figure]:
    """1.66 bits per character of the last 10 % of pydocs within 300 seconds."""
    arguments = ["train", "text", *PRESET, *asked.flags, "--seed", str(asked.seed)]
    command = [sys.executable, "-m", "fusegen.cli", *arguments, "--folder", str(asked.folder)]
    begin = time.perf_counter()
    subprocess.run([*command, "--no-tensorboard"], check=True)
    seconds = time.perf_counter() - begin
    lines = [line for line in read_log(asked.folder) if BITS in line]
    figures = [
        Figure(
            asked.bar, asked.seed, BITS, line[BITS],
            step=line["step"], seconds=line["seconds"], command=" ".join(["fusegen", *arguments]),
        )
        for line in lines
    ]  # fmt: skip
    last = replace(figures[-1], seconds=seconds)
    yield from figures[:-1]
    yield last.beside("bar", BITS_BAR, last.value <= BITS_BAR)
    yield replace(last, measure="seconds", value=seconds).beside("bar", SECONDS_BAR, seconds <= SECONDS_BAR)


def draw(figures: list[Figure], path: Path) -> None:
    """Bits per character of each evaluation after the first, by seconds, a line for each seed."""
    with drawing.styled():
        picture = drawing.figure(height=3.6, layout="constrained")
        axis = picture.subplots()
        for seed in dict.fromkeys(each.seed for each in figures):
            own = [each for each in figures if each.seed == seed and each.measure == BITS and each.step]
            points = [(each.seconds, each.value) for each in own]
            axis.plot(*zip(*points, strict=True), marker="o", label=f"seed {seed}")
        for bits, name in ((WITTEN_BELL, "Witten–Bell 5-gram"), (BITS_BAR, "bar")):
            axis.axhline(bits, color=drawing.MUTED, linewidth=0.8, linestyle="--")
            axis.annotate(
                f"{name} {bits:.2f}",
                (0.99, bits),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
            )
        axis.set(xlabel="seconds", ylabel="held-out bits per character", xlim=(0, None))
        axis.legend()
    path.write_bytes(drawing.png(picture))
