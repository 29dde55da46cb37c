"""The options of `fusegen train gan`, and those that each kind of GAN has in other measure than the first."""

from dataclasses import dataclass
from typing import Any

from ....losses import LOSSES
from ...options import FitOptions, Options, RunOptions, option

ARCHS = ("mlp", "dcgan", "recurrent")
TEXTS = ("pydocs",)  # by name; other texts are files

# What is not as in the classes below, which are mlp's: by arch, section and name; of a conditional mlp, of
# sounds and of text, what is not as in mlp's and in recurrent's.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "mlp": {},
    "conditional": {"model": {"critic_widths": "512,512"}},
    "dcgan": {
        "model": {"noise": 64},
        "fit": {"steps": 5000, "penalty_every": 4},
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
    # Each value of a sound follows almost wholly from those before: small changes of its innovations add up.
    "sounds": {"fit": {"lr": 1e-4}},
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


# The options that say how many weights there are, by arch.
WEIGHTS = {
    "mlp": ("widths", "critic_widths", "noise", "size"),
    "dcgan": ("width", "noise"),
    "recurrent": ("hidden", "layers", "noise"),
}


def is_text(name: str) -> bool:
    """Whether data of that name are text."""
    return name in TEXTS or name.lower().endswith(".txt")


@dataclass(frozen=True, kw_only=True)
class GanModel(Options):
    """Which GAN. Raises TypeError or ValueError, naming the field, for a wrong value."""

    arch: str = option("mlp", "dense or convolutional networks for images, recurrent ones for series", ARCHS)
    noise: int = option(100, "numbers in a noise vector; recurrent: in that of each step", least=1)
    conditional: bool = option(
        False, "give both networks the class of a sample, so that one can ask for a class"
    )
    spectral_norm: bool = option(False, "spectral norm on the discriminator's weights")
    widths: str = option("256,512", "mlp: units of the generator's inner layers")
    critic_widths: str = option("256,256", "mlp: units of the discriminator's inner layers")
    width: int = option(32, "dcgan: channels of the convolutions next to the image", least=1)
    cell: str = option("lstm", "recurrent: cell of both networks", ("lstm", "gru"))
    hidden: int = option(64, "recurrent: units in a layer", least=1)
    layers: int = option(1, "recurrent: layers", least=1, most=1000)
    bidirectional: bool = option(False, "recurrent: the discriminator reads in both directions")
    residual: bool = option(
        False,
        "recurrent, series: the generator starts from one random value per feature and step, and learns to "
        "scale and shift it; --noise then counts numbers that are the same for a whole sequence",
    )
    levels: bool = option(
        False,
        "recurrent, --innovations: the discriminator sees the series too, which the innovations add up to",
    )
    temperature: float = option(
        1.0, "recurrent, text: temperature of the straight-through Gumbel-softmax", least=0, open_below=True
    )


@dataclass(frozen=True, kw_only=True)
class GanData(Options):
    """Which data, how cut, and by what features they are measured. Errors as in `GanModel`."""

    data: str | None = option(
        None,
        "images: digits, photos, a folder of images, MNIST's or CIFAR's files, .npy, .npz, hf:NAME; for "
        "recurrent: prices, eeg, sines, tones, watch, a .npy, .npz, .csv, .tsv, .wav, .flac, .ogg or .aiff, "
        "a folder of sounds, pydocs or a .txt; by default digits, for recurrent prices",
        place=("digits", "photos", "prices", "eeg", "sines", "tones", "watch", "pydocs"),
    )
    batch: int = option(64, "real samples in a step, and fake ones", least=1)
    size: int = option(
        28, "height and width, in pixels, that images are resized to; dcgan takes 28, 32 and 64", least=4
    )
    channels: int | None = option(
        None, "1 makes images grey, 3 coloured; by default as they are", least=1, most=3
    )
    length: int = option(24, "recurrent: steps in a window of the series", least=2)
    stride: int = option(1, "recurrent: steps from the start of one window to the start of the next", least=1)
    whiten: bool = option(
        True, "recurrent: learn principal components of equal scale; features that wander, by their changes"
    )
    innovations: bool = option(
        False,
        "recurrent: learn what a forecast from the steps before misses, in place of --whiten; prices and "
        "the like by their logarithms",
    )
    forecasts: str = option(
        "linear",
        "--innovations: how a step is forecast; auto: by products of earlier values too, where they help",
        choices=("linear", "auto"),
    )
    tokens: str = option(
        "character", "recurrent, text: the unit that the text is cut into", ("character", "word")
    )
    vocabulary: int = option(100, "recurrent, text: how many of the most frequent tokens are kept", least=2)
    held_out: float = option(
        0.0,
        "recurrent, text: share at its end that is held out, to make the judge of the samples from",
        least=0,
        most=1,
        open_above=True,
    )
    column: str = option("image", "hf: column of the images; .npz: name of the array")
    split: str = option("train", "hf:, MNIST, CIFAR: which split to read")
    delimiter: str | None = option(
        None, "tables: what separates columns: one character, tab or spaces; found by default"
    )
    decimal: str | None = option(None, "tables: the decimal mark, a point or a comma; found by default")
    header: str | None = option(
        None, "tables: whether the first row holds the columns' names; found by default", ("yes", "no")
    )
    features: str = option(
        "auto",
        "images: what measures look at: digits (the classifier of digits), pixels (8 x 8), a file with "
        "Inception's weights (FID, KID, IS), or MODULE:NAME of yours; auto: digits for digits, else pixels",
        place=("auto", "digits", "pixels"),
    )
    samples: int = option(5000, "images and text: samples drawn for a measure", least=8)
    score_steps: int = option(
        500, "recurrent: training steps of the network behind the scores, while the GAN trains", least=1
    )


@dataclass(frozen=True, kw_only=True)
class GanFit(FitOptions):
    """How to train both networks. Errors as in `GanModel`."""

    steps: int = option(3000, "steps, in each of which both networks learn", least=1)
    lr: float = option(
        2e-3,
        "Adam's highest learning rate: risen to over 5 % of the steps, then a cosine",
        least=0,
        open_below=True,
    )
    clip: float = option(0.0, "longer gradients are scaled down to this length; 0: none are", least=0)
    seed: int = option(0, "seed of the weights, the noise and the samples", least=0, most=2**63 - 1)
    critic_rate: float = option(
        1.0, "the discriminator's learning rate, as a multiple of --lr", least=0, open_below=True
    )
    beta1: float = option(0.5, "Adam's decay of the mean gradient", least=0, most=1, open_above=True)
    beta2: float = option(0.99, "Adam's decay of the mean squared gradient", least=0, most=1, open_above=True)
    loss: str = option("non_saturating", "loss of both networks", choices=LOSSES)
    label_smoothing: float = option(
        0.0, "the target for real samples is 1 minus this", least=0, most=1, open_above=True
    )
    r1: float = option(1.0, "weight of R1, the penalty on real samples", least=0)
    r2: float = option(0.0, "weight of R2, the penalty on fake samples", least=0)
    gp: float = option(0.0, "weight of WGAN-GP's penalty, on points between real and fake samples", least=0)
    approximate_r1: float | None = option(
        None,
        "approximate R1 by finite differences, with noise of this standard deviation; 0: exact",
        least=0,
    )
    approximate_r2: float | None = option(
        None,
        "approximate R2 by finite differences, with noise of this standard deviation; 0: exact",
        least=0,
    )
    penalty_every: int = option(
        1,
        "penalties in each so-many-th step only, so many times as strong (lazy)",
        least=1,
    )
    warm_up: int = option(
        0,
        "--residual and text: first steps in which the generator learns by likelihood alone",
        least=0,
    )
    supervised: float = option(
        0.0,
        "--residual and text: weight of the likelihood in the loss after --warm-up",
        least=0,
    )
    moments: float = option(
        0.0,
        "series: weight of the distance between the moments (mean, variance, covariance) and the data's",
        least=0,
    )
    truncate: int | None = option(
        None,
        "recurrent: train on the first so many steps of each window only, which takes less time; windows of "
        "--length are still measured and drawn (default: none)",
        least=2,
    )
    generator_every: int = option(1, "train the generator at every so-many-th step only", least=1)
    augment: str | None = option(
        None,
        "images: random changes to real and fake images before the discriminator, for small data sets: some "
        "of color, translation, cutout, separated by commas (default: none)",
    )
    stop_when_collapsed: bool = option(
        False, "stop with status 3 when samples have lost their variety in two evaluations"
    )


@dataclass(frozen=True, kw_only=True)
class GanRun(RunOptions):
    """As every run, with an average of the weights."""

    ema: float = option(
        0.995,
        "decay of a moving average of the weights, which is measured and sampled; 0: no average",
        least=0,
        most=1,
        open_above=True,
    )
    evaluations: int = option(10, "how often to measure, evenly spread, besides once at the start", least=1)


@dataclass(frozen=True, kw_only=True)
class GanSampling(Options):
    """What to draw. Errors as in `GanModel`."""

    class_: str | None = option(None, "draw this class, given by name or number; by default all in turn")
    count: int = option(64, "how many samples to draw", least=1)
    truncation: float | None = option(
        None,
        "draw noise beyond this value again: samples are less varied and more typical",
        least=0,
        open_below=True,
    )
    length: int | None = option(None, "steps of a sequence (by default as in training)", least=1)
    interpolate: int = option(
        0,
        "images: in place of samples, draw so many rows that go from one noise vector to another; 0: no",
        least=0,
    )
    seed: int = option(0, "seed of the noise", least=0, most=2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class GanMeasuring(Options):
    """How to measure. Errors as in `GanModel`."""

    features: str | None = option(
        None,
        "images: measure by digits, pixels, Inception's weights or MODULE:NAME; by default as the run",
    )
    samples: int | None = option(
        None, "images and text: samples to draw; by default as many as the run", least=8
    )
    score_steps: int = option(2000, "series: training steps of the network behind each score", least=1)
    repeats: int = option(1, "series: networks whose scores are averaged", least=1)
    judges: int = option(
        0,
        "series: in place of --repeats, scores with their spread by so many published judges and as many "
        "wide ones, and errors that need no judge",
        least=0,
    )
    beside: bool = option(
        True, "also measure, for series, a Gaussian fit and the data themselves, and for text a bigram model"
    )
    seed: int = option(1, "seed of the noise and of the networks behind the scores", least=0, most=2**63 - 1)
