"""VAE and ConvVAE: variational autoencoders of vectors and of images."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.types import Device

from .._arguments import choice, number, whole, wholes
from .._modes import like_of
from ._sequences import check_integers, check_range
from .latent import (
    Elbo,
    at_least_float,
    check_latents,
    importance_bound,
    kl_to_standard_normal,
    log_normal,
    posterior_mean_variance,
    reparameterise,
    standard_normal,
)


class _VAE(nn.Module):
    """What the two have in common: an MLP to q(z | x) and one back, around features of the data.

    Subclasses may put layers outside of both: `_features`, data to [N, inner], and `_render`, its mirror.
    """

    def __init__(
        self,
        data_shape: tuple[int, ...],
        inner: int,
        *,
        latent_size: int,
        hidden_sizes: Sequence[int],
        likelihood: str,
        scale: float | None,
        beta: float,
        num_classes: int | None,
        encoder_dropout: float,
        made: dict[str, Any],
    ) -> None:
        super().__init__()
        self.data_shape = data_shape
        self.latent_size = whole("latent_size", latent_size, 1)
        hidden_sizes = wholes("hidden_sizes", hidden_sizes, 1)
        self.likelihood = choice("likelihood", likelihood, ("bernoulli", "gaussian"))
        self.beta = number("beta", beta, 0)
        self.num_classes = None if num_classes is None else whole("num_classes", num_classes, 1)
        self.encoder_dropout = number("encoder_dropout", encoder_dropout, 0, 1, open_above=True)
        if scale is not None:
            if likelihood == "bernoulli":
                raise ValueError(f"scale: expected None for a Bernoulli likelihood, got {scale!r}")
            scale = number("scale", scale, 0, open_below=True)

        classes = self.num_classes or 0
        self.encoder = _mlp(inner + classes, *hidden_sizes, 2 * self.latent_size, made=made)
        self.decoder = _mlp(self.latent_size + classes, *reversed(hidden_sizes), inner, made=made)
        if likelihood == "gaussian":
            log_scale = torch.tensor(1.0 if scale is None else scale, **made).log()
            if scale is None:
                self.log_scale = nn.Parameter(log_scale)
            else:
                self.register_buffer("log_scale", log_scale)

    def _features(self, x: Tensor) -> Tensor:
        return x

    def _render(self, features: Tensor) -> Tensor:
        return features

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x: [N, *data_shape] -> mean and log variance of q(z | x, labels), each [N, latent_size]."""
        self._check("x", x)
        features = F.dropout(self._features(x), self.encoder_dropout, self.training)
        hidden = self._with_labels(features, labels)
        mean, log_variance = self.encoder(hidden).chunk(2, -1)
        return mean, log_variance

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """z: [N, latent_size] -> [N, *data_shape]: logits of p(x | z) if Bernoulli, means if Gaussian."""
        check_latents("z", z, self.latent_size)
        return self._render(self.decoder(self._with_labels(z, labels)))

    def mean(self, outputs: Tensor) -> Tensor:
        """E[x | z] from what `decode` gave: probabilities if Bernoulli, the means themselves if Gaussian."""
        return outputs.sigmoid() if self.likelihood == "bernoulli" else outputs

    def forward(
        self, x: Tensor, labels: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x: [N, *data_shape], labels: int [N] -> (what `decode` makes of one z from q, mean, log variance).

        generator: where z's noise is drawn; None: torch's global random numbers.
        Raises TypeError for x that is not floating-point, ValueError for a wrong shape, for labels with a
        model without classes or none with one that has them, and (on the CPU) for a label out of range.
        """
        mean, log_variance = self.encode(x, labels)
        return self.decode(reparameterise(mean, log_variance, generator), labels), mean, log_variance

    def log_likelihood(self, z: Tensor, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(x | z, labels) of z [N, latent_size] and x [N, *data_shape]: [N], summed over x's elements.

        Raises ValueError (on the CPU) for a Bernoulli likelihood of x outside 0..1.
        """
        self._check("x", x)
        return self._log_likelihood(self.decode(z, labels), x)

    def elbo(
        self, x: Tensor, labels: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Elbo:
        """The terms of the bound, log p(x | z) [N] and KL [N, latent_size], from one z for each x."""
        outputs, mean, log_variance = self(x, labels, generator=generator)
        return Elbo(self._log_likelihood(outputs, x), kl_to_standard_normal(mean, log_variance))

    def loss(
        self,
        x: Tensor,
        labels: Tensor | None = None,
        *,
        beta: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Mean over the batch of -log p(x | z) + beta KL(q(z | x) || N(0, I)): nats per example, a scalar.

        beta: None for the model's own; 1 gives the negative ELBO. x, labels, generator: as in `forward`.
        """
        beta = self.beta if beta is None else number("beta", beta, 0)
        terms = self.elbo(x, labels, generator=generator)
        return (beta * terms.kl.sum(-1) - terms.log_likelihood).mean()

    def iwae(
        self,
        x: Tensor,
        k: int,
        labels: Tensor | None = None,
        *,
        chunk: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The importance-weighted bound on log p(x), [N], in nats (Burda et al. 2016, arXiv:1509.00519).

        k: samples of z for each x; chunk: how many are decoded at a time, None for all. Differentiable: minus
        its mean is the IWAE's loss. To measure with k in the thousands, call it under torch.no_grad().
        """
        k = whole("k", k, 1)
        chunk = None if chunk is None else whole("chunk", chunk, 1)
        mean, log_variance = self.encode(x, labels)

        def log_likelihood(z: Tensor) -> Tensor:
            c = len(z)
            repeated = None if labels is None else labels.repeat(c)
            each = x.expand(c, *x.shape).flatten(0, 1)
            return self._log_likelihood(self.decode(z.flatten(0, 1), repeated), each).view(c, -1)

        return importance_bound(log_likelihood, mean, log_variance, k, chunk, generator)

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """E[x | z] for n draws of z from N(0, I): [n, *data_shape], without gradients.

        labels: int [n], for a model with classes. The likelihood's own noise is not added.
        """
        like = like_of(self.decoder)
        z = standard_normal((whole("n", n, 0), self.latent_size), like, generator)
        return self.mean(self.decode(z, labels))

    @torch.no_grad()
    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """E[x | z] at the posterior's mean: [N, *data_shape], without gradients."""
        return self.mean(self.decode(self.encode(x, labels)[0], labels))

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, steps: int, labels: Tensor | None = None) -> Tensor:
        """E[x | z] along the straight line from a's posterior mean to b's: [steps, N, *data_shape].

        a, b: [N, *data_shape], both of `labels`. steps: 2 or more; the first is `reconstruct(a)`, the last
        `reconstruct(b)`. Without gradients.
        """
        steps = whole("steps", steps, 2)
        self._check("a", a)
        self._check("b", b)
        if len(a) != len(b):
            raise ValueError(f"b: expected as many as a, {len(a)}, got {len(b)}")
        start, stop = self.encode(a, labels)[0], self.encode(b, labels)[0]
        way = torch.linspace(0, 1, steps, device=start.device, dtype=start.dtype).tolist()
        return torch.stack([self.mean(self.decode(start.lerp(stop, w), labels)) for w in way])

    @torch.no_grad()
    def posterior_mean_variance(self, loader: Iterable[Any]) -> Tensor:
        """Var over the data of E[z | x]: float64 [latent_size], which `active_units` holds to a threshold.

        loader: batches x or (x, labels); labels are ignored by a model without classes.
        """

        def means() -> Iterator[Tensor]:
            for batch in loader:
                x, *labels = batch if isinstance(batch, tuple | list) else (batch,)
                yield self.encode(x, labels[0] if labels and self.num_classes else None)[0]

        return posterior_mean_variance(means())

    def active_units(self, loader: Iterable[Any], threshold: float = 0.01) -> int:
        """How many dimensions of z are used: those with Var_x E[z | x] above `threshold` (Burda et al. 2016).

        loader: batches x or (x, labels), read once. Raises ValueError if it is empty.
        """
        threshold = number("threshold", threshold, 0)
        return int((self.posterior_mean_variance(loader) > threshold).sum())

    def _log_likelihood(self, outputs: Tensor, x: Tensor) -> Tensor:
        outputs = at_least_float(outputs)
        x = x.to(outputs.dtype)
        if self.likelihood == "gaussian":
            each = log_normal(x, outputs, 2 * at_least_float(self.log_scale))
        else:
            _check_unit(x)
            each = -F.binary_cross_entropy_with_logits(outputs, x, reduction="none")
        return each.flatten(1).sum(1)

    def _with_labels(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """features [N, F] beside one-hot labels, [N, F + num_classes]; alone in a model without classes."""
        if self.num_classes is None:
            if labels is not None:
                raise ValueError("labels: expected None for a model without num_classes, got labels")
            return features
        n = len(features)
        if labels is None:
            raise ValueError(f"labels: expected integers [{n}] for a model with num_classes, got None")
        check_integers("labels", labels)
        if labels.shape != (n,):
            raise ValueError(f"labels: expected shape [{n}], got {list(labels.shape)}")
        check_range("labels", labels, self.num_classes)
        rows = F.one_hot(labels.long(), self.num_classes)
        return torch.cat([features, rows.to(features)], 1)

    def _check(self, name: str, x: object) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name}: expected a floating-point tensor, got {got}")
        if x.shape[1:] != self.data_shape:
            expected = ", ".join(map(str, ("N", *self.data_shape)))
            raise ValueError(f"{name}: expected shape [{expected}], got {list(x.shape)}")


class VAE(_VAE):
    """A variational autoencoder of vectors (Kingma and Welling 2014, arXiv:1312.6114).

    784 -> 256 -> z -> 256 -> 784 by default, with ReLU. p(z) is N(0, I), q(z | x) a diagonal Gaussian.

    data_size, latent_size: elements of x and of z. hidden_sizes: of the encoder's hidden layers, the
    decoder's in reverse; () makes both linear. likelihood: "bernoulli", for x in 0..1, or "gaussian".
    scale: the Gaussian's standard deviation; None learns one for all elements
    (Rybkin et al. 2021, arXiv:2006.13202). beta: the KL's weight in `loss` (Higgins et al. 2017).
    num_classes: if given, encoder and decoder also read a label (Sohn et al. 2015), and every method asks
    for `labels`, integers [N] from 0 to num_classes - 1. encoder_dropout: the share of x (of a ConvVAE the
    features) that is hidden from the dense encoder in training: an encoder that denoises fits the held-out
    better (Im et al. 2017, arXiv:1511.06406). device, dtype: of the parameters, as in torch.nn.

    State-dict keys: `encoder.*` (ending in mean and log variance), `decoder.*`, `log_scale` if Gaussian.
    Everything is in nats. Raises TypeError or ValueError, naming the argument, for a wrong option.
    """

    def __init__(
        self,
        data_size: int = 784,
        latent_size: int = 20,
        hidden_sizes: Sequence[int] = (256,),
        *,
        likelihood: str = "bernoulli",
        scale: float | None = None,
        beta: float = 1.0,
        num_classes: int | None = None,
        encoder_dropout: float = 0.0,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        data_size = whole("data_size", data_size, 1)
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(
            (data_size,),
            data_size,
            latent_size=latent_size,
            hidden_sizes=hidden_sizes,
            likelihood=likelihood,
            scale=scale,
            beta=beta,
            num_classes=num_classes,
            encoder_dropout=encoder_dropout,
            made=made,
        )


class ConvVAE(_VAE):
    """A variational autoencoder of images [N, C, h, w]: convolutions outside, the VAE's layers inside.

    image_size: C, h, w. channels: of the convolutions, each of which halves height and width (4 x 4, stride
    2, ReLU; odd sizes are rounded down); transposed ones mirror them to exactly h x w. Labels join at the
    dense layers. latent_size, hidden_sizes, likelihood, scale, beta, num_classes, encoder_dropout, device,
    dtype, methods and errors: as in `VAE`.

    State-dict keys: `VAE`'s, with `convolutions.*` and `transposed.*`.

    Source: Kingma and Welling 2014 (arXiv:1312.6114), with convolutions as encoder and decoder.
    """

    def __init__(
        self,
        image_size: Sequence[int] = (1, 28, 28),
        latent_size: int = 20,
        channels: Sequence[int] = (32, 64),
        hidden_sizes: Sequence[int] = (256,),
        *,
        likelihood: str = "bernoulli",
        scale: float | None = None,
        beta: float = 1.0,
        num_classes: int | None = None,
        encoder_dropout: float = 0.0,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        image_size, channels = wholes("image_size", image_size, 1), wholes("channels", channels, 1)
        if len(image_size) != 3:
            raise ValueError(f"image_size: expected three integers C, h, w, got {image_size}")
        if not channels:
            raise ValueError("channels: expected at least one integer, got none")
        least = 2 ** len(channels)
        if min(image_size[1:]) < least:
            raise ValueError(
                f"image_size: expected h and w of at least {least}, to be halved {len(channels)} times, "
                f"got {image_size}"
            )
        sizes = [(h >> i, w >> i) for h, w in [image_size[1:]] for i in range(len(channels) + 1)]
        inner_shape = (channels[-1], *sizes[-1])
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(
            image_size,
            inner_shape[0] * inner_shape[1] * inner_shape[2],
            latent_size=latent_size,
            hidden_sizes=hidden_sizes,
            likelihood=likelihood,
            scale=scale,
            beta=beta,
            num_classes=num_classes,
            encoder_dropout=encoder_dropout,
            made=made,
        )
        self.convolutions, self.transposed = nn.Sequential(), nn.Sequential(nn.ReLU())
        self.transposed.append(nn.Unflatten(1, inner_shape))
        widths = (image_size[0], *channels)
        for i in range(len(channels)):
            self.convolutions.append(nn.Conv2d(widths[i], widths[i + 1], 4, 2, 1, **made)).append(nn.ReLU())
        for i in reversed(range(len(channels))):
            odd = (sizes[i][0] % 2, sizes[i][1] % 2)
            self.transposed.append(
                nn.ConvTranspose2d(widths[i + 1], widths[i], 4, 2, 1, output_padding=odd, **made)
            )
            if i:
                self.transposed.append(nn.ReLU())

    def _features(self, x: Tensor) -> Tensor:
        return self.convolutions(x).flatten(1)

    def _render(self, features: Tensor) -> Tensor:
        return self.transposed(features)


def _mlp(*sizes: int, made: dict[str, Any]) -> nn.Sequential:
    """Linear layers with ReLU between."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after, **made), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _check_unit(x: Tensor) -> None:
    if x.device.type == "cpu" and x.numel() and not torch.compiler.is_compiling():
        low, high = (end.item() for end in x.detach().aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"x: expected values from 0 to 1 for a Bernoulli likelihood, got {low:g} to {high:g}"
            )
