"""The options of `fusegen train gan`, and those that each kind of GAN has in other measure than the first."""

from dataclasses import dataclass
from typing import Any

from ....losses import LOSSES
from ...options import FitOptions, Options, RunOptions, option

ARCHS = ("mlp", "dcgan", "recurrent")
TEXTS = ("pydocs",)  # by name; other texts are files

# What is not as in the classes below, which are mlp's: by arch, section and name; of text, what is not as in
# recurrent's.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "mlp": {},
    "dcgan": {
        "model": {"noise": 64},
        "fit": {"steps": 4000, "penalty_every": 4},
        "run": {"evaluations": 5},
    },
    "recurrent": {
        "model": {
            "noise": 16,
            "hidden": 48,
            "cell": "gru",
            "bidirectional": True,
            "residual": True,
            "levels": True,
        },
        "data": {"batch": 128, "innovations": True, "forecasts": "auto"},
        "fit": {
            "steps": 1000,
            "loss": "relativistic",
            "r1": 0.2,
            "r2": 0.2,
            "penalty_every": 2,
            "approximate_r1": 0.1,
            "approximate_r2": 0.1,
            "warm_up": 400,
            "supervised": 1.0,
            "moments": 0.3,
            "lr": 3e-4,
            "clip": 1.0,
        },
        "run": {"evaluations": 5},
    },
    "text": {
        "model": {"hidden": 128},
        "data": {"batch": 64, "held_out": 0.1},
        "fit": {
            "steps": 1500,
            "warm_up": 1200,
            "supervised": 1.0,
            "moments": 0.0,
            "lr": 3e-3,
            "approximate_r1": 0.3,
            "approximate_r2": 0.3,
        },
    },
}


def is_text(name: str) -> bool:
    """Whether data of that name are text."""
    return name in TEXTS or name.lower().endswith(".txt")


def _by_arch(section: str, name: str, default: Any, help: str, **bounds: Any) -> Any:
    """An option with mlp's default, whose help tells the others'."""
    others = (
        f"{arch} {preset[section][name]}"
        for arch, preset in PRESETS.items()
        if name in preset.get(section, {})
    )
    return option(default, f"{help}; {', '.join(others)}", **bounds)


@dataclass(frozen=True, kw_only=True)
class GanModel(Options):
    """Which GAN. Raises TypeError or ValueError, naming the field, for a wrong value."""

    arch: str = option("mlp", "dense or convolutional networks for images, recurrent ones for series", ARCHS)
    noise: int = _by_arch("model", "noise", 100, "length of the noise, for recurrent of each step", least=1)
    conditional: bool = option(False, "learn the classes that the data have, to be asked for one")
    spectral_norm: bool = option(False, "spectral norm on the discriminator's weights")
    widths: str = option("256,512", "mlp: units of the generator's inner layers")
    critic_widths: str = option("256,256", "mlp: units of the discriminator's inner layers")
    width: int = option(32, "dcgan: channels of the convolutions next to the image", least=1)
    cell: str = option("lstm", "recurrent: cell of both networks", ("lstm", "gru"))
    hidden: int = _by_arch("model", "hidden", 64, "recurrent: units in a layer", least=1)
    layers: int = option(1, "recurrent: layers", least=1)
    bidirectional: bool = option(False, "recurrent: the discriminator reads both ways")
    residual: bool = option(
        False,
        "recurrent, series: the generator alters noise that it gives as it is at first; --noise is then of "
        "a whole sequence, besides one value a feature and step",
    )
    levels: bool = option(
        False, "recurrent, --innovations: the discriminator sees what they add up to besides them"
    )
    temperature: float = option(
        1.0, "recurrent, text: of the straight-through Gumbel-softmax", least=0, open_below=True
    )


