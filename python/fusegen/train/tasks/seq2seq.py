"""Pairs of sentences as a task for `Seq2Seq`: cross entropy, BLEU and exact matches of what is decoded."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..._modes import evaluating
from ...data import Fetched, Pairs, Ragged, Shuffled, Vocabulary, read_pairs
from ...data.vocabulary import cut, visible
from ...metrics import bleu, exact_match, perplexity
from ...metrics.translation import check_sacrebleu
from ...models import Seq2Seq
from ..options import CELLS, FitOptions, Options, option
from ..task import Task
from ..workers import Shard
from .batch import check_batch
from .held_out import keep_json, kept_json, parted
from .idle import of_vocabulary
from .prompt import check_known
from .room import built, check_drawn
from .token_sequences import TOKENS, count_tokens, decoded, encoded, read_vocabulary, vocabulary_of

__all__ = ["LOSS", "Seq2SeqData", "Seq2SeqFit", "Seq2SeqOptions", "Seq2SeqSampling", "Seq2SeqTask"]

LOSS = "held-out nats per token"
_BATCH = 50  # when measuring
_WEIGHTS = "hidden", "layers", "embedding"
_EXAMPLES = 20  # held-out pairs that a run keeps


@dataclass(frozen=True, kw_only=True)
class Seq2SeqOptions(Options):
    """Which model. Raises TypeError or ValueError, naming the field, for a wrong value."""

    cell: str = option("lstm", "recurrent cell", CELLS)
    layers: int = option(1, "recurrent layers in the encoder, and as many in the decoder", least=1, most=1000)
    hidden: int = option(128, "units in a layer", least=1)
    embedding: int = option(64, "size of a token's vector", least=1)
    bidirectional: bool = option(True, "the encoder reads in both directions, with half of the units each")
    dropout: float = option(
        0.0,
        "dropout before, between and after the layers: chance of a zero",
        least=0,
        most=1,
        open_above=True,
    )
    batch: int = option(64, "pairs in a step", least=1)


@dataclass(frozen=True, kw_only=True)
class Seq2SeqData(Options):
    """Which pairs, in which tokens. Errors as in `Seq2SeqOptions`."""

    data: str = option(
        "reverse",
        "reverse: words, and the same backwards; FILE,FILE line by line; FILE.tsv; mo:FOLDER:LANGUAGE, "
        "gettext catalogues",
        place=("reverse",),
    )
    tokens: str = option("character", "what the model reads and writes", TOKENS)
    vocabulary: int = option(
        10_000, "how many of the most frequent characters or words are kept, on each side", least=1
    )
    longest: int = option(100, "leave out pairs with more tokens than this on a side", least=1)
    held_out: float = option(
        0.1,
        "share of the sources that is kept for measuring",
        least=0,
        most=1,
        open_below=True,
        open_above=True,
    )
    beam: int = option(1, "beams of the beam search while measuring; 1: always the likeliest token", least=1)
    measured: int = option(1000, "measure at most so many held-out pairs", least=1)


@dataclass(frozen=True, kw_only=True)
class Seq2SeqFit(FitOptions):
    """How to train it. Errors as in `FitOptions`."""

    steps: int = option(2000, "optimiser steps", least=1)
    lr: float = option(
        3e-3,
        "Adam's highest learning rate: reached after 5 % of the steps, then lowered along a cosine",
        least=0,
        open_below=True,
    )


@dataclass(frozen=True, kw_only=True)
class Seq2SeqSampling(Options):
    """What is translated, and how. Errors as in `Seq2SeqOptions`."""

    source: str | None = option(None, "translate this text (default: held-out ones)")
    count: int = option(8, "how many held-out texts", least=1, most=_EXAMPLES)
    beam: int = option(5, "beams of the beam search; 1: always the likeliest token", least=1)
    length_penalty: float = option(
        1.0, "the score is log p / (length + 1) to this power: more makes longer texts", least=0, most=10
    )
    seed: int = option(0, "seed of the choice of held-out texts", least=0, most=2**63 - 1)


class Seq2SeqTask(Task):
    """Teaches a `Seq2Seq` the training pairs, measures it on those held out, whose sources it never saw.

    vocabularies: of sources and of targets. examples: a few held-out pairs. pairs: (to learn from, held out);
    None: a model that only writes. seed: of the order of the pairs.
    """

    options = {"model": Seq2SeqOptions, "data": Seq2SeqData, "fit": Seq2SeqFit}  # noqa: RUF012
    sampling = Seq2SeqSampling
    weights = _WEIGHTS
    sizes = "batch", "longest", *_WEIGHTS, "beam"

    def __init__(
        self,
        options: Seq2SeqOptions,
        source: Seq2SeqData,
        vocabularies: tuple[Vocabulary, Vocabulary],
        examples: Sequence[Sequence[str]],
        pairs: tuple[Pairs, Pairs] | None = None,
        seed: int = 0,
    ):
        self.model = built(lambda: _model(options, vocabularies), _WEIGHTS, options)
        self.vocabularies, self.examples = vocabularies, examples
        self._options, self._source, self._seed = options, source, seed
        self.reads = options.batch, "pairs"
        if pairs is not None:
            self._check_beam(source.beam, 1, min(_BATCH, source.measured))
            self.training, held_out = pairs
            self.skipped = self.training.skipped
            self._sides = self._encoded(self.training)
            self._tokens_a_target = (self._sides[1].lengths + 1).double().mean().item()
            self.held_out = Pairs(
                held_out.name, held_out.sources[: source.measured], held_out.targets[: source.measured]
            )
            # BLEU is of words; one word has no n-grams.
            self._has_words = any(" " in target for target in self.held_out.targets)

    @classmethod
    def from_options(
        cls, sections: Mapping[str, Any], folder: Path | None, *, data: bool = True, argument: str = "data"
    ) -> "Seq2SeqTask":
        options, source = sections["model"], sections["data"]
        if options.bidirectional and options.hidden % 2:
            raise ValueError(
                f"hidden: expected an even number for a bidirectional encoder, got {options.hidden}"
            )
        kept = [folder / f"{side}-vocabulary.json" if folder else None for side in ("source", "target")]
        shown = folder / "examples.json" if folder else None
        if not data:
            source_words, target_words = (read_vocabulary(path, source.tokens, argument) for path in kept)
            return cls(options, source, (source_words, target_words), kept_json(shown, argument))
        check_sacrebleu()
        training, held_out = _read(source, argument)
        check_batch(options.batch, Seq2SeqOptions().batch, len(training), "pairs", held_out=len(held_out))
        source_words, target_words = (
            vocabulary_of(source.tokens, texts, source.vocabulary, path, argument)
            for texts, path in zip((training.sources, training.targets), kept, strict=True)
        )
        examples = list(zip(held_out.sources[:_EXAMPLES], held_out.targets[:_EXAMPLES], strict=True))
        if shown and not shown.exists():
            keep_json(shown, examples)
        return cls(
            options,
            source,
            (source_words, target_words),
            examples,
            (training, held_out),
            sections["fit"].seed,
        )

    @classmethod
    def idle(cls, sections: Mapping[str, Any]) -> dict[str, str]:
        return of_vocabulary(sections["data"].tokens)

    def idle_in(self, how: Any) -> dict[str, str]:
        if not isinstance(how, Seq2SeqSampling):
            return {}
        found: dict[str, str] = {}
        if how.source is not None:
            found |= dict.fromkeys(("count", "seed"), "--source is the one text")
        if how.beam == 1:
            found["length_penalty"] = "with one hypothesis there are none to rank"
        return found

    def data(self, shard: Shard) -> Fetched:
        """(sources int64 [S, B], lengths [B], targets int64 [T, B], lengths [B])."""
        batch, (sources, targets) = self._options.batch, self._sides
        order = Shuffled(
            len(sources), batch, self._seed, shard.of(batch), torch.maximum(sources.lengths, targets.lengths)
        )
        return Fetched(order, lambda index: (*sources.padded(index), *targets.padded(index)))

    def loss(self, model: Seq2Seq, batch: tuple[Tensor, ...], carried: None) -> tuple[Tensor, None]:
        """-log p over the mean length of a target, so that parts of a batch weigh the same whatever is in
        them: nats per token, on average."""
        source, source_lengths, target, target_lengths = batch
        likelihood = model.log_likelihood(source, target, source_lengths, target_lengths)
        return -likelihood.mean() / self._tokens_a_target, None

    def evaluate(self, model: Seq2Seq | None = None) -> dict[str, float]:
        """-log p per token of the targets, ends counted, and its exponential; the share that is decoded
        exactly; of targets with several words BLEU, and that of the sources as they are."""
        with evaluating(model or self.model) as measured, torch.no_grad():
            nats, tokens, written = self._measured(measured)
        # An unknown token can be written, and a target with one be matched: what is compared is the text.
        measures = {
            LOSS: nats / tokens,
            "perplexity": perplexity(nats, tokens),
            "exact %": 100 * exact_match(written, self.held_out.targets),
        }
        if self._has_words:
            measures["BLEU"] = bleu(written, self.held_out.targets)
            measures["BLEU of the sources"] = bleu(self.held_out.sources, self.held_out.targets)
        return measures

    def _measured(self, model: Seq2Seq) -> tuple[float, int, list[str]]:
        """Of the held-out pairs: -log p of the targets, their tokens, ends counted, and what is decoded."""
        device = model.output.weight.device
        sources, targets = self._encoded(self.held_out)
        nats, written = 0.0, [""] * len(sources)
        parts = sources.lengths.argsort(stable=True).split(_BATCH)
        for number, index in enumerate(parts):
            self.measuring_part("held-out pairs", number, len(parts))
            source, source_lengths = sources.padded(index)
            target, target_lengths = targets.padded(index)
            source = source.to(device)
            likelihood = model.log_likelihood(source, target.to(device), source_lengths, target_lengths)
            nats -= likelihood.double().sum().item()
            for i, text in zip(
                index.tolist(), self._written(model, source, source_lengths, self._source.beam), strict=True
            ):
                written[i] = text
        return nats, int(targets.lengths.sum()) + len(targets), written

    def sample(self, how: Seq2SeqSampling, model: Seq2Seq | None = None) -> dict[str, str | bytes]:
        """Texts, what they are turned into, and in parentheses what was expected where that differs."""
        model = model or self.model
        examples: list[Any] = [(how.source, None)]
        if how.source is None:
            order = torch.randperm(len(self.examples), generator=torch.Generator().manual_seed(how.seed))
            examples = [self.examples[i] for i in order[: how.count].tolist()]
        else:
            self.notes = self._read_as(how.source)
        self._check_beam(how.beam, Seq2SeqSampling().beam, len(examples))
        tokens, lengths = encoded(self.vocabularies[0], [each[0] for each in examples]).padded()
        tokens = tokens.to(model.output.weight.device)
        written = self._written(model, tokens, lengths, how.beam, how.length_penalty)
        shown = []
        for (text, expected), found in zip(examples, written, strict=True):
            shown += [text, f"  -> {found}"]
            if expected not in (None, found):
                shown.append(f"     ({expected})")
        return {".txt": "\n".join(shown) + "\n"}

    def _check_beam(self, beam: int, usual: int, texts: int) -> None:
        """Raises ValueError, naming `beam`, for a search in so many texts at once that does not fit."""
        model, longest = self.model, self._source.longest
        # Of a beam its tokens in copies, its chances, its states before and after a step, and attention.
        states = model.num_layers * model.hidden_size
        each = 64 * longest + 64 * model.target_vocab_size + 32 * states + 8 * longest
        check_drawn(lambda beam: texts * beam * each, {"beam": beam}, {"beam": usual}, "the search")

    def _read_as(self, source: str) -> tuple[str, ...]:
        """Remarks on a text that is given. Raises ValueError for one of which the model knows nothing."""
        vocabulary = self.vocabularies[0]
        if not source:
            raise ValueError("source: expected at least one character, got none")
        unknown = vocabulary.unknown_in(source)
        known = (each for each in cut(source, vocabulary.kind) if each.strip() and each not in unknown)
        if unknown and next(known, None) is None:
            check_known("source", source, vocabulary)
        named = ", ".join(repr(visible(each)) for each in unknown)
        return (f"--source: {named} read as unknown: not in this run's vocabulary",) if unknown else ()

    def fingerprint(self) -> str:
        made = hashlib.sha256()
        for pairs in (self.training, self.held_out):
            made.update(repr((pairs.sources, pairs.targets)).encode())
        return made.hexdigest()

    def _encoded(self, pairs: Pairs) -> tuple[Ragged, Ragged]:
        source, target = self.vocabularies
        return encoded(source, pairs.sources), encoded(target, pairs.targets)

    def _written(
        self, model: Seq2Seq, source: Tensor, lengths: Tensor, beam: int, penalty: float = 1.0
    ) -> list[str]:
        longest = self._source.longest
        if beam == 1:
            found = model.greedy(source, lengths, max_length=longest)
            return decoded(self.vocabularies[1], found.tokens, found.lengths)
        found = model.beam_search(source, lengths, width=beam, max_length=longest, length_penalty=penalty)
        return decoded(self.vocabularies[1], found.tokens[:, :, 0], found.lengths[:, 0])


def _model(options: Seq2SeqOptions, vocabularies: tuple[Vocabulary, Vocabulary]) -> Seq2Seq:
    return Seq2Seq(
        len(vocabularies[0]),
        len(vocabularies[1]),
        options.embedding,
        options.hidden,
        options.layers,
        cell=options.cell,
        bidirectional=options.bidirectional,
        dropout=options.dropout,
    )


def _read(source: Seq2SeqData, argument: str) -> tuple[Pairs, Pairs]:
    """(pairs to learn from, pairs held out), no source in both."""
    pairs = read_pairs(source.data, argument, utf8=source.tokens != "byte")
    kept = [
        (a, b)
        for a, b in zip(pairs.sources, pairs.targets, strict=True)
        if max(count_tokens(source.tokens, a), count_tokens(source.tokens, b)) <= source.longest
    ]
    if not kept:
        raise ValueError(
            f"{argument}: {pairs.name} has no pair of at most {source.longest} {source.tokens}s (--longest)"
        )
    skipped = pairs.skipped
    if long := len(pairs) - len(kept):
        skipped += (
            f"{long:,} of {len(pairs):,} pairs, with a side of more than {source.longest} {source.tokens}s "
            "(--longest)",
        )
    sources = list(dict.fromkeys(a for a, _ in kept))
    learn, held_out = parted(len(sources), source.held_out, argument, "sources")
    rendered: dict[str, list[str]] = {a: [] for a in sources}
    for a, b in kept:
        rendered[a].append(b)

    def part(index: Tensor) -> Pairs:
        chosen = [(sources[i], b) for i in index.tolist() for b in rendered[sources[i]]]
        return Pairs(pairs.name, tuple(a for a, _ in chosen), tuple(b for _, b in chosen), skipped)

    return part(learn), part(held_out)
