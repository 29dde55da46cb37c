"""What the GANs learn, and whether the same GANs in plain torch learn the same: `--arch ARCH` of `fusegen
train gan`.

In plain torch are the same networks from the same seeds with torch's autograd alone: D on real and on fake
samples in two passes, penalties by a second backward.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F

import fusegen
from fusegen.cli import main as command
from fusegen.train import GanTask
from fusegen.train.tasks import TASKS
from learning.figures import Asked, Figure, Trained, train

PLAIN = "gan-in-plain-torch"
SECONDS = "CPU seconds of training"


class PlainGan(GanTask):
    """`GanTask` without the fused step: the non-saturating loss with R1, as one writes it with torch."""

    def discriminator_turn(self, D, batch, carried):
        rules, model = self.rules, self.model
        known = ("non_saturating", 0.0, 0.0, None, 0)
        if (rules.loss, rules.r2, rules.gp, rules.approximate_r1, model.num_classes) != known:
            raise ValueError("loss: plain torch stands for non_saturating with exact R1, without classes")
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


def gan(asked: Asked) -> Iterator[Figure]:
    """Distances to the data after training, beside those of the same GAN in plain torch (--by)."""
    done = {by: measured(asked, by) for by in ("fusegen", "torch") if asked.by in (by, "both")}
    plain = done.get("torch")
    for by, run in done.items():
        for measure in run.last:
            figure = run.figure(measure, asked.bar if by == "fusegen" else f"{asked.bar} in plain torch")
            fit = run.last.get(f"{measure} of a Gaussian fit")
            if plain and by == "fusegen":
                figure = figure.beside("plain torch", plain.last[measure])
            elif fit is not None:
                figure = figure.beside("a Gaussian fit", fit)
            yield figure


def measured(asked: Asked, by: str) -> Trained:
    """A run with what `fusegen evaluate` says of it."""
    TASKS[PLAIN] = ("learning.gan:PlainGan", "the same in plain torch")
    backend, folder = fusegen.get_backend(), asked.folder / by
    fusegen.set_backend("auto" if by == "fusegen" else "torch")
    said, how = io.StringIO(), ["--judges", str(asked.judges)] if asked.judges else []
    how += [] if asked.beside else ["--no-beside"]
    how += ["--score-steps", str(asked.judge_steps)] if asked.judge_steps else []
    try:
        done = train(asked, "gan" if by == "fusegen" else PLAIN, folder=folder)
        fusegen.set_backend(backend)
        with contextlib.redirect_stdout(said):
            if command(["evaluate", str(folder), "--checkpoint", "last", *how]):
                raise SystemExit("fusegen evaluate failed")
    finally:
        fusegen.set_backend(backend)
        del TASKS[PLAIN]
    if asked.judge_steps:  # scores by judges that are taught for longer are others
        done = replace(
            done, command=f"{done.command}; fusegen evaluate RUN --checkpoint last {' '.join(how)}"
        )
    return replace(done, last=measures_in(said.getvalue()) | {SECONDS: done.cpu_seconds})


def measures_in(said: str) -> dict[str, float]:
    """The measures that `fusegen evaluate` has written, a line each: "NAME  VALUE" or "NAME  VALUE  (lower is
    better)"."""
    found = re.finditer(r"^(\S.*?)  (\S+)(?:  \(.*\))?$", said, flags=re.MULTILINE)
    return {name: float(value) for name, value in (each.groups() for each in found)}
