"""SequenceVAE: a variational autoencoder of token sequences."""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.types import Device

from .._arguments import choice, flag, number, whole
from . import _sequences as sequences
from ._sequences import LAYERS, Lengths, State
from .latent import (
    Elbo,
    check_latents,
    importance_bound,
    kl_to_standard_normal,
    posterior_mean_variance,
    reparameterise,
    standard_normal,
)


class SequenceVAE(nn.Module):
    """A recurrent encoder to q(z | x) and a recurrent decoder from z (Bowman et al. 2016, arXiv:1511.06349).

    The encoder's last hidden states of its top layer give mean and log variance; the decoder starts from
    tanh(W z + b) and reads z beside the last token at every step. The prior is N(0, I).

    Sequences are padded batches of integers [T, B] with `lengths` [B] of 0..T (None: all T). They hold
    content alone: the model adds a start of its own, class `vocab_size` ends a sequence, and nothing past a
    sequence's end is read.

    vocab_size: tokens; 256, the bytes, by default. embedding_size, hidden_size, latent_size, num_layers:
    sizes, of encoder and decoder alike. latent_size 0: no z, the language model that the decoder is, to
    compare with. cell: "lstm", "gru" or "rnn". bidirectional: the encoder reads both ways, at hidden_size
    each. dropout: the chance of a zero, on embeddings, between layers and before the softmax. word_dropout:
    the chance that the decoder reads "unknown" for a token in training, which makes it look to z. inputless:
    it reads "unknown" for every token, always (the paper's inputless decoder): p(x | z) is then a product
    over positions, and all that tokens have in common is in z. device, dtype: of the parameters, as in
    torch.nn.

    State-dict keys: `embedding.weight` (start and unknown are its last two rows), `encoder.*`, `posterior.*`,
    `initial.*`, `decoder.*`, `output.*`. Forget gates start open, as in `TextLSTM`.

    Raises TypeError or ValueError, naming the argument, for a wrong option.
    """

    def __init__(
        self,
        vocab_size: int = 256,
        embedding_size: int = 128,
        hidden_size: int = 256,
        latent_size: int = 32,
        num_layers: int = 1,
        *,
        cell: str = "lstm",
        bidirectional: bool = False,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
        inputless: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size = whole("vocab_size", vocab_size, 1)
        self.embedding_size = whole("embedding_size", embedding_size, 1)
        self.hidden_size = whole("hidden_size", hidden_size, 1)
        self.latent_size = whole("latent_size", latent_size, 0)
        self.num_layers = whole("num_layers", num_layers, 1)
        self.cell = choice("cell", cell, LAYERS)
        self.bidirectional = flag("bidirectional", bidirectional)
        chance = number("dropout", dropout, 0, 1, open_above=True)
        self.word_dropout = number("word_dropout", word_dropout, 0, 1)
        self.inputless = flag("inputless", inputless)
        self._end = self._start = self.vocab_size  # one of the decoder's classes, one of the embedding's rows
        self._unknown = self.vocab_size + 1

        made: dict[str, Any] = {"device": device, "dtype": dtype}
        E, H, Z, L = self.embedding_size, self.hidden_size, self.latent_size, self.num_layers
        self.embedding = nn.Embedding(self.vocab_size + 2, E, **made)
        self.drop = nn.Dropout(chance)
        self.encoder = sequences.recurrent(cell, E, H, L, chance, bidirectional=bidirectional, **made)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element")  # at latent_size 0 as it should be
            self.posterior = nn.Linear(2 * H if bidirectional else H, 2 * Z, **made)
            self.initial = nn.Linear(Z, L * H * (2 if cell == "lstm" else 1), **made)
        self.decoder = sequences.recurrent(cell, E + Z, H, L, chance, **made)
        self.output = nn.Linear(H, self.vocab_size + 1, **made)
        sequences.open_forget_gates(self.encoder)
        sequences.open_forget_gates(self.decoder)

    def encode(self, tokens: Tensor, lengths: Lengths = None) -> tuple[Tensor, Tensor]:
        """tokens: [T, B] -> mean and log variance of q(z | tokens), each [B, latent_size]."""
        return self._encode(*self._padded(tokens, lengths))

    def forward(
        self, tokens: Tensor, lengths: Lengths = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """tokens: [T, B] -> (logits [T + 1, B, vocab_size + 1] for one z from q, mean, log variance).

        Row t holds the logits of token t, given those before it and z; at a sequence's length, of the end;
        past it, they mean nothing. generator: for z's noise, then for word dropout; None: torch's global one.
        Raises TypeError for tokens or lengths that are not integers, ValueError for a wrong shape, T = 0, a
        length outside 0..T, and (on the CPU) for a token outside the vocabulary.
        """
        tokens, lengths = self._padded(tokens, lengths)
        mean, log_variance = self._encode(tokens, lengths)
        z = reparameterise(mean, log_variance, generator)
        return self._logits(z, tokens, lengths, generator)[0], mean, log_variance

    def log_likelihood(
        self, z: Tensor, tokens: Tensor, lengths: Lengths = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """log p(tokens and their end | z) of z [B, latent_size] and tokens [T, B]: [B], in nats.

        generator: for word dropout, which acts in training mode only.
        """
        tokens, lengths = self._padded(tokens, lengths)
        check_latents("z", z, self.latent_size)
        if len(z) != tokens.shape[1]:
            raise ValueError(f"z: expected as many rows as sequences, {tokens.shape[1]}, got {len(z)}")
        return sequences.log_likelihood(*self._logits(z, tokens, lengths, generator))

    def elbo(
        self, tokens: Tensor, lengths: Lengths = None, *, generator: torch.Generator | None = None
    ) -> Elbo:
        """The bound's terms, log p(tokens | z) [B] and KL [B, latent_size], from one z for each sequence."""
        tokens, lengths = self._padded(tokens, lengths)
        mean, log_variance = self._encode(tokens, lengths)
        z = reparameterise(mean, log_variance, generator)
        log_likelihood = sequences.log_likelihood(*self._logits(z, tokens, lengths, generator))
        return Elbo(log_likelihood, kl_to_standard_normal(mean, log_variance))

    def loss(
        self,
        tokens: Tensor,
        lengths: Lengths = None,
        *,
        kl_weight: float = 1.0,
        free_bits: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Nats per sequence: mean(-log p(x | z)) + kl_weight * sum_d max(free_bits, mean KL_d), a scalar.

        kl_weight: raised from 0 to 1 while training starts, it keeps z in use (KL annealing, Bowman et al.).
        free_bits: in nats, for each latent dimension: a KL below it, averaged over the batch, costs nothing
        and has no gradient (Kingma et al. 2016, arXiv:1606.04934). At 1 and 0, the defaults, this is the
        negative ELBO. tokens, lengths, generator, errors: as in `forward`.
        """
        kl_weight = number("kl_weight", kl_weight, 0)
        free_bits = number("free_bits", free_bits, 0)
        terms = self.elbo(tokens, lengths, generator=generator)
        kl = terms.kl.mean(0).clamp(min=free_bits).sum()
        return kl_weight * kl - terms.log_likelihood.mean()

    def iwae(
        self,
        tokens: Tensor,
        k: int,
        lengths: Lengths = None,
        *,
        chunk: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The importance-weighted bound on log p(tokens), [B], in nats (Burda et al. 2016).

        k: samples of z for each sequence; chunk: how many are decoded at a time, None for all.
        Differentiable. To measure, call it in evaluation mode and under torch.no_grad().
        """
        k = whole("k", k, 1)
        chunk = None if chunk is None else whole("chunk", chunk, 1)
        tokens, lengths = self._padded(tokens, lengths)

        def log_likelihood(z: Tensor) -> Tensor:
            c = len(z)
            each = self._logits(z.flatten(0, 1), tokens.repeat(1, c), lengths.repeat(c), generator)
            return sequences.log_likelihood(*each).view(c, -1)

        return importance_bound(log_likelihood, *self._encode(tokens, lengths), k, chunk, generator)

    def decode(
        self,
        z: Tensor,
        max_length: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One sequence for each row of z [B, latent_size], token by token, stopped at max_length tokens.

        temperature: 0 takes the likeliest token always (greedy), 1 draws from p (ancestral). top_k, top_p: as
        in `TextLSTM.generate`. generator: where tokens are drawn; None: torch's global random numbers.

        Returns (tokens int64 [T, B], 0 past each end, lengths int64 [B]); T is the longest, at least 1.
        Dropout is off, there are no gradients, and the training flags are as before afterwards.
        Raises TypeError or ValueError naming the argument, RuntimeError where the logits are not finite.
        """
        check_latents("z", z, self.latent_size)
        max_length = whole("max_length", max_length, 0)
        temperature = number("temperature", temperature, 0)
        top_k = None if top_k is None else whole("top_k", top_k, 1, self.vocab_size + 1)
        top_p = None if top_p is None else number("top_p", top_p, 0, 1, open_below=True)
        state, begun = None, False

        def advance(step: Tensor) -> Tensor:
            nonlocal state, begun
            if self.inputless and begun:
                step = torch.full_like(step, self._unknown)
            output, state = self.decoder(self._beside(z, step.unsqueeze(0)), state)
            begun = True
            return self.output(output[0])

        def pick(logits: Tensor) -> Tensor:
            return sequences.draw(logits, temperature, top_k, top_p, generator)

        with sequences.decoding(self):
            state = self._initial_state(z)
            first = torch.full((len(z),), self._start, device=z.device)
            return sequences.unroll(advance, pick, first, self._end, max_length)

    def sample(
        self,
        n: int,
        max_length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """n sequences, each from its own z of N(0, I): (tokens [T, n], lengths [n]), as in `decode`."""
        like = self.initial.weight
        z = standard_normal((whole("n", n, 0), self.latent_size), like, generator)
        return self.decode(
            z, max_length, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator
        )

    def reconstruct(
        self,
        tokens: Tensor,
        lengths: Lengths = None,
        max_length: int | None = None,
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What is decoded from the posterior's mean: (tokens [T', B], lengths [B]), as in `decode`.

        max_length: None for the T of tokens [T, B].
        """
        with sequences.decoding(self):
            z = self.encode(tokens, lengths)[0]
        max_length = len(tokens) if max_length is None else max_length
        return self.decode(z, max_length, temperature=temperature, generator=generator)

    def posterior_mean_variance(self, loader: Iterable[Any]) -> Tensor:
        """Var over the data of E[z | x], float64 [latent_size], in evaluation mode; the loader as below."""

        def means() -> Iterator[Tensor]:
            for batch in loader:
                yield self.encode(*batch if isinstance(batch, tuple | list) else (batch,))[0]

        with sequences.decoding(self):
            return posterior_mean_variance(means())

    def active_units(self, loader: Iterable[Any], threshold: float = 0.01) -> int:
        """How many dimensions of z are used: those with Var_x E[z | x] above `threshold` (Burda et al. 2016).

        loader: batches tokens or (tokens, lengths), read once. Raises ValueError if it is empty.
        """
        threshold = number("threshold", threshold, 0)
        return int((self.posterior_mean_variance(loader) > threshold).sum())

    # On checked sequences: tokens int64 [T, B], 0 past the ends, and lengths int64 [B] on the CPU.

    def _padded(self, tokens: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        return sequences.padded("tokens", tokens, lengths, self.vocab_size)

    def _encode(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        _, state = sequences.run(self.encoder, self.drop(self.embedding(tokens)), None, lengths)
        hidden = state if isinstance(state, Tensor) else state[0]
        last = torch.cat(tuple(hidden[-2:]), 1) if self.bidirectional else hidden[-1]
        mean, log_variance = self.posterior(last).chunk(2, -1)
        return mean, log_variance

    def _logits(
        self, z: Tensor, tokens: Tensor, lengths: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """(logits [T + 1, B, vocab_size + 1], targets [T + 1, B])."""
        read, targets = sequences.shifted(tokens, lengths, self._start, self._end)
        if self.inputless:
            read = torch.cat([read[:1], torch.full_like(tokens, self._unknown)])
        elif self.training and self.word_dropout:
            device = read.device if generator is None else generator.device
            lost = torch.rand(tokens.shape, generator=generator, device=device) < self.word_dropout
            read = torch.cat([read[:1], read[1:].masked_fill(lost.to(read.device), self._unknown)])
        output, _ = sequences.run(self.decoder, self._beside(z, read), self._initial_state(z), lengths + 1)
        return self.output(self.drop(output)), targets

    def _beside(self, z: Tensor, tokens: Tensor) -> Tensor:
        """Embedded tokens [T, B] beside z: [T, B, embedding_size + latent_size]."""
        embedded = self.drop(self.embedding(tokens))
        return torch.cat([embedded, z.expand(len(tokens), *z.shape)], -1)

    def _initial_state(self, z: Tensor) -> State:
        count = 2 if self.cell == "lstm" else 1
        parts = self.initial(z).tanh().view(len(z), count, self.num_layers, self.hidden_size)
        h, *c = (part.transpose(0, 1).contiguous() for part in parts.unbind(1))
        return (h, c[0]) if c else h
