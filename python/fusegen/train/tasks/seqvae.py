"""Lines or sentences as a task for the `SequenceVAE`: the ELBO without collapse, and text from z."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..._modes import evaluating
from ...data import Fetched, Ragged, Shuffled, Vocabulary, lines, open_text, sentences
from ...metrics import latent_measures, perplexity, self_bleu
from ...metrics.translation import check_sacrebleu
from ...models import SequenceVAE
from ..options import CELLS, FitOptions, Options, option
from ..task import Task
from ..workers import Shard
from .batch import check_batch
from .fingerprint import fingerprint_of
from .held_out import keep_json, kept_json, parted
from .idle import of_rows, of_vocabulary
from .room import built, check_drawn
from .token_sequences import TOKENS, count_tokens, decoded, encoded, read_vocabulary, vocabulary_of

__all__ = [
    "BOUND",
    "SequenceVAEData",
    "SequenceVAEFit",
    "SequenceVAEOptions",
    "SequenceVAESampling",
    "SequenceVAETask",
]

BOUND = "held-out nats per sequence"
_BATCH = 32  # when measuring
_EXAMPLES = 8  # held-out sequences that a run keeps
_WEIGHTS = "hidden", "layers", "embedding", "latent"
_NARROW = -4.0  # log variance of the posterior at first
_COMPARED = 50  # samples for self-BLEU


@dataclass(frozen=True, kw_only=True)
class SequenceVAEOptions(Options):
    """Which model, and how its posterior is kept from collapsing. Raises TypeError or ValueError."""

    cell: str = option("lstm", "recurrent cell", CELLS)
    layers: int = option(1, "recurrent layers in the encoder, and as many in the decoder", least=1, most=1000)
    hidden: int = option(128, "units in a layer", least=1)
    embedding: int = option(64, "size of a token's vector", least=1)
    latent: int = option(16, "size of z; 0: no z, only the decoder as a language model", least=0)
    bidirectional: bool = option(False, "the encoder reads in both directions")
    dropout: float = option(
        0.0,
        "dropout before, between and after the layers: chance of a zero",
        least=0,
        most=1,
        open_above=True,
    )
    word_dropout: float = option(
        0.0, "chance that a token is hidden from the decoder in training", least=0, most=1
    )
    inputless: bool = option(True, "hide all tokens from the decoder, so that z has to say everything")
    kl_rise: float = option(
        0.5, "share of the steps in which the weight of the KL divergence rises from 0 to 1", least=0, most=1
    )
    free_bits: float = option(
        0.1, "each dimension's KL divergence costs nothing in training up to so many nats", least=0
    )
    batch: int = option(64, "sequences in a step", least=1)


@dataclass(frozen=True, kw_only=True)
class SequenceVAEData(Options):
    """Which sequences, in which tokens. Errors as in `SequenceVAEOptions`."""

    data: str = option(
        "unicode",
        "unicode: the names of its characters; pydocs, a text file, a folder of them, a column of .parquet, "
        ".json, .csv or .tsv, or hf:NAME",
        place=("pydocs", "unicode"),
    )
    unit: str = option("line", "the unit that is one sequence", ("line", "sentence"))
    tokens: str = option("word", "what the model reads and writes", TOKENS)
    vocabulary: int = option(1500, "how many of the most frequent characters or words are kept", least=1)
    longest: int = option(20, "leave out sequences of more tokens than this", least=1)
    held_out: float = option(
        0.1, "share that is kept for measuring", least=0, most=1, open_below=True, open_above=True
    )
    column: str | None = option(
        None,
        "column to read, of hf:, .parquet, .json, .csv and .tsv (text by default); .npz: name of the array",
    )
    split: str = option("train", "hf: which split to read")
    importance: int = option(
        20, "draws of z for the importance-weighted bound; 0: do not measure it", least=0
    )
    measured: int = option(500, "measure at most so many held-out sequences", least=1)


@dataclass(frozen=True, kw_only=True)
class SequenceVAEFit(FitOptions):
    """How to train it. Errors as in `FitOptions`."""

    steps: int = option(2500, "optimiser steps", least=1)
    lr: float = option(
        6e-3,
        "Adam's highest learning rate: reached after 5 % of the steps, then lowered along a cosine",
        least=0,
        open_below=True,
    )


@dataclass(frozen=True, kw_only=True)
class SequenceVAESampling(Options):
    """What is written. Errors as in `SequenceVAEOptions`."""

    what: str = option(
        "all",
        "prior: new sequences; reconstruction: held-out ones and what the model makes of them; "
        "interpolation: steps from one held-out sequence to another",
        ("all", "prior", "reconstruction", "interpolation"),
    )
    count: int = option(8, "how many samples of the prior", least=1, most=10_000)
    steps: int = option(6, "steps of an interpolation", least=2, most=1000)
    temperature: float = option(
        1.0, "temperature of the prior's samples; 0: always the likeliest token, as in the rest", least=0
    )
    top_p: float | None = option(
        None,
        "draw from the fewest likeliest tokens whose probabilities add up to P",
        least=0,
        most=1,
        open_below=True,
    )
    seed: int = option(0, "seed of the draws", least=0, most=2**63 - 1)


class SequenceVAETask(Task):
    """Teaches a `SequenceVAE` the training sequences, measures it on those held out.

    texts: (to learn from, held out); None: a model that only writes. examples: a few held-out ones.
    seed: of the order of the sequences. skipped: what of the data was left out.
    """

    options = {"model": SequenceVAEOptions, "data": SequenceVAEData, "fit": SequenceVAEFit}  # noqa: RUF012
    sampling = SequenceVAESampling
    weights = _WEIGHTS
    sizes = "batch", "longest", *_WEIGHTS, "count", "steps"

    def __init__(
        self,
        options: SequenceVAEOptions,
        source: SequenceVAEData,
        vocabulary: Vocabulary,
        examples: Sequence[str],
        texts: tuple[Sequence[str], Sequence[str]] | None = None,
        seed: int = 0,
        skipped: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ):
        self.model = built(lambda: _model(options, vocabulary), _WEIGHTS, options)
        with torch.no_grad():
            # As wide as the prior it hides its own mean: z would be noise for long, and be left alone.
            self.model.posterior.bias[options.latent :] = _NARROW
        self.vocabulary, self.examples = vocabulary, examples
        self._options, self._source, self._seed = options, source, seed
        self._kl_weight, self.reads = 1.0, (options.batch, f"{source.unit}s")
        if texts is not None:
            self.training, self.held_out = (encoded(vocabulary, part) for part in texts)
            self.skipped, self.notes = skipped, notes

    @classmethod
    def from_options(
        cls, sections: Mapping[str, Any], folder: Path | None, *, data: bool = True, argument: str = "data"
    ) -> "SequenceVAETask":
        options, source = sections["model"], sections["data"]
        kept = folder / "vocabulary.json" if folder else None
        shown = folder / "examples.json" if folder else None
        if not data:
            vocabulary = read_vocabulary(kept, source.tokens, argument)
            return cls(options, source, vocabulary, kept_json(shown, argument))
        check_sacrebleu()
        learn, held_out, (skipped, notes) = _read(source, argument)
        usual = SequenceVAEOptions().batch
        check_batch(options.batch, usual, len(learn), f"{source.unit}s", held_out=len(held_out))
        vocabulary = vocabulary_of(source.tokens, learn, source.vocabulary, kept, argument)
        examples = held_out[:_EXAMPLES]
        if shown and not shown.exists():
            keep_json(shown, examples)
        return cls(
            options,
            source,
            vocabulary,
            examples,
            texts=(learn, held_out),
            seed=sections["fit"].seed,
            skipped=skipped,
            notes=notes,
        )

    @classmethod
    def idle(cls, sections: Mapping[str, Any]) -> dict[str, str]:
        model, source = sections["model"], sections["data"]
        found = of_vocabulary(source.tokens, source.data) | of_rows(source.data)
        if model.inputless:
            found["word_dropout"] = "an --inputless decoder sees no token anyway; give --no-inputless"
        if not model.latent:
            of_z = ("bidirectional", "kl_rise", "free_bits", "importance")
            found |= dict.fromkeys(of_z, "--latent 0 has no z, and what is encoded goes nowhere")
        return found

    def idle_in(self, how: Any) -> dict[str, str]:
        if not isinstance(how, SequenceVAESampling):
            return {}
        found: dict[str, str] = {}
        if how.what not in ("all", "prior"):
            of_prior = ("count", "temperature", "top_p", "seed")
            found |= dict.fromkeys(of_prior, f"it is for samples of the prior, got --what {how.what}")
        elif not how.temperature:
            found["top_p"] = "--temperature 0 takes the likeliest token always"
        if how.what not in ("all", "interpolation"):
            found["steps"] = f"it is for an interpolation, got --what {how.what}"
        return found

    def data(self, shard: Shard) -> Fetched:
        """(int64 [T, B], lengths int64 [B])."""
        batch, lengths = self._options.batch, self.training.lengths
        order = Shuffled(len(lengths), batch, self._seed, shard.of(batch), lengths)
        return Fetched(order, self.training.padded)

    def at(self, step: int, steps: int) -> None:
        rise = self._options.kl_rise * steps
        self._kl_weight = min(1.0, step / rise) if rise else 1.0

    def loss(self, model: SequenceVAE, batch: tuple[Tensor, Tensor], carried: None) -> tuple[Any, None]:
        terms = model.elbo(*batch)
        kl = terms.kl.mean(0)
        likelihood = terms.log_likelihood.mean()
        cost = kl.clamp(min=self._options.free_bits).sum()
        losses = {"loss": self._kl_weight * cost - likelihood, "log likelihood": likelihood, "KL": kl.sum()}
        return losses, None

    def evaluate(self, model: SequenceVAE | None = None) -> dict[str, float]:
        """-ELBO, its terms, minus the importance-weighted bound, active units (`metrics.latent_measures`);
        the perplexity of a token, ends counted, by the better bound; self-BLEU of samples of the prior.

        No dropout, the KL at its full weight, z from fixed draws.
        """
        model = model or self.model
        device = model.output.weight.device
        generator = torch.Generator().manual_seed(0)
        # Those of one length together, or most of a batch would be padding.
        index = self.held_out.lengths[: self._source.measured].argsort(stable=True)
        batches = [self.held_out.padded(part) for part in index.split(_BATCH)]
        batches = [(tokens.to(device), lengths) for tokens, lengths in batches]
        k = self._source.importance if self._options.latent else 0
        found = latent_measures(model, batches, k=k, chunk=5, generator=generator)
        measures = {BOUND: -found.elbo, "log likelihood": found.log_likelihood, "KL": found.kl}
        if found.importance is not None:
            measures[f"nats, {k} draws"] = -found.importance
        best = found.elbo if found.importance is None else max(found.importance, found.elbo)
        tokens = int(self.held_out.lengths[index].sum()) + len(index)
        measures["perplexity"] = perplexity(-best * found.count, tokens)
        measures["active units"] = float(found.active_units)
        written = model.sample(_COMPARED, self._source.longest, generator=generator)
        measures["self-BLEU"] = self_bleu(decoded(self.vocabulary, *written))
        return measures

    def sample(self, how: SequenceVAESampling, model: SequenceVAE | None = None) -> dict[str, str | bytes]:
        model = model or self.model
        self._check_room(how, model)
        parts = []
        examples = encoded(self.vocabulary, self.examples)
        if how.what in ("all", "prior"):
            written = model.sample(
                how.count,
                self._source.longest,
                temperature=how.temperature,
                top_p=how.top_p,
                generator=torch.Generator().manual_seed(how.seed),
            )
            parts.append(["From the prior", *decoded(self.vocabulary, *written)])
        if how.what in ("all", "reconstruction"):
            parts.append(["Held out, and what comes back"])
            returned = model.reconstruct(*self._padded(model, examples), self._source.longest)
            for text, back in zip(self.examples, decoded(self.vocabulary, *returned), strict=True):
                parts[-1] += [text, f"  -> {back}"]
        if how.what in ("all", "interpolation"):
            parts.append(["From one to another", *self._way(model, examples, how.steps)])
        return {".txt": "\n\n".join("\n".join(part) for part in parts) + "\n"}

    def _check_room(self, how: SequenceVAESampling, model: SequenceVAE) -> None:
        """Raises ValueError, naming the option, for more than fits in memory."""
        # Of each sequence: its tokens and their text, a step's chances in order, and states.
        states = 24 * model.num_layers * model.hidden_size
        each = 40 * self._source.longest + 48 * model.vocab_size + states
        named = {"all": ("count", "steps"), "prior": ("count",), "interpolation": ("steps",)}
        for name in named.get(how.what, ()):
            asked, usual = ({name: getattr(own, name)} for own in (how, SequenceVAESampling()))
            check_drawn(lambda **counted: each * sum(counted.values()), asked, usual)

    def fingerprint(self) -> str:
        sides = self.training, self.held_out
        return fingerprint_of(*(part for side in sides for part in (side.tokens, side.lengths)))

    @torch.no_grad()
    def _way(self, model: SequenceVAE, examples: Ragged, steps: int) -> list[str]:
        """Greedy text along the straight line between the first two examples' posterior means."""
        with evaluating(model):
            means = model.encode(*self._padded(model, examples))[0]
        at = torch.linspace(0, 1, steps, device=means.device, dtype=means.dtype).unsqueeze(1)
        z = means[0].lerp(means[min(1, len(means) - 1)], at)
        return decoded(self.vocabulary, *model.decode(z, self._source.longest))

    def _padded(self, model: SequenceVAE, examples: Ragged) -> tuple[Tensor, Tensor]:
        tokens, lengths = examples.padded()
        return tokens.to(model.output.weight.device), lengths


