"""The data of a GAN: what the task asks of pictures, series and characters alike."""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...._modes import evaluating
from ....data._optional import needed
from ....models import GAN
from ....models.latent import arcs
from ... import files
from ...task import nothing
from ..batch import check_batch
from ..room import check_drawn
from .moments import Moments
from .options import GanData, GanMeasuring, GanModel, GanSampling

AT_ONCE = 500  # samples drawn in one pass


class Source(ABC):
    """The data of a GAN; as `revived` makes it, what is known of them alone.

    Each reads its data, makes the model that fits them, measures it against them, draws its samples, and
    keeps in the run what drawing needs. kind: what data.json calls it.
    """

    kind: ClassVar[str]
    unit: ClassVar[str] = "sequences"  # what a sample is
    fewest: ClassVar[int] = 1  # samples that can be measured
    name: str
    classes: tuple[str, ...] = ()
    told: Callable[[str, int, int], None] = staticmethod(nothing)  # as `Task.measuring_part`

    @property
    def skipped(self) -> tuple[str, ...]:
        """What was left out, and why."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """How the data were read, where that is not plain."""
        return ()

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are."""

    def check_enough(self, cut: GanData, usual: int) -> None:
        """Raises ValueError where a batch is larger than what there is, or the measures need more. usual: a
        batch that nobody asked for."""
        check_batch(cut.batch, usual, len(self), self.unit)
        self._check_fewest()

    def _check_fewest(self, what: str = "") -> None:
        if len(self) < self.fewest:
            raise ValueError(
                f"data: expected at least {self.fewest} {self.unit} for the measures, got {len(self)}"
                + (f": {what}" if what else "")
            )

    def _check_windows(self, cut: GanData, usual: int, recordings: Sequence[int], unit: str) -> None:
        """The same of windows. recordings: how long they are, in `unit`."""
        longest, one = max(recordings), len(recordings) == 1
        whose = f"the {unit} of {self.name}" if one else f"the {unit} of the longest recording in {self.name}"
        if longest < cut.length:
            raise ValueError(f"length: expected at most {longest}, {whose}, got {cut.length}")
        if len(self) == 1 < cut.batch:
            room = longest - (cut.batch - 1) * cut.stride
            more = f"; --length {room} gives {cut.batch}" if one and room >= 2 else ""
            raise ValueError(
                f"length: there is one window of {cut.length} steps, one every {cut.stride} (--stride), in "
                f"the {sum(recordings)} {unit} of {self.name}, and a step reads {cut.batch} (--batch): "
                f"expected fewer steps{more}"
            )
        what = (
            f"windows of {cut.length} steps (--length), one every {cut.stride} (--stride), in the "
            f"{sum(recordings)} {unit} of {self.name}"
        )
        check_batch(cut.batch, usual, len(self), what)
        self._check_fewest(what)

    @abstractmethod
    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """ "real", the samples at `index` [B], and their "labels" or "lengths" where they have some."""

    def points(self, samples: Tensor) -> Tensor:
        """Samples, as `batch` or `draw` has them but first by number [n, ...], as points [n, D]: the distance
        of two tells how alike they are."""
        return samples.flatten(1)

    @abstractmethod
    def fingerprint(self) -> str: ...

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What data.json holds."""

    def keep(self, folder: Path) -> None:
        """Writes into the run's folder what `revived` reads."""
        content = {"kind": self.kind, "name": self.name, **self.describe()}
        files.write(folder / "data.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    @abstractmethod
    def model(self, options: GanModel) -> GAN:
        """A new model for them. Raises ValueError, naming the option, for one that does not fit."""

    @abstractmethod
    def measures(self, gan: GAN, how: GanMeasuring, *, full: bool) -> dict[str, float]:
        """Measures of what `gan` draws, the one that matters first; full: all, else what is quick."""

    def number_of(self, name: str) -> int:
        """The number of a class, by its name or number. Raises ValueError, naming the option, for one that
        there is not."""
        if name in self.classes:
            return self.classes.index(name)
        if name.isdecimal() and int(name) < len(self.classes):
            return int(name)
        raise ValueError(f"class_: expected one of {', '.join(self.classes)}, got {name!r}")

    def asked(self, how: GanSampling) -> Tensor:
        """The class of each sample to draw, int64 [count]: the one asked for, or all in turn. Raises
        ValueError for a class that there is not."""
        if how.class_ is not None:
            return torch.full((how.count,), self.number_of(how.class_))
        return torch.arange(how.count) % len(self.classes)

    def moments(self, gan: GAN, steps: int | None = None) -> Moments:
        """Those of the data, which `gan` is to keep; steps: of the first so many alone. Raises ValueError
        where there are none."""
        raise ValueError(f"moments: series have them, and {self.name} has {self.kind}")

    def measured_bytes(self, gan: GAN, samples: int) -> float:
        """What so many samples take that are drawn for a measure; 0 where there are never more than data."""
        return 0.0

    def check_measured(self, gan: GAN, samples: int) -> None:
        """Raises ValueError, naming `samples`, where so many that are drawn for a measure do not fit."""
        asked, usual = {"samples": samples}, {"samples": GanData().samples}
        check_drawn(lambda samples: self.measured_bytes(gan, samples), asked, usual)

    @abstractmethod
    def drawn(self, gan: GAN, how: GanSampling) -> dict[str, str | bytes]:
        """Samples by file suffix."""


def beginnings(samples: Tensor, lengths: Tensor | None, steps: int | None) -> tuple[Tensor, Tensor | None]:
    """The first `steps` of sequences [T, B, ...], or all, and how many of them are within lengths [B]."""
    if steps is None:
        return samples, lengths
    return samples[:steps], None if lengths is None else lengths.clamp(max=steps)


def draw(
    gan: GAN,
    count: int,
    random: torch.Generator,
    *,
    labels: Tensor | None = None,
    lengths: Tensor | None = None,
    **how: Any,
) -> Tensor:
    """`gan.sample` in parts, on the CPU; labels and lengths [count]."""
    parts = []
    for begin in range(0, count, AT_ONCE):
        rows = slice(begin, min(begin + AT_ONCE, count))
        more: dict[str, Any] = {
            name: x[rows] for name, x in (("labels", labels), ("lengths", lengths)) if x is not None
        }
        parts.append(gan.sample(rows.stop - begin, generator=random, **more, **how).cpu())
    drawn = torch.cat(parts, gan.sample_dim)
    return drawn.float() if drawn.is_floating_point() else drawn


@torch.no_grad()
def between(
    gan: GAN,
    rows: int,
    columns: int,
    random: torch.Generator,
    *,
    labels: Tensor | None = None,
    truncation: float | None = None,
) -> Tensor:
    """Samples [rows * columns, ...] on the CPU, row by row: ways from one noise to another, each of one class
    (labels [rows]), along ``arcs``."""
    first, last = gan.noise(2 * rows, truncation=truncation, generator=random).chunk(2)
    noise = arcs(first, last, columns)
    told = None if labels is None else labels.repeat_interleave(columns)
    with evaluating(gan):
        return gan.generate(noise.flatten(0, 1), told).cpu().float()


def as_csv(values: Tensor, features: Sequence[str]) -> str:
    """The content of a table of sequences [N, T, F]: a line a step, behind the numbers of its sequence and of
    itself, both from 0."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(("sequence", "step", *features))
    for number, sequence in enumerate(values.tolist()):
        writer.writerows((number, step, *row) for step, row in enumerate(sequence))
    return content.getvalue()


def as_wav(values: Tensor, rate: int) -> bytes:
    """The content of a sound file of 16 bits with the sequences [N, T, F] one after the other, a quarter of a
    second of silence between; what is beyond full scale is cut off."""
    soundfile = needed("soundfile", "soundfile")
    silence = values.new_zeros(len(values), rate // 4, values.shape[2])
    joined = torch.cat([values.clamp(-1, 1), silence], 1).flatten(0, 1)[: -(rate // 4) or None]
    content = io.BytesIO()
    soundfile.write(content, joined.numpy(), rate, "PCM_16", format="WAV")
    return content.getvalue()


def as_npy(values: Tensor) -> bytes:
    """The content of a .npy file."""
    content = io.BytesIO()
    np.save(content, values.numpy())
    return content.getvalue()