@dataclass(frozen=True, kw_only=True)
class GanData(Options):
    """Which data, how cut, and by what features they are measured. Errors as in `GanModel`."""

    data: str | None = option(
        None,
        "images: digits, photos, a folder of images, MNIST's or CIFAR's files, .npy, .npz, hf:NAME; for "
        "recurrent: prices, eeg, sines, tones, watch, a .npy, .csv, .tsv, .wav, .flac, .ogg or .aiff, a "
        "folder of sounds, pydocs or a .txt "
        "(default: digits; for recurrent prices)",
        place=("digits", "photos", "prices", "eeg", "sines", "tones", "watch", "pydocs"),
    )
    batch: int = _by_arch("data", "batch", 64, "real samples in a step, and fake ones", least=1)
    size: int = option(28, "pixels that images are brought to; dcgan takes 28, 32 and 64", least=4)
    channels: int | None = option(
        None, "1 makes images grey, 3 coloured; by default as they are", least=1, most=3
    )
    length: int = option(24, "recurrent: steps of a sequence", least=2)
    stride: int = option(1, "recurrent: steps from the begin of one sequence to that of the next", least=1)
    whiten: bool = option(
        True, "recurrent: learn uncorrelated features of one scale, wandering ones as changes"
    )
    innovations: bool = option(
        False,
        "recurrent: learn what each step adds to what those before foretell, in place of --whiten; prices "
        "and the like as logarithms",
    )
    forecasts: str = _by_arch(
        "data",
        "forecasts",
        "linear",
        "--innovations: what foretells a step; auto: products of the values before it too, where they help",
        choices=("linear", "auto"),
    )
    tokens: str = option(
        "character", "recurrent, text: what it is cut into and written by", ("character", "word")
    )
    vocabulary: int = option(100, "recurrent, text: most frequent tokens that are kept", least=2)
    held_out: float = _by_arch(
        "data",
        "held_out",
        0.0,
        "recurrent, text: share of it, its end, that is not learnt: by it a judge of the samples is made",
        least=0,
        most=1,
        open_above=True,
    )
    column: str = option("image", "of an hf: dataset; the array's name in an .npz")
    split: str = option("train", "of an hf: dataset, of MNIST and CIFAR")
    delimiter: str | None = option(
        None, "tables: what parts their columns, one character, tab or spaces; by default it is found"
    )
    decimal: str | None = option(None, "tables: the decimal mark, . or a comma; by default it is found")
    header: str | None = option(
        None, "tables: whether the first row holds names; by default it is found", ("yes", "no")
    )
    features: str = option(
        "auto",
        "images: what measures look at: digits (the classifier of digits), pixels (8 x 8), a file with "
        "Inception's weights (FID, KID, IS), or MODULE:NAME of yours; auto: digits for digits, else pixels",
        place=("auto", "digits", "pixels"),
    )
    samples: int = option(5000, "samples drawn for a measure, of images and text", least=8)
    score_steps: int = option(500, "recurrent: steps of the post-hoc network while training", least=1)


