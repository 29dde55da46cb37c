"""TextLSTM: a recurrent language model over tokens, bytes by default."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._arguments import choice, flag, number, whole
from ._sequences import (
    LAYERS,
    State,
    check_integers,
    check_range,
    draw,
    evaluating,
    open_forget_gates,
    recurrent,
    states,
)


class TextLSTM(nn.Module):
    """Embedding, dropout, stacked LSTM (or GRU, or tanh RNN), dropout, softmax tied to the embedding.

    vocab_size: tokens; 256, the bytes, by default. embedding_size, hidden_size, num_layers: sizes.
    cell: "lstm", "gru" or "rnn". dropout: the chance of a zero, on the embedding, between layers and before
    the softmax. tie_weights: the softmax uses the embedding's matrix (Press and Wolf 2017, arXiv:1608.05859),
    after a linear projection from hidden_size to embedding_size where the two differ; False gives it its own.

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
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.vocab_size = whole("vocab_size", vocab_size, 1)
        self.embedding_size = whole("embedding_size", embedding_size, 1)
        self.hidden_size = whole("hidden_size", hidden_size, 1)
        self.num_layers = whole("num_layers", num_layers, 1)
        self.cell = choice("cell", cell, LAYERS)
        chance = number("dropout", dropout, 0, 1, open_above=True)
        tie_weights = flag("tie_weights", tie_weights)

        made = {"device": device, "dtype": dtype}
        self.embedding = nn.Embedding(self.vocab_size, self.embedding_size, **made)
        self.drop = nn.Dropout(chance)
        self.rnn = recurrent(cell, self.embedding_size, self.hidden_size, self.num_layers, chance, **made)
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
        """Mean cross entropy in nats of `targets` (shape of tokens; -100: left out), and the state."""
        if targets.shape != tokens.shape:
            shapes = f"{list(tokens.shape)}, got {list(targets.shape)}"
            raise ValueError(f"targets: expected the shape of tokens, {shapes}")
        logits, state = self(tokens, state)
        return F.cross_entropy(logits.flatten(0, -2), targets.flatten().long()), state

    @staticmethod
    def detach(state: State | None) -> State | None:
        """The same state without its history: carried over chunks, gradients stop there (truncated BPTT)."""
        return None if state is None else states(state, Tensor.detach)

    def generate(
        self,
        prompt: str | bytes | Tensor,
        n: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str | bytes | Tensor:
        """Continues `prompt` by `n` tokens, drawn one at a time with the state carried along.

        prompt: str (read as UTF-8) or bytes, for a vocabulary of 256; or an integer tensor [T]. Never empty.
        temperature: the logits are divided by it; 0 takes the likeliest token always.
        top_k: only the k likeliest tokens are drawn from (Fan et al. 2018, arXiv:1805.04833).
        top_p: of those, only the fewest whose probabilities reach p (Holtzman et al. 2020, arXiv:1904.09751).
        seed: the same seed gives the same tokens; None draws a fresh one. torch's global random numbers are
        neither used nor moved.

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
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(whole("seed", seed, 0, 2**64 - 1))

        with evaluating(self):
            drawn = self._continue(tokens, n, temperature, top_k, top_p, generator)
        if isinstance(prompt, Tensor):
            return drawn
        content = bytes(drawn.tolist())
        return content if isinstance(prompt, bytes) else content.decode("utf-8", errors="replace")

    def _continue(self, tokens, n, temperature, top_k, top_p, generator) -> Tensor:
        """tokens: int64 [T] -> int64 [n] on the CPU."""
        drawn = torch.empty(n, dtype=torch.int64)
        step, state = tokens.to(self.embedding.weight.device), None
        for i in range(n):
            logits, state = self._advance(step, state, last_only=True)
            logits = logits[-1].float().cpu()
            if not logits.isfinite().all():
                raise RuntimeError(f"generate: the logits of token {i} are not finite")
            token = draw(logits, temperature, top_k, top_p, generator)
            drawn[i] = token
            step = token.view(1).to(step.device)
        return drawn

    def _advance(self, tokens: Tensor, state: State | None, last_only: bool = False) -> tuple[Tensor, State]:
        output, state = self.rnn(self.drop(self.embedding(tokens)), state)
        output = self.drop(output[-1:] if last_only else output)
        if self.projection is not None:
            output = self.projection(output)
        return self.decoder(output), state

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
