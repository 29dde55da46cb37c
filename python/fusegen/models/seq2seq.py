"""Seq2Seq: from one token sequence to another, with attention."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.types import Device

from .._arguments import choice, flag, number, whole
from . import _beam
from . import _sequences as sequences
from ._beam import Decoded
from ._sequences import LAYERS, Lengths, State


class _Memory(NamedTuple):
    """What attention reads of the source."""

    keys: Tensor  # [B, S, H]
    values: Tensor  # [B, S, H], the encoder's outputs, 0 past each end
    past: Tensor  # bool [B, 1, S], True past each end


class Seq2Seq(nn.Module):
    """A recurrent encoder and a recurrent decoder that attends to its outputs (Luong et al. 2015).

    Luong's global attention (arXiv:1508.04025) with the general score, h_t' W h_s, and
    h~_t = tanh(W_c [c_t; h_t]) before the softmax. h~ is not fed back to the decoder, so that a whole target
    is one call of the recurrent layer in training. The decoder starts from the encoder's last states.

    Source and target are padded batches of integers, [S, B] and [T, B], with `source_lengths` and
    `target_lengths` [B] (None: the full length). They hold content alone: the model adds a start of its own,
    class `target_vocab_size` ends a target, and nothing past a sequence's end is read. A source may be empty.

    source_vocab_size, target_vocab_size: tokens; 256, the bytes, by default. embedding_size, hidden_size,
    num_layers: sizes, of encoder and decoder alike. cell: "lstm", "gru" or "rnn". bidirectional: the encoder
    reads both ways, at hidden_size / 2 each. dropout: the chance of a zero, on embeddings, between layers and
    before the softmax. device, dtype: of the parameters, as in torch.nn.

    State-dict keys: `source_embedding.weight`, `target_embedding.weight` (the start is its last row),
    `encoder.*`, `decoder.*`, `score.weight`, `combine.weight`, `output.*`. Forget gates start open, as in
    `TextLSTM`.

    Raises TypeError or ValueError, naming the argument, for a wrong option.
    """

    def __init__(
        self,
        source_vocab_size: int = 256,
        target_vocab_size: int = 256,
        embedding_size: int = 128,
        hidden_size: int = 256,
        num_layers: int = 1,
        *,
        cell: str = "lstm",
        bidirectional: bool = False,
        dropout: float = 0.0,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.source_vocab_size = whole("source_vocab_size", source_vocab_size, 1)
        self.target_vocab_size = whole("target_vocab_size", target_vocab_size, 1)
        self.embedding_size = whole("embedding_size", embedding_size, 1)
        self.hidden_size = whole("hidden_size", hidden_size, 1)
        self.num_layers = whole("num_layers", num_layers, 1)
        self.cell = choice("cell", cell, LAYERS)
        self.bidirectional = flag("bidirectional", bidirectional)
        if bidirectional and hidden_size % 2:
            raise ValueError(
                f"hidden_size: expected an even number for a bidirectional encoder, got {hidden_size}"
            )
        chance = number("dropout", dropout, 0, 1, open_above=True)
        self._end = self._start = self.target_vocab_size  # one of the classes, one of the embedding's rows

        made: dict[str, Any] = {"device": device, "dtype": dtype}
        E, H, L = self.embedding_size, self.hidden_size, self.num_layers
        self.source_embedding = nn.Embedding(self.source_vocab_size, E, **made)
        self.target_embedding = nn.Embedding(self.target_vocab_size + 1, E, **made)
        self.drop = nn.Dropout(chance)
        own = H // 2 if bidirectional else H
        self.encoder = sequences.recurrent(cell, E, own, L, chance, bidirectional=bidirectional, **made)
        self.decoder = sequences.recurrent(cell, E, H, L, chance, **made)
        self.score = nn.Linear(H, H, bias=False, **made)
        self.combine = nn.Linear(2 * H, H, bias=False, **made)
        self.output = nn.Linear(H, self.target_vocab_size + 1, **made)
        sequences.open_forget_gates(self.encoder)
        sequences.open_forget_gates(self.decoder)

    def forward(
        self, source: Tensor, target: Tensor, source_lengths: Lengths = None, target_lengths: Lengths = None
    ) -> Tensor:
        """source: [S, B], target: [T, B] -> logits [T + 1, B, target_vocab_size + 1], by teacher forcing.

        Row t is for token t, given those before; at a target's length, for its end; past it, for nothing.
        Raises TypeError for tokens or lengths that are not integers, ValueError for a wrong shape, S or
        T = 0, batches that differ, a length out of range, and (on the CPU) a token outside its vocabulary.
        """
        return self._teach(source, target, source_lengths, target_lengths)[0]

    def loss(
        self, source: Tensor, target: Tensor, source_lengths: Lengths = None, target_lengths: Lengths = None
    ) -> Tensor:
        """Mean cross entropy of the targets' tokens and ends, in nats per token: a scalar."""
        logits, targets, _ = self._teach(source, target, source_lengths, target_lengths)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=sequences.LEFT_OUT)

    def log_likelihood(
        self, source: Tensor, target: Tensor, source_lengths: Lengths = None, target_lengths: Lengths = None
    ) -> Tensor:
        """log p(target and its end | source): [B], in nats; arguments as in `forward`."""
        logits, targets, _ = self._teach(source, target, source_lengths, target_lengths)
        return sequences.log_likelihood(logits, targets)

    def alignment(
        self, source: Tensor, target: Tensor, source_lengths: Lengths = None, target_lengths: Lengths = None
    ) -> Tensor:
        """What each row of `forward` attends to: weights [T + 1, B, S], which add up to 1 over the source.

        An empty source has weights of 0.
        """
        return self._teach(source, target, source_lengths, target_lengths)[2]

    def greedy(self, source: Tensor, source_lengths: Lengths = None, *, max_length: int = 100) -> Decoded:
        """The likeliest token at each step, until the end or max_length tokens: tokens [T, B], their log p.

        log p has the end in it, also for a target that was stopped at max_length. No dropout, no gradients;
        the training flags are as before afterwards. Raises as `forward`, and RuntimeError where the logits
        are not finite.
        """
        source, lengths = self._source(source, source_lengths)
        max_length = whole("max_length", max_length, 0)
        with sequences.decoding(self):
            memory, begin = self._encode(source, lengths)
            state = begin

            def advance(step: Tensor) -> Tensor:
                nonlocal state
                hidden, state = self.decoder(self.target_embedding(step.unsqueeze(0)), state)
                return self.output(self._attend(hidden.transpose(0, 1), memory)[0][:, 0])

            first = source.new_full((source.shape[1],), self._start)
            tokens, lengths = sequences.unroll(advance, _likeliest, first, self._end, max_length)
            logits, targets, _ = self._decode(memory, begin, tokens, lengths.cpu())
            return Decoded(tokens, lengths, sequences.log_likelihood(logits, targets))

    def beam_search(
        self,
        source: Tensor,
        source_lengths: Lengths = None,
        *,
        width: int = 5,
        max_length: int = 100,
        length_penalty: float = 1.0,
    ) -> Decoded:
        """The `width` best targets found for each source: tokens [T, B, width], their log p; best first.

        Best by log p / (length + 1) ** length_penalty, the end being the 1: 0 is log p itself, which favours
        short targets; 1 is log p per token; 10 at most. width: hypotheses kept at each step; 1 is `greedy`,
        (target_vocab_size + 1) ** max_length finds the best there is. A search is over when `width` targets
        have ended and the best of them scores no less than those that go on; at max_length tokens the end is
        put. Where fewer than width targets exist, the last have length 0 and log p -inf. Otherwise as
        `greedy`.
        """
        source, lengths = self._source(source, source_lengths)
        width = whole("width", width, 1)
        max_length = whole("max_length", max_length, 0)
        length_penalty = number("length_penalty", length_penalty, 0, 10)
        B = source.shape[1]
        with sequences.decoding(self):
            memory, state = self._encode(source, lengths)
            state = sequences.map_state(lambda s: s.repeat_interleave(width, 1), state)
            offsets = torch.arange(B, device=source.device).unsqueeze(1) * width
            position = 0

            def step(tokens: Tensor, parents: Tensor) -> Tensor:
                nonlocal state, position
                rows = (parents + offsets).flatten()
                state = sequences.map_state(lambda s: s.index_select(1, rows), state)
                hidden, state = self.decoder(self.target_embedding(tokens.reshape(1, -1)), state)
                vectors, _ = self._attend(hidden.view(B, width, self.hidden_size), memory)
                logits = sequences.finite(self.output(vectors), position)
                position += 1
                return logits.log_softmax(-1)

            first = source.new_full((B,), self._start)
            return _beam.beam_search(step, first, width, max_length, length_penalty)

    # On checked sequences: tokens int64 [T, B], 0 past the ends, and lengths int64 [B] on the CPU.

    def _source(self, source: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        return sequences.padded("source", source, lengths, self.source_vocab_size, "source_lengths")

    def _teach(
        self, source: Tensor, target: Tensor, source_lengths: Lengths, target_lengths: Lengths
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(logits [T + 1, B, V + 1], targets [T + 1, B], weights [T + 1, B, S])."""
        source, in_source = self._source(source, source_lengths)
        target, in_target = sequences.padded(
            "target", target, target_lengths, self.target_vocab_size, "target_lengths"
        )
        if target.shape[1] != source.shape[1]:
            raise ValueError(
                f"target: expected as many sequences as the source, {source.shape[1]}, got {target.shape[1]}"
            )
        return self._decode(*self._encode(source, in_source), target, in_target)

    def _encode(self, source: Tensor, lengths: Tensor) -> tuple[_Memory, State]:
        embedded = self.drop(self.source_embedding(source))
        values, state = sequences.run(self.encoder, embedded, None, lengths)
        if self.bidirectional:
            state = sequences.map_state(self._both_ways, state)
        values = values.transpose(0, 1).contiguous()
        past = sequences.past_end(lengths, len(source), source.device).T.unsqueeze(1)
        return _Memory(self.score(values), values, past), state

    def _both_ways(self, state: Tensor) -> Tensor:
        """[2 L, B, H / 2] -> [L, B, H]: the two directions of a layer side by side."""
        return state.unflatten(0, (self.num_layers, 2)).transpose(1, 2).flatten(2)

    def _decode(
        self, memory: _Memory, state: State, target: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        read, targets = sequences.shifted(target, lengths, self._start, self._end)
        embedded = self.drop(self.target_embedding(read))
        hidden, _ = sequences.run(self.decoder, embedded, state, lengths + 1)
        vectors, weights = self._attend(hidden.transpose(0, 1), memory)
        logits = self.output(self.drop(vectors).transpose(0, 1).contiguous())
        return logits, targets, weights.transpose(0, 1)

    def _attend(self, hidden: Tensor, memory: _Memory) -> tuple[Tensor, Tensor]:
        """hidden: [B, Q, H] -> (h~ [B, Q, H], weights [B, Q, S])."""
        scores = hidden @ memory.keys.transpose(1, 2)
        # Not -inf, which would make NaN of an empty source; beside any real score it weighs exactly 0.
        scores = scores.masked_fill(memory.past, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).masked_fill(memory.past, 0)
        context = weights.to(memory.values.dtype) @ memory.values
        return self.combine(torch.cat([context, hidden], -1)).tanh(), weights


def _likeliest(logits: Tensor) -> Tensor:
    return logits.argmax(-1)
