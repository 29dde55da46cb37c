"""Text as a task: contiguous lanes read chunk by chunk with the state carried; bits per character."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..._modes import evaluating
from ...data import Lanes, StreamedLanes, Text, TextStream, Vocabulary, open_text, split, tokenize
from ...data._memory import check_fits
from ...data.stream import WINDOW
from ...data.vocabulary import BUILT
from ...models import TextLSTM
from ...models.text_lstm import State
from .. import files
from ..options import CELLS, Options, option
from ..task import Task
from ..workers import Shard
from .fingerprint import fingerprint_of
from .idle import of_rows, of_vocabulary
from .prompt import USUAL, check_known, prompt_from, prompt_of
from .room import built, check_drawn

__all__ = ["BITS", "TextBatches", "TextData", "TextOptions", "TextSampling", "TextTask"]

BITS = "held-out bits per character"
# When measuring: few lanes, since each starts cold, and long chunks, since no graph is kept. Not the batch of
# training, so that runs compare.
_LANES, _CHUNK = 16, 256
_WEIGHTS = "hidden", "layers", "embedding"
_TOKEN = 100  # bytes of a written token, and of the text that it becomes


@dataclass(frozen=True, kw_only=True)
class TextOptions(Options):
    """Which text model, and how its text is cut. Raises TypeError or ValueError, naming the field."""

    cell: str = option("lstm", "recurrent cell", CELLS)
    layers: int = option(2, "recurrent layers", least=1, most=1000)
    hidden: int = option(256, "units in a layer", least=1)
    embedding: int = option(128, "size of a token's vector", least=1)
    dropout: float = option(
        0.0,
        "dropout before, between and after the layers: chance of a zero",
        least=0,
        most=1,
        open_above=True,
    )
    input_dropout: float | None = option(
        None, "dropout before the layers, in place of --dropout", least=0, most=1, open_above=True
    )
    hidden_dropout: float | None = option(
        None, "dropout between the layers, in place of --dropout", least=0, most=1, open_above=True
    )
    output_dropout: float | None = option(
        None, "dropout after the layers, in place of --dropout", least=0, most=1, open_above=True
    )
    locked_dropout: bool = option(False, "use one dropout mask for all steps of a chunk")
    embedding_dropout: float = option(
        0.0, "chance that a token's vector is zero in the whole batch", least=0, most=1, open_above=True
    )
    weight_drop: float = option(
        0.0, "chance of a zero in the recurrent matrices, for a whole chunk", least=0, most=1, open_above=True
    )
    ar: float = option(0.0, "weight of the last layer's mean square activation in the loss", least=0)
    tar: float = option(
        0.0, "weight of the mean square change of its output from step to step in the loss", least=0
    )
    batch: int = option(16, "stretches of text read side by side", least=1)
    chunk: int = option(64, "tokens of each stretch in one step", least=1)


@dataclass(frozen=True, kw_only=True)
class TextData(Options):
    """Which text, in which tokens. Errors as in `TextOptions`."""

    data: str = option(
        "pydocs",
        "pydocs, a text file, a folder of them, a column of .parquet, .json, .jsonl, .csv or .tsv, token "
        "numbers in .npy or .npz, or hf:NAME",
        place=("pydocs", "unicode"),
    )
    tokens: str = option(
        "byte",
        "what the model reads and writes: byte, character, word, or a file of tokenizers, FILE.json",
        place=BUILT,
    )
    vocabulary: int = option(10_000, "how many of the most frequent characters or words are kept", least=1)
    column: str | None = option(
        None,
        "column to read, of hf:, .parquet, .json, .csv and .tsv (text by default); .npz: name of the array",
    )
    split: str = option("train", "hf: which split to read")
    stream: bool = option(False, "read rows while training, for data that fit neither memory nor disk")
    held_out: int = option(
        200,
        "--stream: how many of the first rows are kept for measuring; of other data it is the last 10 %",
        least=1,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.tokens not in BUILT and not self.tokens.endswith(".json"):
            raise ValueError(f"tokens: expected one of {', '.join(BUILT)} or FILE.json, got {self.tokens!r}")
        if self.stream and self.tokens in ("character", "word"):
            raise ValueError(
                f"tokens: expected byte or FILE.json for a stream, of unknown words, got {self.tokens!r}"
            )

    @property
    def kind(self) -> str:
        """As `Vocabulary.kind`."""
        return self.tokens if self.tokens in BUILT else "tokenizer"


@dataclass(frozen=True, kw_only=True)
class TextSampling(Options):
    """How a text model is asked to write. Errors as in `TextOptions`."""

    prompt: str | None = option(
        None,
        "what the sample begins with (by default 'The ', or else how the text begins)",
    )
    length: int = option(400, "how many tokens to write", least=0)
    temperature: float = option(
        0.7, "divide the logits by this; lower: less varied, 0: always the likeliest token", least=0
    )
    top_k: int | None = option(None, "draw from the K likeliest tokens alone", least=1)
    top_p: float | None = option(
        None,
        "draw from the fewest likeliest tokens whose probabilities add up to P",
        least=0,
        most=1,
        open_below=True,
    )
    beam: int | None = option(
        None, "draw nothing: write the likeliest text that a beam search with N beams finds", least=1
    )
    seed: int = option(0, "seed of the draws", least=0, most=2**63 - 1)


class TextTask(Task):
    """Teaches a `TextLSTM` the first 90 % of a text and measures it on the last 10 %.

    batch: how many stretches of the text are read side by side. chunk: tokens of each in one step. stream: it
    is taught that instead, and measured on all of the text. text=None: a model that only writes. Raises
    ValueError, naming `argument`, for a text too short for one training step.
    """

    options = {"model": TextOptions, "data": TextData}  # noqa: RUF012
    sampling = TextSampling
    weights = _WEIGHTS
    sizes = "batch", "chunk", *_WEIGHTS, "length", "beam"

    def __init__(
        self,
        model: TextLSTM,
        text: Text | None,
        batch: int,
        chunk: int,
        *,
        stream: TextStream | None = None,
        argument: str = "text",
    ):
        self.model, self.vocabulary = model, text.vocabulary if text else Vocabulary("byte")
        self._batch, self._chunk, self._stream = batch, chunk, stream
        self.reads = batch * chunk, "tokens"
        self.prompt = prompt_of(text) if text else USUAL
        if text is None:
            return
        self._tokens, self.skipped, self.notes = text.tokens, text.skipped, text.notes
        if stream is not None:
            # A window's tokens, joined and cut into lanes, int64.
            asked, usual = {"batch": batch, "chunk": chunk}, {"batch": 16, "chunk": 64}
            check_fits(lambda batch, chunk: 24 * WINDOW * batch * chunk, asked, usual, "what is read at once")
            held_out = text.tokens
        else:
            training, held_out = split(text.tokens)
            if training.numel() <= batch * chunk or not held_out.numel():
                made_of = self.vocabulary.kind
                unit = "tokens" if made_of in ("ids", "tokenizer") else f"{made_of}s"
                raise ValueError(
                    f"{argument}: too short: one step reads {batch} x {chunk} {unit} (batch x chunk), and "
                    f"the first 90 % of {text.name} are {training.numel()}, the rest is held out"
                    f"{_that_fit(training.numel(), batch, chunk)}"
                )
            self._lanes = Lanes(training, batch, chunk, drop_last=True)
            # The last training byte comes first, so that every held-out byte is a target.
            held_out = text.tokens[training.numel() - 1 :]
        self.held_out = held_out
        self._held_out = Lanes(held_out, _LANES, _CHUNK, drop_last=False)
        self._targets = held_out[1:]
        self.held_out_characters = self.vocabulary.count_characters(self._targets)

    @classmethod
    def make(
        cls,
        text: Text,
        options: TextOptions,
        *,
        stream: TextStream | None = None,
        argument: str = "text",
    ) -> "TextTask":
        """The task with a new model, its weights from torch's global random numbers."""
        model = _model(options, text.vocabulary)
        return cls(model, text, options.batch, options.chunk, stream=stream, argument=argument)

    @classmethod
    def from_options(
        cls, sections: Mapping[str, Any], folder: Path | None, *, data: bool = True, argument: str = "data"
    ) -> "TextTask":
        options, source = sections["model"], sections["data"]
        kept = folder / "vocabulary.json" if folder else None
        vocabulary = Vocabulary.load(kept, source.kind) if kept and kept.exists() else None
        if not data:
            if vocabulary is None:
                raise FileNotFoundError(
                    f"{argument}: {kept} is missing, without which no text can be written"
                )
            task = cls(_model(options, vocabulary), None, options.batch, options.chunk)
            task.vocabulary = vocabulary
            assert kept is not None
            begin = kept.with_name("prompt.txt")  # which runs of before that do not have
            task.prompt = begin.read_text("utf-8") if begin.exists() else prompt_from(vocabulary)
            return task
        if vocabulary is None and source.kind == "tokenizer":
            vocabulary = Vocabulary.from_file(source.tokens, argument.replace("data", "tokens"))
        text, stream = _opened(source, vocabulary, argument)
        task = cls.make(text, options, stream=stream, argument=argument)
        if kept and not kept.exists():
            files.write(kept, text.vocabulary.to_json())
        if kept and not (begin := kept.with_name("prompt.txt")).exists():
            files.write(begin, task.prompt)
        return task

    @classmethod
    def idle(cls, sections: Mapping[str, Any]) -> dict[str, str]:
        model, source = sections["model"], sections["data"]
        found = of_vocabulary(source.tokens, source.data) | of_rows(source.data)
        if not source.stream:
            found["held_out"] = "the last 10 % are held out of all but a stream; give --stream"
        parts = [model.input_dropout, model.output_dropout]
        if model.layers == 1:
            found["hidden_dropout"] = "one layer has nothing between layers"
        else:
            parts.append(model.hidden_dropout)
        if None not in parts:
            found["dropout"] = "--input-dropout, --hidden-dropout and --output-dropout are in its place"
        if model.locked_dropout and not any(model.dropout if each is None else each for each in parts):
            found["locked_dropout"] = "there is no dropout to lock"
        if model.chunk == 1:
            found["tar"] = "a chunk of one step has no change from step to step"
        return found

    def idle_in(self, how: Any) -> dict[str, str]:
        if not isinstance(how, TextSampling):
            return {}
        if how.beam is not None:
            return dict.fromkeys(("temperature", "seed"), "--beam draws nothing")
        likeliest = "--temperature 0 takes the likeliest token always"
        return {} if how.temperature else dict.fromkeys(("top_k", "top_p", "seed"), likeliest)

    def data(self, shard: Shard) -> "TextBatches | StreamedLanes":
        if self._stream is None:
            return TextBatches(self._lanes, shard)
        own = shard.of(self._batch)
        return StreamedLanes(
            self._stream,
            self.vocabulary.encode,
            own.stop - own.start,
            self._chunk,
            shard.index,
            shard.count,
        )

    def loss(
        self, model: TextLSTM, batch: tuple[Tensor, Tensor], carried: State | None
    ) -> tuple[Tensor, State | None]:
        loss, state = model.loss(*batch, carried)
        return loss, model.detach(state)

    def evaluate(self, model: TextLSTM | None = None) -> dict[str, float]:
        """Bits per character: -log2 p of all held-out tokens, over the number of characters they spell; with
        other tokens, the perplexity of one (2 to the bits per token), and the share that is unknown.

        The lanes start from a zero state, which makes this a little higher than one long read would be.
        """
        with evaluating(model or self.model) as measured, torch.no_grad():
            nats = self._nats(measured)
        measures = {BITS: nats / math.log(2) / self.held_out_characters}
        if self.vocabulary.kind in ("character", "word", "tokenizer"):
            measures["perplexity"] = math.exp(min(nats / self._targets.numel(), 700.0))
        if self.vocabulary.unknown is not None:
            measures["unknown %"] = 100 * (self._targets == self.vocabulary.unknown).double().mean().item()
        return measures

    def _nats(self, model: TextLSTM) -> float:
        """-log p of all held-out tokens."""
        nats, state, device = 0.0, None, model.embedding.weight.device
        for index in range(len(self._held_out)):
            self.measuring_part("held-out text", index, len(self._held_out))
            tokens, targets = (each.to(device) for each in self._held_out[index])
            logits, state = model(tokens, state)
            nats += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        return nats

    def sample(self, how: TextSampling, model: TextLSTM | None = None) -> dict[str, str | bytes]:
        """The prompt and what the model makes of it. Raises ValueError for a prompt that it cannot read."""
        model = model or self.model
        try:
            prompt = self.vocabulary.encode(self.prompt if how.prompt is None else how.prompt)
        except ValueError as error:
            raise ValueError(f"prompt: {error}") from error
        if how.prompt is not None:
            if not prompt.numel():
                raise ValueError("prompt: expected at least one character, got none")
            check_known("prompt", how.prompt, self.vocabulary)
        self._check_room(how, model)
        drawing = (how.temperature, how.top_k, how.top_p, how.seed)
        drawn = model.generate(prompt.long(), how.length, *drawing, beam=how.beam)
        assert isinstance(drawn, Tensor)  # as the prompt is
        return {".txt": self.vocabulary.decode(torch.cat([prompt.long(), drawn]))}

    def _check_room(self, how: TextSampling, model: TextLSTM) -> None:
        """Raises ValueError, naming the option, for more than fits in memory."""
        states = model.num_layers * model.hidden_size

        def cost(length: int, beam: int = 0) -> float:
            # Of a beam its tokens in four copies, its chances, and its states before and after a step.
            return length * _TOKEN + beam * (40 * length + 40 * model.vocab_size + 24 * states)

        asked, usual = {"length": how.length}, {"length": TextSampling().length, "beam": 5}
        check_drawn(cost, asked if how.beam is None else asked | {"beam": how.beam}, usual, "the text")

    def fingerprint(self) -> str:
        return fingerprint_of(self._tokens)


