"""Characters or words of a text as the data of a GAN."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .... import data as sources
from ....data import Text, Vocabulary
from ....metrics import NGram, bigram_divergence, copied_share, perplexity, self_bleu, unique_share
from ....metrics.translation import check_sacrebleu
from ....models import GAN, RecurrentGAN
from ... import files
from ..fingerprint import fingerprint_of
from ..room import check_drawn
from .options import GanData, GanMeasuring, GanModel, GanSampling
from .source import AT_ONCE, Source, draw

JUDGE = {"character": 5, "word": 3}  # tokens that the judge's chances look at
_TOKEN = 250  # bytes of a drawn token, and of the text that it becomes
ALIKE = 200  # samples of self-BLEU, which takes time in the square of their number


@dataclass
class Characters(Source):
    """All stretches of so many characters, or words, of a text; its end is held out."""

    kind: ClassVar[str] = "text"
    name: str
    steps: int
    vocabulary: Vocabulary
    text: Text | None = None
    stride: int = 1
    held_out: float = 0.0

    @classmethod
    def read(cls, name: str, options: GanData, argument: str, folder: Path | None) -> "Characters":
        kept = folder / "vocabulary.json" if folder else None
        kind = options.tokens
        vocabulary = Vocabulary.load(kept, kind) if kept and kept.exists() else None
        text = sources.open_text(name, argument, utf8=True)
        text = sources.tokenize(text, kind, options.vocabulary, vocabulary, argument)
        found = cls(name, options.length, text.vocabulary, text, options.stride, options.held_out)
        if len(found.tokens) < options.length:
            left = f", {100 * options.held_out:g} % of them held out" if options.held_out else ""
            raise ValueError(f"{argument}: {name} has {len(text)} {kind}s{left}, --length {options.length}")
        return found

    @classmethod
    def revive(cls, content: Mapping[str, Any], folder: Path) -> "Characters":
        return cls(content["name"], content["steps"], Vocabulary.load(folder / "vocabulary.json"))

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

    @property
    def tokens(self) -> Tensor:
        """Those that are learnt, [N]."""
        return self._parts[0]

    @property
    def _parts(self) -> tuple[Tensor, Tensor]:
        return sources.split(self._text.tokens, self.held_out)

    def __len__(self) -> int:
        return (len(self.tokens) - self.steps) // self.stride + 1

    def check_enough(self, cut: GanData, usual: int) -> None:
        self._check_windows(cut, usual, [len(self.tokens)], f"{cut.tokens}s to learn from")

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        return {"real": self.tokens[index * self.stride + torch.arange(self.steps)[:, None]].long()}

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
        if not full:
            return {"bigram divergence": bigram_divergence(self.tokens, tokens, len(self.vocabulary))}
        contestants = {"": tokens}
        if how.beside:
            contestants |= self.beside(how.samples, random)
        found = {}
        for number, (whose, each) in enumerate(contestants.items()):
            self.told(f"text{whose or ' of the GAN'}", number, len(contestants))
            found[whose] = self.written(each)
        names = dict.fromkeys(name for measures in found.values() for name in measures)
        return {f"{name}{whose}": found[whose][name] for name in names for whose in found}

    def beside(self, count: int, random: torch.Generator) -> dict[str, Tensor]:
        """What a GAN's samples are held against, as many sequences [T, count] each: a bigram model's, and
        stretches of the text itself."""
        model = NGram(2, len(self.vocabulary)).fit(self.tokens)
        drawn = model.sample(count, self.steps, random)
        index = torch.randint(len(self), (count,), generator=random)
        return {" of a bigram model": drawn, " of the data": self.batch(index)["real"]}

    def written(self, samples: Tensor) -> dict[str, float]:
        """The measures of sequences [T, n], whoever wrote them. Raises ModuleNotFoundError where sacrebleu is
        missing."""
        check_sacrebleu()
        found = {"bigram divergence": bigram_divergence(self.tokens, samples, len(self.vocabulary))}
        if (judge := self._judge()) is not None:
            found["perplexity by a held-out judge"] = perplexity(judge.nats(samples), samples.numel())
        # Tokens by number: BLEU cuts at spaces, which are characters, and words, here.
        texts = [" ".join(map(str, column)) for column in samples[:, :ALIKE].T.tolist()]
        if len(texts) > 1:
            found["self-BLEU"] = self_bleu(texts, tokenize="none")
        return found | {
            "unique share": unique_share(samples),
            "copied share": copied_share(samples, self.tokens),
        }

    def _judge(self) -> NGram | None:
        """An n-gram model of what is held out, which no GAN has seen."""
        held = self._parts[1]
        if not len(held):
            return None
        return NGram(JUDGE[self.vocabulary.kind], len(self.vocabulary)).fit(held)

    def measured_bytes(self, gan: GAN, samples: int) -> float:
        return self._cost(gan)(samples, self.steps)

    def _cost(self, gan: GAN) -> Callable[[int, int], float]:
        """Bytes that (count, length) samples take."""
        assert isinstance(gan, RecurrentGAN)
        # Of each of those that are drawn at once: noise, and a step's chances in five copies.
        working = 4 * (2 * gan.noise_size + 5 * len(self.vocabulary))
        return lambda count, length: length * (count * _TOKEN + min(count, AT_ONCE) * working)

    def drawn(self, gan: GAN, how: GanSampling) -> dict[str, str | bytes]:
        asked = {"count": how.count, "length": how.length or self.steps}
        check_drawn(self._cost(gan), asked, {"count": GanSampling().count, "length": self.steps})
        random = torch.Generator().manual_seed(how.seed)
        tokens = draw(gan, how.count, random, truncation=how.truncation, steps=how.length or self.steps)
        return {".txt": "".join(self.vocabulary.decode(column) + "\n" for column in tokens.T)}
