"""Text as a task: contiguous lanes read chunk by chunk with the state carried; bits per character."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import Lanes, Text, split
from ..models import TextLSTM
from ..models.text_lstm import State
from .options import TextOptions

BITS = "held-out bits per character"
# When measuring: few lanes, since each starts cold, and long chunks, since no graph is kept. Not the batch of
# training, so that runs compare.
_LANES, _CHUNK = 16, 256


class TextTask:
    """Teaches a `TextLSTM` the first 90 % of a text and measures it on the last 10 %.

    Raises ValueError, naming `argument`, for a text too short for one training step.
    """

    def __init__(self, model: TextLSTM, text: Text, batch: int, chunk: int, *, argument: str = "text"):
        self.model = model
        training, held_out = split(text.tokens)
        if training.numel() <= batch * chunk:
            raise ValueError(
                f"{argument}: too short: one step reads {batch} x {chunk} bytes (batch x chunk), and the "
                f"first 90 % of {text.name} are {training.numel()}"
            )
        self._lanes = Lanes(training, batch, chunk, drop_last=True)
        # The last training byte comes first, so that every held-out byte is a target.
        held_out = text.tokens[training.numel() - 1 :]
        self._held_out = Lanes(held_out, _LANES, _CHUNK, drop_last=False)
        self.held_out_characters = count_characters(held_out[1:])

    @classmethod
    def make(cls, text: Text, options: TextOptions, *, argument: str = "text") -> "TextTask":
        """The task with a new model, its weights from torch's global random numbers."""
        model = TextLSTM(
            embedding_size=options.embedding,
            hidden_size=options.hidden,
            num_layers=options.layers,
            cell=options.cell,
            dropout=options.dropout,
        )
        return cls(model, text, options.batch, options.chunk, argument=argument)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        return self._lanes[step % len(self._lanes)]

    def carry(self, step: int, carried: State | None) -> State | None:
        return None if step % len(self._lanes) == 0 else carried

    def loss(
        self, model: TextLSTM, batch: tuple[Tensor, Tensor], carried: State | None
    ) -> tuple[Tensor, State | None]:
        loss, state = model.loss(*batch, carried)
        return loss, model.detach(state)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Bits per character: -log2 p of all held-out bytes, over the number of characters they spell.

        The lanes start from a zero state, which makes this a little higher than one long read would be.
        """
        was_training = self.model.training
        self.model.eval()
        nats, state = 0.0, None
        for index in range(len(self._held_out)):
            tokens, targets = self._held_out[index]
            logits, state = self.model(tokens, state)
            nats += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        self.model.train(was_training)
        return {BITS: nats / math.log(2) / self.held_out_characters}


def count_characters(tokens: Tensor) -> int:
    """UTF-8 characters in bytes [N] (uint8), counted by their first bytes; at least 1."""
    return max(1, int(((tokens & 0xC0) != 0x80).sum()))