class TextBatches:
    """A part of the lanes, chunk by chunk, for ever: (inputs, targets), each int64 [T, B of this part]."""

    def __init__(self, lanes: Lanes, shard: Shard):
        self._lanes = copy.copy(lanes)
        self._lanes.keep(shard.of(lanes.batch))
        self._position = 0

    def __next__(self) -> tuple[tuple[Tensor, Tensor], bool]:
        index = self._position % len(self._lanes)
        self._position += 1
        return self._lanes[index], index == 0

    def state_dict(self) -> dict[str, int]:
        return {"position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._position = state["position"]


def _model(options: TextOptions, vocabulary: Vocabulary) -> TextLSTM:
    def make() -> TextLSTM:
        return TextLSTM(
            len(vocabulary),
            embedding_size=options.embedding,
            hidden_size=options.hidden,
            num_layers=options.layers,
            cell=options.cell,
            dropout=options.dropout,
            input_dropout=options.input_dropout,
            hidden_dropout=options.hidden_dropout,
            output_dropout=options.output_dropout,
            locked_dropout=options.locked_dropout,
            embedding_dropout=options.embedding_dropout,
            weight_drop=options.weight_drop,
            activation_penalty=options.ar,
            temporal_penalty=options.tar,
        )

    return built(make, _WEIGHTS, options)


def _that_fit(count: int, batch: int, chunk: int) -> str:
    """What to give for a text of so many tokens to learn from; "" where nothing fits."""
    while batch * chunk >= count and (batch > 1 or chunk > 2):
        batch, chunk = (batch // 2, chunk) if batch > 1 and (batch > 4 or chunk <= 8) else (batch, chunk // 2)
    return f"; give --batch {batch} --chunk {chunk}, or more text" if batch * chunk < count else ""


def _opened(source: TextData, vocabulary: Vocabulary | None, argument: str) -> tuple[Text, TextStream | None]:
    """The text in tokens; or, of a stream, the rows held out, and the stream."""
    if source.stream:
        stream = TextStream(source.data, source.column or "text", source.split, source.held_out, argument)
        vocabulary = vocabulary or Vocabulary("byte")
        return Text(stream.name, vocabulary.encode(stream.measured), (), vocabulary), stream
    utf8 = source.kind != "byte"
    text = open_text(source.data, argument, utf8=utf8, column=source.column, split=source.split)
    return tokenize(text, source.kind, source.vocabulary, vocabulary, argument), None
