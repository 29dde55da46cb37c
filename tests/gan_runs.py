"""Small runs of `fusegen train gan` of every kind, as flags and as options."""

from fusegen.cli import main
from fusegen.train.tasks.gan.options import ARCHS, GanData, GanFit, GanModel, GanRun

QUIET = ["--no-tensorboard", "--evaluations", "1", "--log-every", "1", "--batch", "4", "--noise", "4"]
SMALL = {
    "mlp": ["--widths", "8", "--critic-widths", "8", "--size", "8", "--samples", "50"],
    "dcgan": ["--width", "2", "--samples", "50"],
    "series": ["--hidden", "4", "--length", "5", "--score-steps", "2"],
    "text": ["--hidden", "4", "--length", "5", "--samples", "50"],
}
KINDS = tuple(SMALL)


def flags(kind, places, *more):
    arch = kind if kind in ARCHS else "recurrent"
    return ["--arch", arch, "--data", places[kind], *SMALL[kind], *QUIET, *map(str, more)]


def train(kind, places, folder, *more):
    return main(["train", "gan", *flags(kind, places, *more), "--folder", str(folder)])


def sections(kind, places, **fit):
    arch = kind if kind in ARCHS else "recurrent"
    model = {"mlp": {"widths": "8", "critic_widths": "8"}, "dcgan": {"width": 2}}.get(kind, {"hidden": 4})
    cut = {"size": 8} if kind == "mlp" else {} if kind == "dcgan" else {"length": 5}
    return {
        "model": GanModel(arch=arch, noise=4, **model),
        "data": GanData(data=places[kind], batch=4, **cut),
        "fit": GanFit(steps=6, **fit),
        "run": GanRun(device="cpu", precision="float64"),
    }
