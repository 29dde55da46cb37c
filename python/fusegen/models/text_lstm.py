"""TextLSTM: a recurrent language model over tokens, bytes by default."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import frozen
from .. import nn as fused
from .._arguments import number, whole

# The recurrent state: h for a GRU or an RNN, (h, c) for an LSTM; each [num_layers, B, hidden_size].
State = Tensor | tuple[Tensor, Tensor]

_LAYERS = {"lstm": fused.LSTM, "gru": fused.GRU, "rnn": fused.RNN}


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
        if cell not in _LAYERS:
            raise ValueError(f"cell: expected one of {', '.join(map(repr, _LAYERS))}, got {cell!r}")
        self.cell = cell
        chance = number("dropout", dropout, 0, 1, open_above=True)
        if not isinstance(tie_weights, bool):
            raise TypeError(f"tie_weights: expected a bool, got {type(tie_weights).__name__} {tie_weights!r}")

        made = {"device": device, "dtype": dtype}
        self.embedding = nn.Embedding(self.vocab_size, self.embedding_size, **made)
        self.drop = nn.Dropout(chance)
        self.rnn = _LAYERS[cell](
            self.embedding_size,
            self.hidden_size,
            self.num_layers,
            dropout=chance if self.num_layers > 1 else 0.0,  # torch.nn warns of one without effect
            **made,
        )
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
        if self.cell == "lstm":
            with torch.no_grad():
                for layer in range(self.num_layers):
                    getattr(self.rnn, f"bias_ih_l{layer}").chunk(4)[1].add_(1.0)

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
        if state is None or isinstance(state, Tensor):
            return state if state is None else state.detach()
        return tuple(part.detach() for part in state)

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

        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            with torch.inference_mode(), frozen(self):
                drawn = self._continue(tokens, n, temperature, top_k, top_p, generator)
        finally:
            for module, mode in modes.items():
                module.training = mode
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
        if not isinstance(tokens, Tensor):
            raise TypeError(f"{name}: expected an integer tensor, got {type(tokens).__name__}")
        if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
            raise TypeError(f"{name}: expected an integer tensor, got {tokens.dtype}")
        if tokens.dim() not in (1, 2) or tokens.shape[0] == 0:
            raise ValueError(f"{name}: expected shape [T, B] or [T], T at least 1, got {list(tokens.shape)}")
        if tokens.device.type == "cpu" and tokens.numel() and not torch.compiler.is_compiling():
            low, high = (int(end) for end in tokens.aminmax())
            if low < 0 or high >= self.vocab_size:
                last = self.vocab_size - 1
                raise ValueError(f"{name}: expected values from 0 to {last}, got {low} to {high}")

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


def draw(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> Tensor:
    """One token, int64 [], from finite logits [V] on the CPU; the options as in `TextLSTM.generate`."""
    if temperature == 0:
        return logits.argmax()
    # Doubles, and the largest logit at 0, so that no temperature makes a NaN. Sorted before either: rounding
    # must not turn a close second into a tie.
    ordered, tokens = logits.sort(descending=True, stable=True)
    chances = ((ordered[:top_k].double() - ordered[0].double()) / temperature).softmax(0)
    if top_p is not None:
        # A token stays while those before it have not reached p: the likeliest always does.
        chances = chances * (chances.cumsum(0) - chances < top_p)
    return tokens[torch.multinomial(chances, 1, generator=generator)[0]]
