"""What the CUDA kernels' machine code makes of a step by a table of latencies: modelled, never measured.

    python benchmarks/gpu/model.py [--out FILE] [--only WORDS] [--batch B ...]

Needs nvcc and nvdisasm, no GPU. For each case a line: instructions, modelled microseconds a step, the plan
(planned.py, of which backward is to take 1.3 times forward's), and what the busiest warp's time goes into.
latencies.py says what is taken for granted, tools/sass/schedule.py how it is put together.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("benchmarks", "tools"):
    sys.path.insert(0, str(ROOT / folder))

from check_sass import ARCHITECTURE, CELLS, FORMATS, PASSES, cubins, wanted_sources  # noqa: E402
from sass.cases import Case, MachineCode, machine_code, step_of  # noqa: E402
from sass.count import Step  # noqa: E402
from sass.flow import is_product  # noqa: E402
from sass.schedule import Modelled, Prices, model  # noqa: E402

from gpu import latencies, planned  # noqa: E402

HEIGHTS, BATCH = (256, 512, 1024), 16
COLUMNS = (
    "pass", "cell", "dtype", "H", "B", "transport", "blocks", "instructions", "executed", "products",
    "modelled_us", "planned_us", "ratio", "spent_cycles",
)  # fmt: skip
BACKWARD = 1.3  # of the plan's forward


def prices(cluster: int) -> Prices:
    sends = latencies.SENDS[2 if cluster <= 2 else 4]
    return Prices(
        {name: cost.cycles for name, cost in latencies.LATENCY.items()},
        {name: cost.cycles for name, cost in latencies.OCCUPIES.items()},
        latencies.SHARED_PASS.cycles,
        latencies.GLOBAL_LINE.cycles,
        sends.cycles,
        latencies.WGMMA_CYCLES_OF_N.cycles,
    )


@dataclass(frozen=True)
class Priced:
    case: Case
    step: Step
    plan: dict[str, str]
    made: Modelled

    @property
    def microseconds(self) -> float:
        return self.made.cycles / self.step.steps / (latencies.GHZ * 1000)

    @property
    def planned(self) -> float | None:
        forward = planned.step(self.case.H, self.case.B) if self.case.cell == "lstm" else None
        if forward is None or self.case.format != "bf16":
            return None
        return forward * (BACKWARD if self.case.pass_ == "backward" else 1)

    def row(self) -> tuple:
        c, ratio = self.case, self.microseconds / self.planned if self.planned else None
        products = sum(map(is_product, self.step.busiest))
        spent = "; ".join(f"{why} {n:.0f}" for why, n in sorted(self.made.spent.items(), key=lambda x: -x[1]))
        return (
            c.pass_, c.cell, c.format, c.H, c.B, self.plan["transport"], self.plan["blocks"],
            self.step.standing, self.step.executed, products, f"{self.microseconds:.2f}",
            f"{self.planned:.2f}" if self.planned else "", f"{ratio:.2f}" if ratio else "", spent,
        )  # fmt: skip


def priced(case: Case, code: MachineCode, folder: Path) -> Priced | None:
    """None where the plan is a launch a step, whose time is the launch's."""
    step, made = step_of(case, code, folder, ARCHITECTURE)
    if made.plan["transport"] == "launch":
        return None
    cluster = int(made.plan["blocks"]) if made.plan["transport"] == "cluster" else 1
    instructions = step.graph.function.code
    return Priced(
        case, step, made.plan, model(instructions, step.warps, prices(cluster), int(made.plan["slices"]))
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="model", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, help="also write the rows to this file")
    parser.add_argument("--only", default="", help="cases that have these words: 'backward lstm bf16'")
    parser.add_argument("--batch", type=int, nargs="+", default=[BATCH], help=f"rows, {BATCH} unless given")
    options = parser.parse_args(arguments)
    work = ROOT / "build/sass"
    words = options.only.split()
    code = machine_code(cubins(wanted_sources(words), work))
    rows = []
    for format, pass_, cell, H, B in itertools.product(FORMATS, PASSES, CELLS, HEIGHTS, options.batch):
        if all(w in (pass_, cell, format) for w in words) and (
            made := priced(Case(pass_, cell, format, H, B), code, work)
        ):
            rows.append(made.row())
            print("modelled:", *rows[-1], flush=True)
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
