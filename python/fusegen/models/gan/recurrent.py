"""RecurrentGAN: sequences from recurrent layers, real-valued (after C-RNN-GAN, Mogren 2016, arXiv:1611.09904,
and RCGAN, Esteban et al. 2017, arXiv:1706.02633) or discrete through straight-through Gumbel-softmax (Jang et
al. 2017, arXiv:1611.01144; for text Kusner and Hernández-Lobato 2016, arXiv:1611.04051)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import nn as fused
from ..._arguments import check_floats, choice, number, whole
from ..._modes import evaluating
from .._sequences import State, check_integers
from ._checks import Integers, check_not_empty, integers, source_device
from .base import GAN, cast_as

_Cell = type[fused.LSTM] | type[fused.GRU]
_CELLS: dict[str, _Cell] = {"lstm": fused.LSTM, "gru": fused.GRU}


class RecurrentGAN(GAN):
    """An LSTM (or GRU) that turns noise into sequences, against one that reads them. Time-major [T, B, ·].

    features: F, values a step, in [-1, 1] with ``output="tanh"``, any with "linear". vocab_size: V instead of
    features, for tokens: the generator draws one a step and reads it back at the next; gradients pass the
    draw as those of softmax((logits + Gumbel noise) / temperature), with ``temperature`` an attribute that
    may be lowered while training. steps: T of ``sample`` where none is given. noise_size: noise a step, whose
    first ``shared`` values are the same at all steps of a sequence (half of it by default). hidden_size,
    num_layers: of both networks. cell: "lstm" or "gru". num_classes, ema: see ``GAN``. spectral_norm: on the
    discriminator's weights.

    residual: the generator's output is noise n of its own, the F values that follow the shared ones, which
    the network alters: n exp(a) + b, a and b of its last layer, which begins at zero. At first it gives
    white noise, which for series as ``data.Innovations`` gives them is a Gaussian process with the data's
    covariances. bidirectional: the discriminator reads both ways. levels: a module that gives, of values
    [T, B, F], others [T, B, F] that the discriminator sees beside them (``data.Innovations.levels_of``).

    generator: noise [T, B, noise_size + num_classes] -> [T, B, F] (or one-hot [T, B, V]). discriminator:
    [T, B, F + num_classes + 1] -> [B]; the last channel is 1 within a sequence and 0 past its end, where
    nothing is read; a penalty's input gradient is that of the F values.
    Raises TypeError or ValueError, naming the argument, for a wrong option.

    Sources: the recurrent GAN of Esteban et al. 2017 (arXiv:1706.02633); straight-through Gumbel-softmax
    for tokens, Jang et al. 2017 (arXiv:1611.01144).
    """

    sample_dim = 1

    def __init__(
        self,
        features: int | None = None,
        *,
        vocab_size: int | None = None,
        steps: int = 24,
        noise_size: int = 32,
        shared: int | None = None,
        hidden_size: int = 64,
        num_layers: int = 1,
        cell: str = "lstm",
        output: str = "tanh",
        residual: bool = False,
        bidirectional: bool = False,
        levels: nn.Module | None = None,
        temperature: float = 1.0,
        num_classes: int = 0,
        spectral_norm: bool = False,
        ema: float = 0.0,
    ) -> None:
        super().__init__(noise_size, num_classes, ema)
        if (features is None) == (vocab_size is None):
            raise ValueError(
                "features, vocab_size: expected one of them (real values, or tokens), "
                f"got {features!r} and {vocab_size!r}"
            )
        self.vocab_size = None if vocab_size is None else whole("vocab_size", vocab_size, 2)
        self.features = whole("features", features, 1) if self.vocab_size is None else self.vocab_size
        self.steps = whole("steps", steps, 1)
        self.shared = whole("shared", noise_size // 2 if shared is None else shared, 0, noise_size)
        whole("hidden_size", hidden_size, 1)
        whole("num_layers", num_layers, 1)
        self.temperature = number("temperature", temperature, 0, open_below=True)
        choice("cell", cell, _CELLS)
        choice("output", output, ("tanh", "linear"))
        if self.vocab_size is not None and output != "tanh":
            raise ValueError("output: tokens have none, got both vocab_size and output")
        self._check_residual(residual, output)
        self.residual = residual
        sizes = hidden_size, num_layers, _CELLS[cell]
        inputs = self.noise_size + self.num_classes
        if self.vocab_size is not None:
            self.generator: nn.Module = TokenGenerator(inputs, self.vocab_size, *sizes)
        elif residual:
            self.generator = ResidualGenerator(inputs, self.features, *sizes, after=self.shared)
        else:
            self.generator = SeriesGenerator(inputs, self.features, *sizes, tanh=output == "tanh")
        self.discriminator = SequenceCritic(
            self.features, self.num_classes, *sizes, bidirectional=bidirectional, levels=levels
        )
        self._finish(spectral_norm)

    def _check_residual(self, residual: bool, output: str) -> None:
        own = self.noise_size - self.shared
        if residual and self.vocab_size is not None:
            raise ValueError("residual: tokens are drawn, got both vocab_size and residual")
        if residual and output != "linear":
            raise ValueError(f"residual: expected output='linear', got {output!r}")
        if residual and own < self.features:
            raise ValueError(
                f"residual: expected at least {self.features} values of noise a step besides the shared "
                f"ones, one a feature, got {own}"
            )

    def noise(
        self,
        n: int,
        steps: int | None = None,
        *,
        truncation: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Standard normal noise [steps, n, noise_size]; see ``GAN.noise``."""
        n, steps = whole("n", n, 1), self.steps if steps is None else whole("steps", steps, 1)
        shared = self._normal((1, n, self.shared), truncation, generator).expand(steps, -1, -1)
        own = self._normal((steps, n, self.noise_size - self.shared), truncation, generator)
        return torch.cat((shared, own), 2)

    def generate(
        self,
        noise: Tensor,
        labels: Integers = None,
        lengths: Integers = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Sequences [T, B, F] (one-hot [T, B, V] of tokens) of ``noise`` [T, B, noise_size], zero past
        ``lengths`` [B]."""
        return self._run(self.generator, noise, labels, lengths, generator)

    def fakes(
        self,
        like: Tensor,
        labels: Integers = None,
        lengths: Integers = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """As in ``GAN``; ``like`` [T, B, ·] gives the steps too."""
        noise = self.noise(like.shape[1], like.shape[0], generator=generator)
        return cast_as(self.generate(noise, labels, lengths, generator), like)

    def critic_input(self, samples: Tensor, labels: Integers = None, lengths: Integers = None) -> Tensor:
        """samples: [T, B, F], or tokens as integers [T, B] or one-hot [T, B, V]. lengths: integers from 1 to
        T, one for all sequences, a sequence or a tensor [B]."""
        if self.vocab_size is not None and isinstance(samples, Tensor) and samples.dim() == 2:
            samples = self._tokens_one_hot(samples)
        check_floats("samples", samples)
        if samples.dim() != 3 or samples.shape[2] != self.features:
            raise ValueError(f"samples: expected shape [T, B, {self.features}], got {list(samples.shape)}")
        check_not_empty(samples)
        T, B, _ = samples.shape
        labels = self.checked_labels(labels, B)
        lengths = self.checked_lengths(lengths, T, B)
        parts = [zero_past_end(samples, lengths)]
        if labels is not None:
            parts.append(self._one_hot(labels, samples).expand(T, -1, -1))
        inside = samples.new_ones(T, B) if lengths is None else within(lengths, T).to(samples)
        return torch.cat((*parts, inside.unsqueeze(2)), 2)

    def surprise(
        self,
        samples: Tensor,
        labels: Integers = None,
        lengths: Integers = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The mean negative log-likelihood a value of samples [T, B, F] under a residual generator, or a
        token of samples [T, B] (one-hot [T, B, V]) under one of tokens, for other
        noise drawn from ``generator``, with gradient: what teaches it to foretell each step from those before
        (the supervised loss of Yoon et al. 2019, as a likelihood; of tokens, what SeqGAN, Yu et al. 2017,
        arXiv:1609.05473, begins with). Raises ValueError for another model."""
        if not isinstance(self.generator, ResidualGenerator | TokenGenerator):
            raise ValueError("surprise: only a residual generator has a likelihood; give residual=True")
        if self.vocab_size is not None and samples.dim() == 2:
            samples = self._tokens_one_hot(samples)
        T, B, _ = samples.shape
        noise = self._labelled(self.noise(B, T, generator=generator), labels)
        return self.generator.surprise(samples, noise, self.checked_lengths(lengths, T, B))

    @property
    def foretells(self) -> bool:
        """Whether there is a ``surprise``."""
        return self.residual or self.vocab_size is not None

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        labels: Integers = None,
        truncation: float | None = None,
        generator: torch.Generator | None = None,
        steps: int | None = None,
        lengths: Integers = None,
    ) -> Tensor:
        """n sequences [steps, n, F], or int64 tokens [steps, n]; zero past ``lengths`` [n]. The rest as in
        ``GAN.sample``."""
        n, steps = whole("n", n, 1), self.steps if steps is None else whole("steps", steps, 1)
        labels = self._labels(n, labels, generator)
        lengths = self.checked_lengths(lengths, steps, n)
        noise = self.noise(n, steps, truncation=truncation, generator=generator)
        return self.sample_of(noise, labels, lengths, generator=generator)

    @torch.no_grad()
    def sample_of(
        self,
        noise: Tensor,
        labels: Integers = None,
        lengths: Integers = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What ``sample`` makes of this noise [T, N, noise_size]: sequences [T, N, F], or int64 tokens
        [T, N], whose draws are ``generator``'s. Errors as of ``generate``."""
        with evaluating(self.drawn_from) as net:
            out = self._run(net, noise, labels, lengths, generator)
        return out if self.vocab_size is None else out.argmax(2)

    def checked_lengths(self, lengths: Integers, T: int, B: int) -> Tensor | None:
        """int64 [B] on the model's device. Raises TypeError or ValueError where they do not fit."""
        if lengths is None:
            return None
        return integers("lengths", lengths, B, 1, T).to(self._like.device)

    def _run(
        self,
        net: nn.Module,
        noise: Tensor,
        labels: Integers,
        lengths: Integers,
        generator: torch.Generator | None,
    ) -> Tensor:
        """What ``net``, the generator or its average, makes of noise [T, B, noise_size]."""
        self._check_noise(noise, "T", "B")
        lengths = self.checked_lengths(lengths, *noise.shape[:2])
        noise = self._labelled(noise, labels)
        if self.vocab_size is None:
            return net(noise, lengths)
        return net(noise, lengths, self.temperature, generator)

    def _labelled(self, noise: Tensor, labels: Integers) -> Tensor:
        """Noise [T, B, ·] with the one-hot labels, where there are some, behind each step's."""
        labels = self.checked_labels(labels, noise.shape[1])
        if labels is None:
            return noise
        return torch.cat((noise, self._one_hot(labels, noise).expand(len(noise), -1, -1)), 2)

    def _tokens_one_hot(self, tokens: Tensor) -> Tensor:
        check_integers("samples", tokens)
        check_not_empty(tokens)
        tokens = tokens.long()
        low, high = (int(end) for end in tokens.aminmax())
        if low < 0 or high >= self.features:
            raise ValueError(f"samples: expected tokens from 0 to {self.features - 1}, got {low} to {high}")
        return F.one_hot(tokens, self.features).to(self._like.dtype)


class SeriesGenerator(nn.Module):
    """Noise [T, B, inputs] -> [T, B, features]: a recurrent stack and a linear map of its output."""

    def __init__(
        self, inputs: int, features: int, hidden_size: int, num_layers: int, cell: _Cell, *, tanh: bool
    ) -> None:
        super().__init__()
        self.rnn = cell(inputs, hidden_size, num_layers)
        self.head = nn.Linear(hidden_size, features)
        self.tanh = tanh

    def forward(self, noise: Tensor, lengths: Tensor | None = None) -> Tensor:
        """lengths: [B], past which the sequences are zero; None: all T."""
        x = self.head(self.rnn(noise, lengths=lengths)[0])
        return zero_past_end(x.tanh() if self.tanh else x, lengths)


class ResidualGenerator(nn.Module):
    """Noise [T, B, inputs] -> [T, B, features]: n exp(a) + b, n the values of noise that follow the first
    ``after``, a and b linear in what a recurrent stack makes of the other noise so far and of the n of the
    steps before, to which comes what the n of the features before it say in the same step, and how large they
    are; all zero at first.

    A feature's a and b do not see its own n, so that n follows from what is given and its likelihood is
    known: first that of the first feature, then the next.
    """

    within: Tensor | None
    below: Tensor

    def __init__(
        self, inputs: int, features: int, hidden_size: int, num_layers: int, cell: _Cell, *, after: int
    ) -> None:
        super().__init__()
        self.rnn = cell(inputs, hidden_size, num_layers)
        self.head = nn.Linear(hidden_size, 2 * features)
        self.sizes = after, features, inputs - after - features
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        # [2 * features, 2 * features]: a and b, of n and of how large it is.
        self.within = nn.Parameter(torch.zeros(2 * features, 2 * features)) if features > 1 else None
        self.register_buffer("below", torch.ones(features, features).tril(-1).repeat(2, 2), persistent=False)

    def forward(self, noise: Tensor, lengths: Tensor | None = None) -> Tensor:
        """lengths: [B], past which the sequences are zero; None: all T."""
        shared, own, rest = noise.split(self.sizes, 2)
        before = torch.cat((torch.zeros_like(own[:1]), own[:-1]))
        y = self.rnn(torch.cat((shared, before, rest), 2), lengths=lengths)[0]
        ab = self.head(y)
        if self.within is not None:
            ab = ab + torch.cat((own, size_of(own)), 2) @ (self.within * self.below).T
        a, b = ab.chunk(2, 2)
        return zero_past_end(own * a.exp() + b, lengths)

    def surprise(self, values: Tensor, noise: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The mean over values [T, B, features] of what each adds to their negative log-likelihood, given
        ``noise`` as in ``forward``, of which own values are not read: a lower bound of how well the generator
        explains them. The constant of the normal density is left out."""
        shared, _, rest = noise.split(self.sizes, 2)
        state: State | None = None
        before = torch.zeros_like(values[0])
        inside = _inside(values, lengths)
        total = inside.new_zeros(())
        for t, x in enumerate(values):
            y, state = self.rnn(torch.cat((shared[t], before, rest[t]), 1).unsqueeze(0), state)
            before, a = self._noise_of(x, self.head(y[0]))
            total = total + ((before.square() / 2 + a).mean(1) * inside[t]).sum()
        return total / inside.sum()

    def _noise_of(self, x: Tensor, ab: Tensor) -> tuple[Tensor, Tensor]:
        """(n, a) [B, features] of a step x, from what the steps before say of a and b."""
        F = x.shape[1]
        if self.within is None:
            a, b = ab.chunk(2, 1)
            return (x - b) * (-a).exp(), a
        by_value, by_size = (self.within * self.below).T.chunk(2)
        found = []
        for k in range(F):
            n = (x[:, k] - ab[:, F + k]) * (-ab[:, k]).exp()
            found.append(n)
            n = n.unsqueeze(1)
            ab = ab + n * by_value[k] + size_of(n) * by_size[k]
        # Of a feature nothing is added by itself or by later ones: this is what its n was found with.
        return torch.stack(found, 1), ab[:, :F]


def size_of(n: Tensor) -> Tensor:
    """How large standard normal noise is, less the mean of that; noise beyond 3 as 3."""
    return n.abs().clamp(max=3.0) - math.sqrt(2 / math.pi)


class TokenGenerator(nn.Module):
    """Noise [T, B, inputs] -> one-hot tokens [T, B, V], each drawn from logits that have seen those before.

    The draw is argmax(logits + Gumbel noise), exactly a draw from softmax(logits); its gradient is that of
    softmax((logits + Gumbel noise) / temperature).
    """

    def __init__(self, inputs: int, vocab_size: int, hidden_size: int, num_layers: int, cell: _Cell) -> None:
        super().__init__()
        self.embedding = nn.Linear(vocab_size, hidden_size, bias=False)  # of one-hot vectors
        self.rnn = cell(inputs + hidden_size, hidden_size, num_layers)
        self.head = nn.Linear(hidden_size, vocab_size)

    def forward(
        self,
        noise: Tensor,
        lengths: Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """lengths: [B], past which the sequences are zero; None: all T. generator: of the Gumbel noise."""
        (T, B, _), V = noise.shape, self.head.out_features
        gumbel = gumbel_noise((T, B, V), noise, generator)
        state: State | None = None
        token, drawn = noise.new_zeros(B, V), []
        for t in range(T):
            y, state = self.rnn(torch.cat((noise[t], self.embedding(token)), 1).unsqueeze(0), state)
            token = straight_through(self.head(y[0]) + gumbel[t], temperature)
            drawn.append(token)
        return zero_past_end(torch.stack(drawn), lengths)

    def surprise(self, tokens: Tensor, noise: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The mean over one-hot tokens [T, B, V] of -log p of each after those before it, given ``noise`` as
        in ``forward``: with the true tokens read back, all steps in one pass."""
        before = torch.cat((torch.zeros_like(tokens[:1]), tokens[:-1]))
        y = self.rnn(torch.cat((noise, self.embedding(before)), 2), lengths=lengths)[0]
        nats = -(self.head(y).log_softmax(2) * tokens).sum(2)
        inside = _inside(nats, lengths)
        return (nats * inside).sum() / inside.sum()


class SequenceCritic(nn.Module):
    """[T, B, F + num_classes + 1] -> logits [B], of the last outputs (of both directions) and the mean of all
    within the length. levels: as in ``RecurrentGAN``."""

    sample_dim = 1
    condition_dim = 2

    def __init__(
        self,
        features: int,
        num_classes: int,
        hidden_size: int,
        num_layers: int,
        cell: _Cell,
        *,
        bidirectional: bool = False,
        levels: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.features = self.width = features
        seen = features if levels is None else 2 * features
        self.rnn = cell(seen + num_classes, hidden_size, num_layers, bidirectional=bidirectional)
        self.directions = 2 if bidirectional else 1
        self.head = nn.Linear(2 * self.directions * hidden_size, 1)
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        """x: values, one-hot labels, and 1 within a sequence, 0 past its end; behind a sequence's end nothing
        is read."""
        values, labels, inside = x.split((self.features, x.shape[2] - self.features - 1, 1), 2)
        lengths = inside.detach().sum((0, 2), dtype=_counting(inside)).round().long()
        seen = (
            [values, labels.detach()]
            if self.levels is None
            else [values, self.levels(values), labels.detach()]
        )
        y, final = self.rnn(torch.cat(seen, 2), lengths=lengths)
        last = (final[0] if isinstance(final, tuple) else final)[-self.directions :]
        mean = y.sum(0) / lengths.clamp(min=1).unsqueeze(1)
        return self.head(torch.cat((*last, mean), 1)).squeeze(1)


def within(lengths: Tensor, T: int) -> Tensor:
    """bool [T, B], True where a step lies within its sequence."""
    return torch.arange(T, device=lengths.device).unsqueeze(1) < lengths


def _inside(x: Tensor, lengths: Tensor | None) -> Tensor:
    """[T, B] of samples x [T, B, ...]: 1 within its sequence and 0 past its end, in a dtype to count in."""
    dtype = _counting(x)
    return (
        x.new_ones(x.shape[:2], dtype=dtype)
        if lengths is None
        else within(lengths, len(x)).to(x.device, dtype)
    )


def _counting(x: Tensor) -> torch.dtype:
    """float32 for 16 bits: bfloat16 counts no further than 256, float16 no further than 2,048."""
    return torch.promote_types(x.dtype, torch.float32)


def zero_past_end(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x [T, B, ·], zero past ``lengths``."""
    return x if lengths is None else torch.where(within(lengths, x.shape[0]).unsqueeze(2), x, 0.0)


def gumbel_noise(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """-log of exponential noise, with a generator of its own (torch's gumbel_softmax takes none)."""
    device = source_device(generator, like)
    e = torch.empty(shape, device=device, dtype=torch.float32).exponential_(generator=generator)
    # exponential_ may give 0; the smallest normal number keeps the logarithm finite.
    return -e.clamp(min=torch.finfo(torch.float32).tiny).log().to(like.device, like.dtype)


def straight_through(scores: Tensor, temperature: float) -> Tensor:
    """One-hot argmax of scores [..., V], with the gradient of softmax(scores / temperature)."""
    soft = (scores / temperature).softmax(-1)
    hard = F.one_hot(scores.argmax(-1), scores.shape[-1]).to(soft.dtype)
    return hard + (soft - soft.detach())  # the difference is exactly 0
