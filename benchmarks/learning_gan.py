"""What the GANs learn, and whether the same GANs in plain torch learn the same: one row a seed and measure.

    python benchmarks/learning_gan.py gan --arch mlp --seeds 3

trains with `fusegen train gan --arch ARCH` and its defaults, measures with `fusegen evaluate`, and writes
results/MACHINE/learning/DATE-COMMIT-gan.csv. --by torch trains the same networks from the same seeds with
torch's autograd alone: D on real and on fake samples in two passes, penalties by a second backward.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import fusegen
from fusegen.cli import main as command
from fusegen.train import GanTask
from fusegen.train.tasks import TASKS
from fusegen.train.tasks.gan.options import ARCHS

sys.path.insert(0, str(Path(__file__).parent))
import record

PLAIN = "gan-in-plain-torch"
COLUMNS = ("suite", "arch", "seed", "by", "options", "measure", "value")


class PlainGan(GanTask):
    """`GanTask` without the fused step: the non-saturating loss with R1, as one writes it with torch."""

    def discriminator_turn(self, D, batch, carried):
        rules, model = self.rules, self.model
        if (rules.loss, rules.r2, rules.gp, model.num_classes) != ("non_saturating", 0.0, 0.0, 0):
            raise ValueError("loss: plain torch stands for non_saturating with R1 alone, without classes")
        with torch.no_grad():
            real, fake = self._both(batch)
        weights = rules.penalties(self._step)
        real.requires_grad_(bool(weights))
        r, f = D(real).flatten(), D(fake).flatten()
        loss = F.softplus(-r).mean() + F.softplus(f).mean()
        losses = {}
        if weights:
            (gradient,) = torch.autograd.grad(r.sum(), real, create_graph=True)
            gradient = gradient.movedim(model.sample_dim, 0).flatten(1)
            losses["penalty"] = weights["r1"] / 2 * gradient.square().sum(1).mean()
        return {"discriminator loss": loss + sum(losses.values()), **losses}, None

    def generator_turn(self, G, batch, carried):
        D = self.model.discriminator
        D.requires_grad_(False)
        try:
            loss = F.softplus(-D(self._both(batch)[1])).mean()
        finally:
            D.requires_grad_(True)
        return {"generator loss": loss}, None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("suite", choices=["gan"])
    parser.add_argument("--arch", choices=ARCHS, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--by", choices=["fusegen", "torch", "both"], default="both")
    parser.add_argument("--folder", help="keep the runs there")
    asked, options = parser.parse_known_args()
    TASKS[PLAIN] = ("__main__:PlainGan", "the same in plain torch")
    implementations = ["fusegen", "torch"] if asked.by == "both" else [asked.by]
    with tempfile.TemporaryDirectory() as temporary, record.learning("gan", COLUMNS) as (path, add):
        folder = Path(asked.folder or temporary)
        for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
            for by in implementations:
                add(measured(asked.arch, seed, by, folder / f"{asked.arch}-{by}-{seed}", options))
    print(path)
    return 0


def measured(arch: str, seed: int, by: str, folder: Path, options: list[str]) -> list[dict[str, object]]:
    """Rows of one run: its measures, and the seconds it took, evaluations included."""
    task = "gan" if by == "fusegen" else PLAIN
    train = ["train", task, "--arch", arch, "--seed", str(seed), "--folder", str(folder), *options]
    backend = fusegen.get_backend()
    fusegen.set_backend("auto" if by == "fusegen" else "torch")
    start, cpu = time.monotonic(), time.process_time()
    try:
        if command([*train, "--device", "cpu", "--no-tensorboard"]):
            raise SystemExit(f"{' '.join(train)} failed")
    finally:
        fusegen.set_backend(backend)
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        if command(["evaluate", str(folder), "--checkpoint", "last"]):
            raise SystemExit("fusegen evaluate failed")
    found = dict(line.rsplit("  ", 1) for line in said.getvalue().splitlines())
    print(said.getvalue())
    shared = {"suite": "learning-gan", "arch": arch, "seed": seed, "by": by, "options": " ".join(options)}
    found |= {"seconds of training": f"{seconds:.1f}", "CPU seconds of training": f"{cpu:.1f}"}
    return [{**shared, "measure": name, "value": value.strip()} for name, value in found.items()]


if __name__ == "__main__":
    raise SystemExit(main())
