"""Struck strings: the made-up sounds that generators of waveforms are measured on."""

from __future__ import annotations

import math

import torch

from ..._arguments import whole
from .._memory import check_fits
from ..series import Series

RATE = 4000  # samples a second
PITCH = 110.0, 440.0  # Hz, the lowest and the highest
PARTIALS = 4  # the highest of 440 Hz lies at 1760, below half of the rate
DECAY = 0.02  # seconds in which the first partial falls to 1 / e; the k-th falls k times as fast


def tones(steps: int = 64, count: int = 4000, seed: int = 0) -> Series:
    """Tones of struck strings, in [-1, 1], 4,000 samples a second, one channel: partials at k = 1 to 4 times
    a pitch, even in octaves from 110 to 440 Hz, of amplitude 1 / k, each with a phase of its own, dying away
    exp(-k t / 20 ms); of a loudness from 0.5 to 1.

    Synthesised, no recording; the same seed gives the same tones. Raises TypeError or ValueError, naming the
    argument.

    steps, count: the shape [steps, count, 1] of the values, float32: ``count`` tones of ``steps`` samples.
    """
    steps, count = whole("steps", steps, 1), whole("count", count, 1)
    # A step in float64, as phases, waves, their decay and the sum, and in float32.
    check_fits(lambda steps: 44 * steps * count, {"steps": steps}, {"steps": 64}, "the tones")
    random = torch.Generator().manual_seed(whole("seed", seed, 0, 2**63 - 1))
    drawn = torch.rand(2 + PARTIALS, count, generator=random, dtype=torch.float64)
    pitch = PITCH[0] * (PITCH[1] / PITCH[0]) ** drawn[0]
    loudness = 0.5 + drawn[1] / 2
    t = torch.arange(steps, dtype=torch.float64)[:, None] / RATE
    values = torch.zeros(steps, count, dtype=torch.float64)
    for k in range(1, PARTIALS + 1):
        wave = (2 * math.pi * (k * pitch * t + drawn[1 + k])).sin()
        values += wave * (-k * t / DECAY).exp() / k
    values *= loudness / sum(1 / k for k in range(1, PARTIALS + 1))
    return Series(
        name="tones of struck strings",
        values=values[..., None].float(),
        lengths=None,
        low=torch.full((1,), -1.0, dtype=torch.float64),
        high=torch.ones(1, dtype=torch.float64),
        features=("pressure",),
    )
