"""TextLSTM: a recurrent language model over tokens, bytes by default."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.types import Device

from .._arguments import choice, flag, number, whole
from .._errors import NotFiniteError
from . import _dropout
from ._beam import beam_search
from ._sequences import (
    LAYERS,
    State,
    check_integers,
    check_range,
    decoding,
    draw,
    finite,
    map_state,
    open_forget_gates,
    recurrent,
)
from .latent import at_least_float


class TextLSTM(nn.Module):
    """Embedding, dropout, stacked LSTM (or GRU, or tanh RNN), dropout, softmax tied to the embedding.

    vocab_size: tokens; 256, the bytes, by default. embedding_size, hidden_size, num_layers: sizes.
    cell: "lstm", "gru" or "rnn". tie_weights: the softmax uses the embedding's matrix (Press and Wolf 2017,
    arXiv:1608.05859), after a linear projection from hidden_size to embedding_size where the two differ;
    False gives it its own.

    dropout: the chance of a zero, on the embedding, between layers and before the softmax; input_dropout,
    hidden_dropout and output_dropout set one of these three places each (None: `dropout`). All of AWD-LSTM's
    regularisation (Merity et al. 2018, arXiv:1708.02182) is there, and off by default:
    locked_dropout: True draws one mask for all steps of a call in these three places.
    embedding_dropout: the chance that a token's vector is zero wherever it stands in the batch.
    weight_drop: the chance of a zero in the recurrent matrices `weight_hh`, one mask for all steps of a call.
    activation_penalty: AR's alpha, `loss` adds alpha times the mean square of the last layer's output after
    dropout. temporal_penalty: TAR's beta, beta times the mean square of that output's change from one step to
    the next, before dropout. Dropped values are made up for by 1 / (1 - chance). In evaluation mode none of
    it acts, and the state dict is that of the plain model. device, dtype: of the parameters, as in torch.nn.

    State-dict keys: `embedding.weight`, `rnn.*` as in torch.nn, `projection.*` (tied, sizes differing only),
    `decoder.weight`, `decoder.bias`. The forget gates' bias starts at 1 above torch's
    (Jozefowicz et al. 2015), the embedding at a standard deviation of 0.5.

    Raises TypeError or ValueError, naming the argument, for a wrong option.
    """

    def __init__(
        self,
        vocab_size: int = 256,
        embedding_size: int = 128,
        hidden_size: int = 256,
        num_layers: int = 2,
        *,
        cell: str = "lstm",
        dropout: float = 0.0,
        tie_weights: bool = True,
        input_dropout: float | None = None,
        hidden_dropout: float | None = None,
        output_dropout: float | None = None,
        locked_dropout: bool = False,
        embedding_dropout: float = 0.0,
        weight_drop: float = 0.0,
        activation_penalty: float = 0.0,
        temporal_penalty: float = 0.0,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size = whole("vocab_size", vocab_size, 1)
        self.embedding_size = whole("embedding_size", embedding_size, 1)
        self.hidden_size = whole("hidden_size", hidden_size, 1)
        self.num_layers = whole("num_layers", num_layers, 1)
        self.cell = choice("cell", cell, LAYERS)
        self.dropout = _chance("dropout", dropout)
        self.input_dropout, self.hidden_dropout, self.output_dropout = (
            self.dropout if own is None else _chance(name, own)
            for name, own in (
                ("input_dropout", input_dropout),
                ("hidden_dropout", hidden_dropout),
                ("output_dropout", output_dropout),
            )
        )
        self.locked_dropout = flag("locked_dropout", locked_dropout)
        self.embedding_dropout = _chance("embedding_dropout", embedding_dropout)
        self.weight_drop = _chance("weight_drop", weight_drop)
        self.activation_penalty = number("activation_penalty", activation_penalty, 0)
        self.temporal_penalty = number("temporal_penalty", temporal_penalty, 0)
        tie_weights = flag("tie_weights", tie_weights)

        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.embedding = nn.Embedding(self.vocab_size, self.embedding_size, **made)
        between = 0.0 if self.locked_dropout else self.hidden_dropout
        self.rnn = recurrent(cell, self.embedding_size, self.hidden_size, self.num_layers, between, **made)
        projected = tie_weights and self.embedding_size != self.hidden_size
        self.projection = nn.Linear(self.hidden_size, self.embedding_size, **made) if projected else None
        decoded = self.embedding_size if tie_weights else self.hidden_size
        self.decoder = nn.Linear(decoded, self.vocab_size, **made)
        if tie_weights:
            self.decoder.weight = self.embedding.weight
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Starts the weights anew, from torch's global random numbers."""
        # 0.5, not the usual 0.1: a layer's input must be felt beside its state from the first step. On
        # pydocs, after one pass, this and the forget bias took 2.17 bits per character to 1.88.
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.rnn.reset_parameters()
        if self.projection is not None:
            self.projection.reset_parameters()
        if self.decoder.weight is not self.embedding.weight:
            self.decoder.reset_parameters()
        nn.init.zeros_(self.decoder.bias)
        open_forget_gates(self.rnn)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens: integers [T, B] (or [T]), `state`: None for zeros, or what a call before returned.

        Returns (logits [T, B, vocab_size] (or [T, vocab_size]), state after the last step).
        Raises TypeError for tokens that are not integers, ValueError for another rank, for T = 0, and (on the
        CPU, where looking costs nothing) for a token outside the vocabulary.
        """
        self._check_tokens(tokens)
        return self._advance(tokens.long(), state)

    def loss(self, tokens: Tensor, targets: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Mean cross entropy in nats of `targets` (shape of tokens; -100: left out), and the state.

        In training mode, plus the penalties on activations, where they are asked for.
        """
        if targets.shape != tokens.shape:
            shapes = f"{list(tokens.shape)}, got {list(targets.shape)}"
            raise ValueError(f"targets: expected the shape of tokens, {shapes}")
        self._check_tokens(tokens)
        output, state = self._read(tokens.long(), state)
        dropped = self._drop(output, self.output_dropout)
        logits = self._decode(dropped)
        loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten().long())
        if self.training and self.activation_penalty:
            loss = loss + self.activation_penalty * at_least_float(dropped).square().mean()
        if self.training and self.temporal_penalty and len(output) > 1:
            loss = loss + self.temporal_penalty * at_least_float(output).diff(dim=0).square().mean()
        return loss, state

    @staticmethod
    def detach(state: State | None) -> State | None:
        """The same state without its history: carried over chunks, gradients stop there (truncated BPTT)."""
        return None if state is None else map_state(Tensor.detach, state)

    def generate(
        self,
        prompt: str | bytes | Tensor,
        n: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        *,
        beam: int | None = None,
    ) -> str | bytes | Tensor:
        """Continues `prompt` by `n` tokens, drawn one at a time with the state carried along.

        prompt: str (read as UTF-8) or bytes, for a vocabulary of 256; or an integer tensor [T]. Never empty.
        temperature: the logits are divided by it; 0 takes the likeliest token always.
        top_k: only the k likeliest tokens are drawn from (Fan et al. 2018, arXiv:1805.04833).
        top_p: of those, only the fewest whose probabilities reach p (Holtzman et al. 2020, arXiv:1904.09751).
        seed: the same seed gives the same tokens; None draws a fresh one. torch's global random numbers are
        neither used nor moved.
        beam: in place of drawing, the likeliest continuation that beam search finds which keeps so many at
        each step (1 is temperature 0); temperature and seed play no part then, top_k and top_p are refused.

        Returns the continuation without the prompt, in the prompt's type: str (bytes that are not UTF-8
        become U+FFFD), bytes, or int64 [n] on the CPU. Dropout is off; the training
        flags are as before afterwards.
        Raises TypeError or ValueError naming the argument, RuntimeError where the logits are not finite.
        """
        tokens = self._prompt_tokens(prompt)
        n = whole("n", n, 0)
        temperature = number("temperature", temperature, 0)
        top_k = None if top_k is None else whole("top_k", top_k, 1, self.vocab_size)
        top_p = None if top_p is None else number("top_p", top_p, 0, 1, open_below=True)
        if beam is not None:
            beam = whole("beam", beam, 1)
            for name, value in (("top_k", top_k), ("top_p", top_p)):
                if value is not None:
                    raise ValueError(f"{name}: expected None beside beam, which draws nothing, got {value}")
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(whole("seed", seed, 0, 2**64 - 1))

        def choose(logits: Tensor) -> Tensor:
            return draw(logits, temperature, top_k, top_p, generator)

        with decoding(self):
            if beam is None:
                drawn = self._continue(tokens, n, choose)
            else:
                drawn = self._search(tokens, n, beam)
        if isinstance(prompt, Tensor):
            return drawn
        content = bytes(drawn.tolist())
        return content if isinstance(prompt, bytes) else content.decode("utf-8", errors="replace")

    def _continue(self, tokens: Tensor, n: int, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """tokens: int64 [T] -> int64 [n] on the CPU."""
        drawn = torch.empty(n, dtype=torch.int64)
        step, state = tokens.to(self.embedding.weight.device), None
        for i in range(n):
            logits, state = self._advance(step, state, last_only=True)
            logits = logits[-1].float().cpu()
            if not logits.isfinite().all():
                raise NotFiniteError(f"generate: the logits of token {i} are not finite")
            token = choose(logits)
            drawn[i] = token
            step = token.view(1).to(step.device)
        return drawn

    def _search(self, tokens: Tensor, n: int, width: int) -> Tensor:
        """tokens: int64 [T] -> int64 [n] on the CPU, by beam search."""
        tokens = tokens.to(self.embedding.weight.device).unsqueeze(1)
        state = None
        if len(tokens) > 1:
            _, state = self._advance(tokens[:-1], None, last_only=True)
            state = map_state(lambda part: part.repeat_interleave(width, 1), state)
        position = 0

        def step(last: Tensor, parents: Tensor) -> Tensor:
            nonlocal state, position
            # No token ends a text: the last class, the end, is certain after n and impossible before.
            if position == n:
                return torch.zeros(1, width, self.vocab_size + 1, device=last.device)
            if state is not None:
                state = map_state(lambda part: part.index_select(1, parents[0]), state)
            # A beam without any text, of chance 0, may bear the end for its last token.
            logits, state = self._advance(last.clamp(max=self.vocab_size - 1), state)
            log_p = finite(logits, position).log_softmax(-1)
            position += 1
            return F.pad(log_p, (0, 1), value=-torch.inf)

        found = beam_search(step, tokens[-1], width, n, 0.0)
        return found.tokens[:n, 0, 0].cpu()

    def _advance(self, tokens: Tensor, state: State | None, last_only: bool = False) -> tuple[Tensor, State]:
        output, state = self._read(tokens, state)
        return self._decode(self._drop(output[-1:] if last_only else output, self.output_dropout)), state

    def _read(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        """tokens: int64 [T, B] or [T] -> the last layer's output [T, B, H] or [T, H], and the state."""
        embedded = self.embedding(tokens)
        if not self.training:
            return self.rnn(embedded, state)
        embedded = _dropout.embedding(embedded, tokens, self.vocab_size, self.embedding_dropout)
        x = self._drop(embedded, self.input_dropout)
        if not (self.weight_drop or (self.locked_dropout and self.hidden_dropout and self.num_layers > 1)):
            return self.rnn(x, state)
        alone = x.dim() == 2
        if alone:
            x, state = x.unsqueeze(1), None if state is None else map_state(lambda s: s.unsqueeze(1), state)
        between = lambda y: self._drop(y, self.hidden_dropout)
        output, state = _dropout.run_layers(self.rnn, x, state, between, self.weight_drop)
        return (output.squeeze(1), map_state(lambda s: s.squeeze(1), state)) if alone else (output, state)

    def _drop(self, x: Tensor, chance: float) -> Tensor:
        """x: [T, ..., F]."""
        if not self.training or not chance:
            return x
        return _dropout.locked(x, chance) if self.locked_dropout else F.dropout(x, chance)

    def _decode(self, output: Tensor) -> Tensor:
        return self.decoder(output if self.projection is None else self.projection(output))

    def _check_tokens(self, tokens: Tensor, name: str = "tokens") -> None:
        check_integers(name, tokens)
        if tokens.dim() not in (1, 2) or tokens.shape[0] == 0:
            raise ValueError(f"{name}: expected shape [T, B] or [T], T at least 1, got {list(tokens.shape)}")
        check_range(name, tokens, self.vocab_size)

    def _prompt_tokens(self, prompt: str | bytes | Tensor) -> Tensor:
        """The prompt as int64 [T]."""
        if isinstance(prompt, str | bytes):
            if self.vocab_size != 256:
                raise ValueError(
                    f"prompt: text needs a vocabulary of 256 bytes, this one has {self.vocab_size}: "
                    "give an integer tensor"
                )
            content = prompt.encode() if isinstance(prompt, str) else prompt
            if not content:
                raise ValueError("prompt: expected at least one character, got none")
            return torch.tensor(list(content))
        if not isinstance(prompt, Tensor):
            raise TypeError(f"prompt: expected str, bytes or an integer tensor, got {type(prompt).__name__}")
        if prompt.dim() != 1 or prompt.numel() == 0:
            raise ValueError(f"prompt: expected shape [T] with T at least 1, got {list(prompt.shape)}")
        self._check_tokens(prompt, "prompt")
        return prompt.long()


def _chance(name: str, value: object) -> float:
    return number(name, value, 0, 1, open_above=True)
