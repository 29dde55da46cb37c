"""GANs of sounds and of other series: beside the fits that they have to beat, and the ways tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from learning.figures import Asked, Figure
from learning.gan import measured

RECURRENT = ("--arch", "recurrent", "--evaluations", "1")
SOUNDS = (*RECURRENT, "--data", "tones", "--length", "64")
FITS = {"a Gaussian fit": " of a Gaussian fit", "an AR(16) fit": " of an AR(16) fit"}
_OF_BOTH = ("discriminative", "predictive", "log-spectral", "marginal", "autocorrelation")

# What is tried on each of the series, in place of the defaults.
SERIES: dict[str, tuple[str, ...]] = {"sines": (), "prices": ()}
WAYS: dict[str, tuple[str, ...]] = {
    "untrained": ("--steps", "1", "--warm-up", "1", "--lr", "1e-9"),
    "warm-up alone": ("--steps", "400", "--warm-up", "400"),
    "defaults": (),
    "linear forecasts": ("--forecasts", "linear"),
    "no moments": ("--moments", "0"),
    "little likelihood": ("--supervised", "0.02"),
    "GAN alone": ("--warm-up", "0", "--supervised", "0", "--moments", "0"),
    "no levels": ("--no-levels",),
    "reads one way": ("--no-bidirectional",),
    "non-saturating": ("--loss", "non_saturating"),
    "stronger penalties": ("--r1", "2", "--r2", "2"),
}


def sounds(asked: Asked) -> Iterator[Figure]:
    """A GAN's sounds by each measure beside the better of a Gaussian and an AR(16) fit."""
    done = measured(replace(asked, flags=(*SOUNDS, *asked.flags)), "fusegen")
    for measure, value in done.last.items():
        figure = done.figure(measure)
        fits = {f"{measure}{whose}": name for name, whose in FITS.items()}
        found = {fit: done.last[fit] for fit in fits if fit in done.last}
        if found and measure.startswith(_OF_BOTH):
            best = min(found, key=lambda fit: found[fit])
            passed = value < found[best] if measure.startswith(("discriminative", "log-spectral")) else ""
            figure = figure.beside(fits[best], found[best], passed)
        yield figure


def sweep(asked: Asked) -> Iterator[Figure]:
    """Ways to train a recurrent GAN of series, by so many --judges each; the losing ones too."""
    for way in asked.ways or WAYS:
        for series, own in SERIES.items():
            folder = asked.folder / f"{series}-{way.replace(' ', '-')}"
            every = (*RECURRENT, "--data", series, *own, *WAYS[way], *asked.flags)
            done = measured(replace(asked, folder=folder, flags=every, beside=False), "fusegen")
            for measure in done.last:
                yield done.figure(measure, f"sweep, {series}, {way}")
