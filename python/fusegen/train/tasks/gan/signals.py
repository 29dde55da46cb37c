"""What goes wrong while a GAN trains, read from the series that its log has: one rule a function, each with
its source. The rules see numbers alone and change nothing.

A block is the mean over `BLOCK` steps. Where a source names no threshold the one here is ours, chosen so that
the trained runs of docs/gan.md stay silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

import numpy as np

BLOCK = 10  # steps
WINDOW = 20  # blocks that a rule looks back on: 200 steps
CYCLES = 100  # blocks in which cycles are looked for: 1,000 steps

OVERFITTED, VANISHING, COLLAPSE, OSCILLATION = (
    "discriminator overfitted", "vanishing generator gradient", "mode collapse", "oscillation"
)  # fmt: skip

MOST_CERTAIN = 0.9
SMALLEST = 0.01
LEAST_SPREAD, LEAST_RECALL, REALISTIC = 0.5, 0.05, 0.25
REPEATS, ALIKE, LONGEST, SHORTEST, WIDEST = 0.5, 0.8, 3, 4, 0.5
SWINGS = 4
LEARNT, GROWS = 0.9, 1.1


@dataclass(frozen=True)
class Signal:
    """name: which of the four. told: what was seen, by which rule, and what may help."""

    name: str
    told: str


def overfitted(real_signs: Sequence[float]) -> Signal | None:
    """From blocks of r_t, the mean sign of D's logits of real samples, which is 1 where D knows each of them:
    over 0.9 in the mean of 200 steps, the first 200 not counted, in which every D tells apart what an
    untrained generator makes.

    Karras et al. 2020 (arXiv:2006.06676, section 3.1 and eq. 1): the discriminator has overfitted as r_t
    nears 1; they hold it at 0.6. For losses whose logits are above 0 for real samples: not for wasserstein
    and relativistic, of which differences alone count, nor for least_squares, whose middle is 1/2.
    """
    if len(real_signs) < 2 * WINDOW:
        return None
    r_t = fmean(real_signs[-WINDOW:])
    if r_t <= MOST_CERTAIN:
        return None
    told = (
        f"r_t is {r_t:.2f} over {WINDOW * BLOCK} steps, above {MOST_CERTAIN} (Karras et al. 2020): D is "
        "sure of the real samples, which it may know by heart; --augment (images), more data, a higher --r1 "
        "or a smaller D may help"
    )
    return Signal(OVERFITTED, told)


def vanishing(early: Sequence[float], late: Sequence[float]) -> Signal | None:
    """From blocks of the length of the generator's gradient: the median of the last 200 steps is below a
    hundredth of that of steps 200 to 400.

    Goodfellow et al. 2014 (arXiv:1406.2661, section 3) and Arjovsky and Bottou 2017 (arXiv:1701.04862,
    theorem 2.4): as the discriminator becomes perfect, the gradient that reaches the generator goes to 0.
    """
    if len(early) < WINDOW or len(late) < WINDOW:
        return None
    before, now = median(early[:WINDOW]), median(late[-WINDOW:])
    if not now < SMALLEST * before:
        return None
    told = (
        f"its length is {now:.2g} over {WINDOW * BLOCK} steps, {before:.2g} early on (Arjovsky and Bottou "
        "2017): D is too good to learn from; non_saturating, a penalty or a lower --critic-rate may help"
    )
    return Signal(VANISHING, told)


@dataclass(frozen=True)
class Diversity:
    """How varied samples were at an evaluation, `diversity.diversity` says how."""

    precision: float
    recall: float
    spread: float

    @property
    def low(self) -> bool:
        """Two samples are less than half as far apart as two of the data; or samples are like the data's, a
        quarter of them at least, and next to none of the data is like them."""
        return self.spread < LEAST_SPREAD or (self.recall < LEAST_RECALL and self.precision >= REALISTIC)


def learnt(untrained: float, measure: float) -> bool:
    """Whether a measure, of which lower is better, is at least a tenth below that of before training."""
    return measure <= LEARNT * untrained


def collapsed(evaluations: Sequence[Diversity], share: float, learnt: bool = True) -> Signal | None:
    """From evaluations after the first step, the last at this share of all steps: diversity is low in the
    last two, and either it was not before, or half of the steps are done. learnt: whether the generator
    is better than an untrained one, which makes the same of every noise: one that never was and never had
    any variety has not lost it, nor has one whose variety still grows, by a tenth from one to the next.

    Odena et al. 2017 (arXiv:1610.09585, section 4.2): two samples of a collapsed class are more alike than
    two of the data. Kynkäänniemi et al. 2019 (arXiv:1904.06991): recall falls where modes are lost, whatever
    precision does; Lin et al. 2018 (arXiv:1712.04086) on what a collapse is.
    """
    if len(evaluations) < 2 or not all(each.low for each in evaluations[-2:]):
        return None
    before, now = evaluations[-2:]
    grows = before.spread < LEAST_SPREAD and now.spread > GROWS * before.spread
    if (share < 0.5 or not learnt or grows) and all(each.low for each in evaluations):
        return None  # not yet learnt
    if now.spread < LEAST_SPREAD:
        what = f"two samples are {now.spread:.2f} as far apart as two of the data (Odena et al. 2017)"
    else:
        what = f"recall is {now.recall:.2f} at precision {now.precision:.2f} (Kynkäänniemi et al. 2019)"
    return Signal(
        COLLAPSE, f"{what}, for two evaluations; another --seed, a lower --lr or R1 and R2 may help"
    )


def oscillating(real: Sequence[float], fake: Sequence[float]) -> Signal | None:
    """From blocks of the mean logits of real and of fake samples: over the last 1,000 steps their difference,
    its trend taken out, comes back to itself after 40 to 330 steps (its autocorrelation falls below -1/2,
    then rises above 1/2), and deviates by more than half of its mean.

    Mescheder et al. 2018 (arXiv:1801.04406, section 2): without a penalty, training circles around the
    equilibrium and does not reach it. Of noise that remembers its last values (AR(1), random walks) about one
    in a hundred passes.
    """
    if min(len(real), len(fake)) < CYCLES:
        return None
    gap = np.asarray(real[-CYCLES:]) - np.asarray(fake[-CYCLES:])
    found = period(gap)
    if found is None or not np.std(gap) > WIDEST * abs(gap.mean()):
        return None
    told = (
        f"D's logits go up and down every {found * BLOCK} steps (Mescheder et al. 2018): the networks "
        "circle; --r1, --r2 or a lower --lr may help"
    )
    return Signal(OSCILLATION, told)


def period(series: np.ndarray) -> int | None:
    """After how many steps a series repeats itself, three times at least and not before the fourth; None
    where it does not."""
    n = len(series)
    at = np.arange(n)
    x = series - np.polyval(np.polyfit(at, series, 1), at)
    power = np.mean(x * x)
    if not power > 1e-12 * np.mean(series * series):
        return None
    lags = range(n // LONGEST + 1)
    r = np.array([np.mean(x[: n - lag] * x[lag:]) for lag in lags]) / power
    below = np.flatnonzero(r < 0)
    if len(below) == 0:
        return None
    later = r[below[0] :]
    high = later >= ALIKE * later.max()
    first = int(np.argmax(high))  # of several hills as high: the others are its multiples
    lag = below[0] + first + int(np.argmax(later[first:] * np.logical_and.accumulate(high[first:])))
    return lag if lag >= SHORTEST and r[lag] > REPEATS and r[:lag].min() < -REPEATS else None


def swinging(measures: Sequence[float]) -> Signal | None:
    """From the first measure at each evaluation: the last four changes go up and down in turn, each by more
    than half of the median of the five values. Source as of `oscillating`; what it is read from is ours."""
    last = measures[-SWINGS - 1 :]
    if len(last) <= SWINGS:
        return None
    changes = [b - a for a, b in pairwise(last)]
    turned = all(a * b < 0 for a, b in pairwise(changes))
    if not turned or min(map(abs, changes)) <= WIDEST * abs(median(last)):
        return None
    told = (
        f"the measure swings from {min(last):.3g} to {max(last):.3g} and back (Mescheder et al. 2018): --ema "
        "nearer to 1, --r1, --r2 or a lower --lr may help"
    )
    return Signal(OSCILLATION, told)
