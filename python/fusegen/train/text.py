"""Text as a task: contiguous lanes read chunk by chunk with the state carried; bits per character."""

import copy
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import (
    Lanes,
    StreamedLanes,
    Text,
    TextStream,
    Vocabulary,
    count_characters,
    open_text,
    split,
    tokenize,
)
from ..models import TextLSTM
from ..models.text_lstm import State
from . import files
from .options import TextData, TextOptions, TextSampling
from .step import Task
from .workers import Shard

__all__ = ["BITS", "TextBatches", "TextTask", "count_characters"]

BITS = "held-out bits per character"
# When measuring: few lanes, since each starts cold, and long chunks, since no graph is kept. Not the batch of
# training, so that runs compare.
_LANES, _CHUNK = 16, 256
_PROMPT = "The "


class TextTask(Task):
    """Teaches a `TextLSTM` the first 90 % of a text and measures it on the last 10 %.

    stream: it is taught that instead, and measured on all of the text. text=None: a model that only writes.
    Raises ValueError, naming `argument`, for a text too short for one
    training step.
    """

    options = {"model": TextOptions, "data": TextData}  # noqa: RUF012
    sampling = TextSampling

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
        if text is None:
            return
        self._tokens, self.skipped = text.tokens, text.skipped
        if stream is not None:
            held_out = text.tokens
        else:
            training, held_out = split(text.tokens)
            if training.numel() <= batch * chunk or not held_out.numel():
                kind = self.vocabulary.kind
                unit = "tokens" if kind in ("ids", "tokenizer") else f"{kind}s"
                raise ValueError(
                    f"{argument}: too short: one step reads {batch} x {chunk} {unit} (batch x chunk), and "
                    f"the first 90 % of {text.name} are {training.numel()}"
                )
            self._lanes = Lanes(training, batch, chunk, drop_last=True)
            # The last training byte comes first, so that every held-out byte is a target.
            held_out = text.tokens[training.numel() - 1 :]
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
            return task
        if vocabulary is None and source.kind == "tokenizer":
            vocabulary = Vocabulary.from_file(source.tokens, argument.replace("data", "tokens"))
        text, stream = _opened(source, vocabulary, argument)
        task = cls.make(text, options, stream=stream, argument=argument)
        if kept and not kept.exists():
            files.write(kept, text.vocabulary.to_json())
        return task

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

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """What step `step` trains on, whole."""
        return self._lanes[step % len(self._lanes)]

    def carry(self, step: int, carried: State | None) -> State | None:
        """What step `step` starts from: what the one before returned, or None where the text begins anew."""
        return None if step % len(self._lanes) == 0 else carried

    def loss(
        self, model: TextLSTM, batch: tuple[Tensor, Tensor], carried: State | None
    ) -> tuple[Tensor, State | None]:
        loss, state = model.loss(*batch, carried)
        return loss, model.detach(state)

    @torch.no_grad()
    def evaluate(self, model: TextLSTM | None = None) -> dict[str, float]:
        """Bits per character: -log2 p of all held-out tokens, over the number of characters they spell; with
        other tokens, the perplexity of one (2 to the bits per token), and the share that is unknown.

        The lanes start from a zero state, which makes this a little higher than one long read would be.
        """
        model = model or self.model
        device = model.embedding.weight.device
        was_training = model.training
        model.eval()
        nats, state = 0.0, None
        for index in range(len(self._held_out)):
            tokens, targets = (each.to(device) for each in self._held_out[index])
            logits, state = model(tokens, state)
            nats += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        model.train(was_training)
        measures = {BITS: nats / math.log(2) / self.held_out_characters}
        if self.vocabulary.kind in ("character", "word", "tokenizer"):
            measures["perplexity"] = math.exp(min(nats / self._targets.numel(), 700.0))
        if self.vocabulary.unknown is not None:
            measures["unknown %"] = 100 * (self._targets == self.vocabulary.unknown).double().mean().item()
        return measures

    def sample(self, how: TextSampling, model: TextLSTM | None = None) -> dict[str, str | bytes]:
        """The prompt and what the model makes of it. Raises ValueError for a prompt that it cannot read."""
        model = model or self.model
        numbers = self.vocabulary.kind == "ids"
        try:
            prompt = self.vocabulary.encode(
                ("0" if numbers else _PROMPT) if how.prompt is None else how.prompt
            )
        except ValueError as error:
            raise ValueError(f"prompt: {error}") from error
        if how.prompt is not None:
            if not prompt.numel():
                raise ValueError("prompt: expected at least one character, got none")
            if self.vocabulary.unknown is not None and (prompt == self.vocabulary.unknown).any():
                raise ValueError(f"prompt: {how.prompt!r} has what is not in the vocabulary of this run")
        drawing = (how.temperature, how.top_k, how.top_p, how.seed)
        drawn = model.generate(prompt.long(), how.length, *drawing, beams=how.beams)
        return {".txt": self.vocabulary.decode(torch.cat([prompt.long(), drawn]))}

    def fingerprint(self) -> str:
        return hashlib.sha256(self._tokens.numpy()).hexdigest()


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


def _opened(source: TextData, vocabulary: Vocabulary | None, argument: str) -> tuple[Text, TextStream | None]:
    """The text in tokens; or, of a stream, the rows held out, and the stream."""
    if source.stream:
        stream = TextStream(source.data, source.column, source.split, source.held_out, argument)
        vocabulary = vocabulary or Vocabulary("byte")
        return Text(stream.name, vocabulary.encode(stream.measured), (), vocabulary), stream
    utf8 = source.kind != "byte"
    text = open_text(source.data, argument, utf8=utf8, column=source.column, split=source.split)
    return tokenize(text, source.kind, source.vocabulary, vocabulary, argument), None
