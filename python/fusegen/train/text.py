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

from ..data import Lanes, Text, Vocabulary, count_characters, open_text, split, tokenize
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

    text=None: a model that only writes. Raises ValueError, naming `argument`, for a text too short for one
    training step.
    """

    options = {"model": TextOptions, "data": TextData}  # noqa: RUF012
    sampling = TextSampling

    def __init__(self, model: TextLSTM, text: Text | None, batch: int, chunk: int, *, argument: str = "text"):
        self.model, self.vocabulary = model, text.vocabulary if text else Vocabulary("byte")
        if text is None:
            return
        self._tokens = text.tokens
        training, held_out = split(text.tokens)
        if training.numel() <= batch * chunk or not held_out.numel():
            unit = {"byte": "bytes", "ids": "tokens"}.get(self.vocabulary.kind, f"{self.vocabulary.kind}s")
            raise ValueError(
                f"{argument}: too short: one step reads {batch} x {chunk} {unit} (batch x chunk), and the "
                f"first 90 % of {text.name} are {training.numel()}"
            )
        self._lanes = Lanes(training, batch, chunk, drop_last=True)
        # The last training byte comes first, so that every held-out byte is a target.
        held_out = text.tokens[training.numel() - 1 :]
        self._held_out = Lanes(held_out, _LANES, _CHUNK, drop_last=False)
        self.held_out_characters = self.vocabulary.count_characters(held_out[1:])

    @classmethod
    def make(cls, text: Text, options: TextOptions, *, argument: str = "text") -> "TextTask":
        """The task with a new model, its weights from torch's global random numbers."""
        return cls(_model(options, text.vocabulary), text, options.batch, options.chunk, argument=argument)

    @classmethod
    def from_options(
        cls, sections: Mapping[str, Any], folder: Path | None, *, data: bool = True, argument: str = "data"
    ) -> "TextTask":
        options, source = sections["model"], sections["data"]
        kept = folder / "vocabulary.json" if folder else None
        vocabulary = Vocabulary.load(kept, source.tokens) if kept and kept.exists() else None
        if not data:
            if vocabulary is None:
                raise FileNotFoundError(
                    f"{argument}: {kept} is missing, without which no text can be written"
                )
            task = cls(_model(options, vocabulary), None, options.batch, options.chunk)
            task.vocabulary = vocabulary
            return task
        text = open_text(
            source.data,
            argument,
            utf8=source.tokens in ("character", "word"),
            column=source.column,
            split=source.split,
        )
        text = tokenize(text, source.tokens, source.vocabulary, vocabulary, argument)
        task = cls.make(text, options, argument=argument)
        if kept and vocabulary is None:
            files.write(kept, text.vocabulary.to_json())
        return task

    def data(self, shard: Shard) -> "TextBatches":
        return TextBatches(self._lanes, shard)

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
        words, the perplexity of one (2 to the bits per token) and the share that is not in the vocabulary.

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
        if self.vocabulary.unknown is not None:
            held_out = self._tokens[-round(self._tokens.numel() * 0.1) :]
            measures["perplexity"] = math.exp(min(nats / held_out.numel(), 700.0))
            measures["unknown %"] = 100 * (held_out == self.vocabulary.unknown).double().mean().item()
        return measures

    def sample(self, how: TextSampling, model: TextLSTM | None = None) -> dict[str, str | bytes]:
        """The prompt and what the model makes of it. Raises ValueError for a prompt that it cannot read."""
        model = model or self.model
        prompt = self.vocabulary.encode(_PROMPT if how.prompt is None else how.prompt)
        if how.prompt is not None:
            if not prompt.numel():
                raise ValueError("prompt: expected at least one character, got none")
            if self.vocabulary.unknown is not None and (prompt == self.vocabulary.unknown).any():
                raise ValueError(f"prompt: {how.prompt!r} has what is not in the vocabulary of this run")
        drawn = model.generate(prompt.long(), how.length, how.temperature, how.top_k, how.top_p, how.seed)
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
    )