def _model(options: SequenceVAEOptions, vocabulary: Vocabulary) -> SequenceVAE:
    return SequenceVAE(
        len(vocabulary),
        options.embedding,
        options.hidden,
        options.latent,
        options.layers,
        cell=options.cell,
        bidirectional=options.bidirectional,
        dropout=options.dropout,
        word_dropout=options.word_dropout,
        inputless=options.inputless,
    )


def _read(
    source: SequenceVAEData, argument: str
) -> tuple[list[str], list[str], tuple[tuple[str, ...], tuple[str, ...]]]:
    """(texts to learn from, texts held out, (what was left out, how they were read)), each text once."""
    text = open_text(source.data, argument, utf8=True, column=source.column, split=source.split)
    if text.vocabulary.kind == "ids":
        raise ValueError(
            f"{argument}: {text.name} holds token numbers, of which no {source.unit}s can be cut"
        )
    cut_up = {"sentence": sentences, "line": lines}[source.unit](bytes(text.tokens.numpy()).decode())
    found = dict.fromkeys(cut_up)
    texts = [each for each in found if count_tokens(source.tokens, each) <= source.longest]
    if not texts:
        raise ValueError(
            f"{argument}: {text.name} has no {source.unit} of at most {source.longest} {source.tokens}s "
            "(--longest)"
        )
    learn, held_out = parted(len(texts), source.held_out, argument, f"{source.unit}s")
    skipped = text.skipped
    if long := len(found) - len(texts):
        skipped += (
            f"{long:,} of {len(found):,} {source.unit}s, of more than {source.longest} {source.tokens}s "
            "(--longest)",
        )
    said = skipped, text.notes
    return [texts[i] for i in learn.tolist()], [texts[i] for i in held_out.tolist()], said
