"""Discriminative and predictive score of real-valued sequences (Yoon, Jarrett and van der Schaar 2019,
"Time-series Generative Adversarial Networks", NeurIPS, section 5).

Where the paper and its published code differ, the paper is followed: two layers, and the prediction of the
whole next step (the code: one layer, and the last feature from the others; ``target`` gives the feature).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import nn as fused
from .._arguments import number, whole


@dataclass(frozen=True)
class PostHoc:
    """How the post-hoc networks learn: a GRU of ``num_layers`` and ``hidden_size`` (0: half the features, as
    the published code has it, but at least 8), Adam with ``lr``, ``steps`` batches of ``batch``."""

    steps: int = 2000
    batch: int = 128
    hidden_size: int = 0
    num_layers: int = 2
    lr: float = 1e-3

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("hidden_size", 0), ("num_layers", 1)):
            whole(name, getattr(self, name), least)
        number("lr", self.lr, 0, open_below=True)

    def gru(self, features: int) -> fused.GRU:
        """A new one, for inputs of so many features."""
        return fused.GRU(features, self.hidden_size or max(8, features // 2), self.num_layers)


def discriminative_score(
    real: Tensor,
    fake: Tensor,
    *,
    real_lengths: Tensor | None = None,
    fake_lengths: Tensor | None = None,
    options: PostHoc | None = None,
    seed: int = 0,
) -> float:
    """|accuracy - 1/2| of a network that has learnt to tell real sequences [T, N, F] from fake [T, M, F], on
    a fifth of each that it has not seen: 0 cannot be told apart, 0.5 always can. lengths: [N] and [M], for
    padded sequences. The accuracy is the mean of those on real and on fake sequences (the paper has N = M,
    where it is the same).

    The same seed gives the same score; torch's global random numbers are not moved.
    Raises TypeError or ValueError for sequences that do not fit.

    real, fake: floating-point sequences of any dtype, time-major. real_lengths, fake_lengths: integers [N]
    and [M], how many steps of each are its own, where they are padded; None: all. They are compared in
    float32. options: sizes and steps of the network. Source: Yoon et al. 2019 (TimeGAN), section 5.
    """
    options = options or PostHoc()
    sides = (_Sequences("real", real, real_lengths), _Sequences("fake", fake, fake_lengths))
    _check_same_features(*sides)
    for side in sides:
        if side.count < 5:
            raise ValueError(f"{side.name}: expected at least 5 sequences, got {side.count}")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(whole("seed", seed, 0, 2**63 - 1))
        shuffled = [torch.randperm(side.count) for side in sides]
        seen = [order[: -(side.count // 5)] for order, side in zip(shuffled, sides, strict=True)]
        unseen = [order[-(side.count // 5) :] for order, side in zip(shuffled, sides, strict=True)]
        model = _Classifier(options, real.shape[2])

        def loss() -> Tensor:
            logits = [
                model(*side.draw(index, options.batch)) for side, index in zip(sides, seen, strict=True)
            ]
            return F.softplus(-logits[0]).mean() + F.softplus(logits[1]).mean()

        _learn(model, loss, options)
    with torch.no_grad():
        right = [
            ((model(*side.at(index)) > 0) == truth).double().mean().item()
            for side, index, truth in zip(sides, unseen, (True, False), strict=True)
        ]
    return abs(sum(right) / 2 - 0.5)


def predictive_score(
    real: Tensor,
    fake: Tensor,
    *,
    real_lengths: Tensor | None = None,
    fake_lengths: Tensor | None = None,
    target: int | None = None,
    options: PostHoc | None = None,
    seed: int = 0,
) -> float:
    """Train on synthetic, test on real: the mean absolute error, on real sequences [T, N, F], of a network
    that has learnt from fake ones [T, M, F] to predict each next step from those before it. Lower is better;
    compare with that of real sequences in the place of ``fake``.

    target: None predicts all features of the next step (the paper); a feature's index predicts that one from
    the others alone (the published code, where it is the last). The error is in the units of the data
    (the paper: features scaled to [0, 1]; halve it for data in [-1, 1]). lengths, seed and errors as in
    ``discriminative_score``.

    real, fake: floating-point sequences of any dtype, time-major. real_lengths, fake_lengths: integers [N]
    and [M], how many steps of each are its own, where they are padded; None: all. They are compared in
    float32. options: sizes and steps of the network. Source: Yoon et al. 2019 (TimeGAN), section 5.
    """
    options = options or PostHoc(steps=5000)
    sides = (_Sequences("real", real, real_lengths), _Sequences("fake", fake, fake_lengths))
    _check_same_features(*sides)
    features = real.shape[2]
    if real.shape[0] < 2 or fake.shape[0] < 2:
        raise ValueError(f"real, fake: expected at least 2 steps, got {real.shape[0]} and {fake.shape[0]}")
    if target is not None:
        whole("target", target, 0, features - 1)
        if features == 1:
            raise ValueError("target: with one feature there are no others to predict it from")
    inputs = [i for i in range(features) if i != target]
    outputs = list(range(features)) if target is None else [target]

    def error(x: Tensor, lengths: Tensor) -> Tensor:
        """Absolute errors [n] of all that lies within the sequences."""
        guess = model(x[:-1][..., inputs], lengths - 1)
        within = torch.arange(len(guess), device=x.device).unsqueeze(1) < lengths - 1
        return (guess - x[1:][..., outputs]).abs()[within]

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(whole("seed", seed, 0, 2**63 - 1))
        model = _Predictor(options, len(inputs), len(outputs))
        every = torch.arange(sides[1].count)
        _learn(model, lambda: error(*sides[1].draw(every, options.batch)).mean(), options)
    with torch.no_grad():
        return error(*sides[0].at(torch.arange(sides[0].count))).double().mean().item()


# ---- parts ------------------------------------------------------------------------------------------


class _Sequences:
    """Checked sequences [T, N, F] and their lengths."""

    def __init__(self, name: str, x: Tensor, lengths: Tensor | None) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            found = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name}: expected a floating-point tensor of sequences, got {found}")
        if x.dim() != 3 or 0 in x.shape:
            raise ValueError(f"{name}: expected shape [T, N, F], got {list(x.shape)}")
        if not bool(x.isfinite().all()):
            raise ValueError(f"{name}: the sequences hold NaN or infinity")
        T, self.count, _ = x.shape
        lengths = torch.full((self.count,), T) if lengths is None else torch.as_tensor(lengths)
        if lengths.shape != (self.count,) or lengths.is_floating_point():
            raise ValueError(
                f"{name}_lengths: expected integers [{self.count}], got {lengths.dtype} {list(lengths.shape)}"
            )
        low, high = (int(end) for end in lengths.aminmax())
        if low < 1 or high > T:
            raise ValueError(f"{name}_lengths: expected values from 1 to {T}, got {low} to {high}")
        self.name, self.x, self.lengths = name, x.detach().float().cpu(), lengths.long().cpu()

    def at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.x[:, index], self.lengths[index]

    def draw(self, index: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        return self.at(index[torch.randint(len(index), (batch,))])


def _check_same_features(real: _Sequences, fake: _Sequences) -> None:
    if real.x.shape[2] != fake.x.shape[2]:
        raise ValueError(
            f"real, fake: expected the same number of features, got {real.x.shape[2]} and {fake.x.shape[2]}"
        )


class _Classifier(nn.Module):
    """[T, N, F], lengths [N] -> logits [N]"""

    def __init__(self, options: PostHoc, features: int) -> None:
        super().__init__()
        self.rnn = options.gru(features)
        self.head = nn.Linear(self.rnn.hidden_size, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.rnn(x, lengths=lengths)[1][-1]).squeeze(1)


class _Predictor(nn.Module):
    """[T, N, inputs], lengths [N] -> [T, N, outputs]"""

    def __init__(self, options: PostHoc, inputs: int, outputs: int) -> None:
        super().__init__()
        self.rnn = options.gru(inputs)
        self.head = nn.Linear(self.rnn.hidden_size, outputs)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.rnn(x, lengths=lengths)[0])


def _learn(model: nn.Module, loss: Callable[[], Tensor], options: PostHoc) -> None:
    optimizer = torch.optim.Adam(model.parameters(), options.lr, fused=True)
    for _ in range(options.steps):
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()