@dataclass(frozen=True, kw_only=True)
class GanFit(FitOptions):
    """How to train both networks. Errors as in `GanModel`."""

    steps: int = _by_arch("fit", "steps", 3000, "steps, in each of which both networks learn", least=1)
    lr: float = _by_arch(
        "fit",
        "lr",
        2e-3,
        "Adam's highest learning rate: risen to over 5 % of the steps, then a cosine",
        least=0,
        open_below=True,
    )
    clip: float = _by_arch(
        "fit", "clip", 0.0, "longer gradients are scaled down to this length; 0: none are", least=0
    )
    seed: int = option(0, "of the weights, the noise and the samples", least=0, most=2**63 - 1)
    critic_rate: float = option(
        1.0, "the discriminator's learning rate is this many times lr", least=0, open_below=True
    )
    beta1: float = option(0.5, "Adam's decay of the gradient", least=0, most=1, open_above=True)
    beta2: float = option(0.99, "Adam's decay of its square", least=0, most=1, open_above=True)
    loss: str = _by_arch("fit", "loss", "non_saturating", "of both networks", choices=LOSSES)
    label_smoothing: float = option(
        0.0, "the target of real samples is 1 less this", least=0, most=1, open_above=True
    )
    r1: float = _by_arch("fit", "r1", 1.0, "weight of R1, the penalty on real samples", least=0)
    r2: float = _by_arch("fit", "r2", 0.0, "weight of R2, the penalty on fake samples", least=0)
    gp: float = option(0.0, "weight of WGAN-GP's penalty, between them", least=0)
    approximate_r1: float | None = _by_arch(
        "fit",
        "approximate_r1",
        None,
        "R1 by finite differences, of noise of this deviation; 0: exact",
        least=0,
    )
    approximate_r2: float | None = _by_arch(
        "fit",
        "approximate_r2",
        None,
        "R2 by finite differences, of noise of this deviation; 0: exact",
        least=0,
    )
    penalty_every: int = _by_arch(
        "fit",
        "penalty_every",
        1,
        "penalties in each so-many-th step only, so many times as strong (lazy)",
        least=1,
    )
    warm_up: int = _by_arch(
        "fit",
        "warm_up",
        0,
        "--residual and text: first steps in which the generator learns by likelihood alone",
        least=0,
    )
    supervised: float = _by_arch(
        "fit",
        "supervised",
        0.0,
        "--residual and text: weight of the likelihood in the steps after them",
        least=0,
    )
    moments: float = _by_arch(
        "fit",
        "moments",
        0.0,
        "series: weight of how far means, variances and covariances are from the data's",
        least=0,
    )
    generator_every: int = option(1, "the generator learns in each so-many-th step only", least=1)
    augment: str | None = option(
        None,
        "images: changes before the discriminator, the same kinds for real and fake, for small sets: some of "
        "color, translation, cutout, with commas between (default: none)",
    )
    stop_when_collapsed: bool = option(
        False, "stop, with status 3, where samples have lost their variety for two evaluations"
    )


@dataclass(frozen=True, kw_only=True)
class GanRun(RunOptions):
    """As every run, with an average of the weights."""

    ema: float = option(
        0.995,
        "decay of an average of the weights, which is then measured and sampled; 0: none",
        least=0,
        most=1,
        open_above=True,
    )
    evaluations: int = _by_arch(
        "run", "evaluations", 10, "measures, evenly spread, besides one at the start", least=1
    )


@dataclass(frozen=True, kw_only=True)
class GanSampling(Options):
    """What to draw. Errors as in `GanModel`."""

    class_: str | None = option(None, "of the samples, by its name or number; by default all in turn")
    count: int = option(64, "samples drawn", least=1)
    truncation: float | None = option(
        None, "noise beyond this is drawn again: less varied, closer to the usual", least=0, open_below=True
    )
    length: int | None = option(None, "steps of a sequence (by default as in training)", least=1)
    interpolate: int = option(
        0, "images: so many rows of ways from one noise to another, in place of samples; 0: none", least=0
    )
    seed: int = option(0, "of the noise", least=0, most=2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class GanMeasuring(Options):
    """How to measure. Errors as in `GanModel`."""

    features: str | None = option(
        None, "images: digits, pixels, Inception's weights or MODULE:NAME; by default as the run has it"
    )
    samples: int | None = option(
        None, "samples drawn, of images and text; by default as the run has it", least=8
    )
    score_steps: int = option(2000, "steps of the post-hoc network (series)", least=1)
    repeats: int = option(1, "post-hoc networks whose scores are averaged (series)", least=1)
    judges: int = option(
        0,
        "so many published and as many wide judges in their place, with spread, and errors without judge "
        "(series)",
        least=0,
    )
    beside: bool = option(
        True, "series: measure a Gaussian fit and the data themselves too; text: a bigram model"
    )
    seed: int = option(1, "of the noise and of the post-hoc networks", least=0, most=2**63 - 1)
