"""What the GANs share: noise, labels, the moving average of the generator, sampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ... import _backend
from ..._arguments import check_floats, number, whole
from ..._modes import Average, evaluating, like_of
from ...gan.blocks import HeldLabels
from ._checks import Integers, check_not_empty, integers, source_device


class GAN(nn.Module):
    """A generator and a discriminator, and what a training step and a user need from them.

    generator: noise (and labels) to samples. discriminator: what ``critic_input`` makes of samples (and
    labels), to logits [N]. They hold all parameters; optimisers take ``model.generator.parameters()`` and
    ``model.discriminator.parameters()``.

    num_classes: 0 for a model without labels; else labels are integers below it, one for all samples, a
    sequence or a tensor [N], and enter both networks as one-hot vectors (Mirza and Osindero 2014,
    arXiv:1411.1784). ema: 0 for none; else the decay of the generator's moving average, parameters and
    buffers, which ``sample`` then draws from.

    State-dict keys: ``generator.*``, ``discriminator.*`` and, with ema, ``average.module.*`` and
    ``average.n_averaged``.

    noise_size: length of the noise, at least 1. Floating dtypes. Raises TypeError or ValueError, naming the
    argument; a subclass that lacks a method raises NotImplementedError. Source: Goodfellow et al. 2014
    (arXiv:1406.2661).
    """

    sample_dim = 0  # along which samples lie in a batch
    generator: nn.Module
    discriminator: nn.Module

    def __init__(self, noise_size: int, num_classes: int, ema: float) -> None:
        super().__init__()
        self.noise_size = whole("noise_size", noise_size, 1)
        self.num_classes = whole("num_classes", num_classes, 0)
        if self.num_classes == 1:
            raise ValueError("num_classes: expected 0 (no labels) or at least 2, got 1")
        self.ema = number("ema", ema, 0, 1, open_above=True)

    def _finish(self, spectral_norm: bool) -> None:
        """To be called last by a subclass's constructor: normalises the discriminator, starts the average."""
        if not isinstance(spectral_norm, bool):
            raise TypeError(f"spectral_norm: expected a bool, got {type(spectral_norm).__name__}")
        if spectral_norm:
            add_spectral_norm(self.discriminator)
        self.average = None
        if self.ema:
            self.average = torch.optim.swa_utils.AveragedModel(
                self.generator, multi_avg_fn=Average(self.ema), use_buffers=True
            ).requires_grad_(False)

    # ---- what a training step asks for --------------------------------------------------------------

    def noise(
        self, n: int, *, truncation: float | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Standard normal noise [n, noise_size]; with ``truncation`` t, values beyond ±t are drawn again
        (Brock et al. 2019, arXiv:1809.11096, section 3.1): closer to the usual, less varied."""
        return self._normal((whole("n", n, 1), self.noise_size), truncation, generator)

    def generate(self, noise: Tensor, labels: Integers = None) -> Tensor:
        """Samples of ``noise`` [N, noise_size] and ``labels`` [N], with gradient to the generator."""
        self._check_noise(noise, "N")
        return self.generator(self._with_labels(noise, labels))

    def fakes(
        self,
        like: Tensor,
        labels: Integers = None,
        lengths: Integers = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """As many samples as ``like`` holds, of the same labels (and lengths), with gradient. ``like`` is
        what ``critic_input`` gives; under autocast the samples, which come out lower, are of its dtype."""
        _no_lengths(lengths)
        noise = self.noise(like.shape[self.sample_dim], generator=generator)
        return cast_as(self.generate(noise, labels), like)

    def critic_input(self, samples: Tensor, labels: Integers = None, lengths: Integers = None) -> Tensor:
        """What the discriminator takes: the samples, and their labels (and lengths) beside them.

        Raises TypeError or ValueError for samples that do not fit the model.
        """
        raise NotImplementedError

    def critic(self, penalised: bool) -> nn.Module:
        """The discriminator to give to ``discriminator_step``. ``penalised``: a penalty's input gradient is
        that of the samples alone; the labels' part of the input is held constant."""
        return self.discriminator

    @torch.no_grad()
    def update_average(self) -> None:
        """Moves the average towards the generator; does nothing without one."""
        if self.average is not None:
            self.average.update_parameters(self.generator)

    # ---- what a user asks for -----------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        labels: Integers = None,
        truncation: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n samples of the averaged generator (the generator itself where there is no average).

        labels: one class for all, or a class each [n]; None draws them evenly, for a model with classes.
        truncation: see ``noise``. generator: of all randomness, so that a seed gives the same samples again.
        BatchNorm runs on its running statistics, training flags are as before afterwards. Raises TypeError
        or ValueError, naming the argument.
        """
        n = whole("n", n, 1)
        labels = self._labels(n, labels, generator)
        return self.sample_of(self.noise(n, truncation=truncation, generator=generator), labels)

    @torch.no_grad()
    def sample_of(
        self, noise: Tensor, labels: Integers = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """What ``sample`` makes of this noise [N, noise_size] and these labels [N]; generator: of what else
        is drawn on the way, which here is nothing. Errors as of ``generate``."""
        self._check_noise(noise, "N")
        with evaluating(self.drawn_from) as net:
            return net(self._with_labels(noise, labels))

    @property
    def drawn_from(self) -> nn.Module:
        """The network that ``sample`` runs."""
        return self.generator if self.average is None else self.average.module

    # ---- parts --------------------------------------------------------------------------------------

    @property
    def _like(self) -> Tensor:
        """A tensor of the device and dtype of this model."""
        return like_of(self.generator)

    def _normal(
        self, shape: tuple[int, ...], truncation: float | None, generator: torch.Generator | None
    ) -> Tensor:
        like = self._like
        device = source_device(generator, like)
        z = torch.empty(shape, device=device, dtype=torch.float32)
        if truncation is None:
            z.normal_(generator=generator)
        else:
            t = number("truncation", truncation, 0, open_below=True)
            nn.init.trunc_normal_(z, 0.0, 1.0, -t, t, generator=generator)
        return z.to(like.device, like.dtype)

    def _labels(self, n: int, labels: Integers, generator: torch.Generator | None) -> Tensor | None:
        """int64 [n] on the model's device, or None for a model without classes."""
        if labels is None and self.num_classes:
            at = source_device(generator, self._like)
            labels = torch.randint(self.num_classes, (n,), generator=generator, device=at)
        labels = self.checked_labels(labels, n)
        return None if labels is None else labels.to(self._like.device)

    def checked_labels(self, labels: Integers, n: int) -> Tensor | None:
        """Labels as int64 [n]. Raises TypeError or ValueError where they do not fit the model or n."""
        if labels is None:
            if self.num_classes:
                raise ValueError(f"labels: this model has {self.num_classes} classes, got None")
            return None
        if not self.num_classes:
            raise ValueError("labels: this model has no classes (num_classes=0), got labels")
        return integers("labels", labels, n, 0, self.num_classes - 1)

    def _check_noise(self, noise: Tensor, *dims: str) -> None:
        check_floats("noise", noise)
        *sizes, last = noise.shape if noise.dim() else (0,)
        if len(sizes) != len(dims) or 0 in sizes or last != self.noise_size:
            raise ValueError(
                f"noise: expected shape [{', '.join(dims)}, {self.noise_size}], none of them 0, "
                f"got {list(noise.shape)}"
            )

    def _one_hot(self, labels: Tensor, like: Tensor) -> Tensor:
        """[N, num_classes]"""
        return F.one_hot(labels, self.num_classes).to(like.device, like.dtype)

    def _with_labels(self, noise: Tensor, labels: Integers) -> Tensor:
        labels = self.checked_labels(labels, noise.shape[0])
        return noise if labels is None else torch.cat((noise, self._one_hot(labels, noise)), 1)


class ImageGAN(GAN):
    """What a GAN of samples [N, *shape] adds: labels joined along dim 1."""

    shape: tuple[int, ...]
    _own_width: int  # of a sample without its label, along dim 1 of the discriminator's input

    def _joined(self, samples: Tensor, labels: Tensor) -> Tensor:
        """Samples and labels int64 [N] along dim 1."""
        raise NotImplementedError

    def critic_input(self, samples: Tensor, labels: Integers = None, lengths: Integers = None) -> Tensor:
        """samples [N, *shape] as they are, or with the one-hot vectors of labels [N] behind them."""
        _no_lengths(lengths)
        check_floats("samples", samples)
        if samples.dim() == 0 or tuple(samples.shape[1:]) != self.shape:
            raise ValueError(
                f"samples: expected shape [N, {', '.join(map(str, self.shape))}], got {list(samples.shape)}"
            )
        check_not_empty(samples)
        labels = self.checked_labels(labels, samples.shape[0])
        return samples if labels is None else self._joined(samples, labels)

    def critic(self, penalised: bool) -> nn.Module:
        """As in ``GAN``: with classes and a penalty, the discriminator within ``HeldLabels``."""
        held = penalised and self.num_classes
        return HeldLabels(self.discriminator, self._own_width) if held else self.discriminator


def cast_as(fake: Tensor, like: Tensor) -> Tensor:
    """Fake samples in the dtype of real ones under autocast. Without it, a difference is the caller's mistake
    and stays to be reported."""
    return fake if _backend.autocast_dtype(fake) is None else fake.to(like.dtype)


def _no_lengths(lengths: object) -> None:
    if lengths is not None:
        raise ValueError("lengths: only sequences have them, this model makes samples of one shape")


def add_spectral_norm(D: nn.Module) -> None:
    """Spectral norm (Miyato et al. 2018, arXiv:1802.05957) on every weight matrix of D, in place.

    One power iteration a forward pass in training mode. Of recurrent layers, input and recurrent weights
    each.
    """
    for m in list(D.modules()):
        if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d):
            parametrizations.spectral_norm(m, "weight")
        elif isinstance(m, nn.RNNBase):
            for name in [n for n, _ in m.named_parameters(recurse=False) if n.startswith("weight")]:
                parametrizations.spectral_norm(m, name)
