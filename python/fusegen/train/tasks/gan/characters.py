"""Characters of a text as the data of a GAN."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .... import data as sources
from ....data import Text, Vocabulary
from ....models import GAN, RecurrentGAN
from ... import files
from ..fingerprint import fingerprint_of
from .options import GanData, GanMeasuring, GanModel, GanSampling
from .source import Source, draw


@dataclass
class Characters(Source):
    """All stretches of so many characters of a text."""

    kind: ClassVar[str] = "text"
    name: str
    steps: int
    vocabulary: Vocabulary
    text: Text | None = None
    stride: int = 1

    @classmethod
    def read(cls, name: str, options: GanData, argument: str, folder: Path | None) -> "Characters":
        kept = folder / "vocabulary.json" if folder else None
        vocabulary = Vocabulary.load(kept, "character") if kept and kept.exists() else None
        text = sources.open_text(name, argument, utf8=True)
        text = sources.tokenize(text, "character", options.vocabulary, vocabulary, argument)
        if len(text.tokens) < options.length:
            raise ValueError(
                f"{argument}: {name} has {len(text.tokens)} characters, --length {options.length}"
            )
        return cls(name, options.length, text.vocabulary, text, options.stride)

    @classmethod
    def revive(cls, content: Mapping[str, Any], folder: Path) -> "Characters":
        vocabulary = Vocabulary.load(folder / "vocabulary.json", "character")
        return cls(content["name"], content["steps"], vocabulary)

    def describe(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def keep(self, folder: Path) -> None:
        files.write(folder / "vocabulary.json", self.vocabulary.to_json())
        super().keep(folder)

    @property
    def skipped(self) -> tuple[str, ...]:
        return self.text.skipped if self.text is not None else ()

    @property
    def _text(self) -> Text:
        assert self.text is not None, "of this source only the description is known"
        return self.text

    def __len__(self) -> int:
        return (len(self._text.tokens) - self.steps) // self.stride + 1

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        return {"real": self._text.tokens[index * self.stride + torch.arange(self.steps)[:, None]].long()}

    def points(self, samples: Tensor) -> Tensor:
        """Of two texts the distance is the root of twice the number of places in which they differ."""
        return F.one_hot(samples.long(), len(self.vocabulary)).float().flatten(1)

    def fingerprint(self) -> str:
        return fingerprint_of(self._text.tokens)

    def model(self, options: GanModel) -> GAN:
        return RecurrentGAN(
            vocab_size=len(self.vocabulary),
            steps=self.steps,
            noise_size=options.noise,
            hidden_size=options.hidden,
            num_layers=options.layers,
            cell=options.cell,
            temperature=options.temperature,
            spectral_norm=options.spectral_norm,
        )

    def measures(self, gan: GAN, how: GanMeasuring, *, full: bool) -> dict[str, float]:
        random = torch.Generator().manual_seed(how.seed)
        assert how.samples is not None
        tokens = draw(gan, how.samples, random)
        V = len(self.vocabulary)
        pairs = [
            torch.bincount((x[:-1].long() * V + x[1:].long()).flatten(), minlength=V * V).double()
            for x in (self._text.tokens, tokens)
        ]
        return {"bigram divergence": jensen_shannon(*pairs)}

    def drawn(self, gan: GAN, how: GanSampling) -> dict[str, str | bytes]:
        random = torch.Generator().manual_seed(how.seed)
        tokens = draw(gan, how.count, random, truncation=how.truncation, steps=how.length or self.steps)
        return {".txt": "".join(self.vocabulary.decode(column) + "\n" for column in tokens.T)}


def jensen_shannon(a: Tensor, b: Tensor) -> float:
    """The Jensen-Shannon divergence of two counts [K], in bits: 0 for equal shares, 1 for disjoint ones (Lin
    1991, "Divergence measures based on the Shannon entropy")."""
    p, q = a / a.sum(), b / b.sum()
    middle = (p + q) / 2
    sides = [torch.where(x > 0, x * (x / middle).log2(), 0.0).nansum() for x in (p, q)]
    return ((sides[0] + sides[1]) / 2).item()
