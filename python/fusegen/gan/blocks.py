"""Parts of discriminators that torch.nn has no module for, and whose step is known in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._arguments import whole

EPS = 1e-8  # under the root of a deviation, as in StyleGAN2


class Residual(nn.Module):
    """shortcut(x) + body(x) (He et al. 2016, arXiv:1512.03385).

    body and shortcut: modules that give the same shape; shortcut None is the identity, of which body keeps
    the shape. As an nn.Module of one's own that writes ``x + self.body(x)`` in its forward, but a step can
    read what it is. Raises TypeError for what is no module, ValueError where the two give other shapes.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        for name, part in (("body", body), ("shortcut", shortcut)):
            if not isinstance(part, nn.Module) and (part is not None or name == "body"):
                raise TypeError(f"{name}: expected an nn.Module, got {type(part).__name__}")
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, ...], what body takes -> shortcut(x) + body(x), of body's shape."""
        way = x if self.shortcut is None else self.shortcut(x)
        return added(way, self.body(x))


def added(way: Tensor, body: Tensor) -> Tensor:
    """Raises ValueError where they are of other shapes, which torch would broadcast."""
    if way.shape != body.shape:
        raise ValueError(
            f"body: expected what the shortcut gives, shape {list(way.shape)}, got {list(body.shape)}"
        )
    return way + body


class MinibatchStd(nn.Module):
    """Minibatch standard deviation (Karras et al. 2018, arXiv:1710.10196, section 3; groups as in StyleGAN2).

    x [N, C, *spatial] -> [N, C + channels, *spatial]: the batch falls into groups of ``group`` samples
    (sample i and i + N / group, and so on, belong together; the whole batch where it is smaller), the C
    channels into ``channels`` parts; each part's standard deviation over the group, sqrt(variance + 1e-8),
    averaged over the part's channels and places, is a channel more. In a discriminator's step each of the
    halves is a batch of its own, as in two passes, and so are WGAN-GP's interpolates.

    Raises TypeError or ValueError for options that are no numbers from 1 on, ValueError for x that the groups
    or the parts do not divide.
    """

    def __init__(self, group: int = 4, channels: int = 1) -> None:
        super().__init__()
        self.group, self.channels = whole("group", group, 1), whole("channels", channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, C, ...] -> [N, C + channels, ...], the statistics behind the features."""
        parts = self.parts(x)
        deviation = (parts.var(0, correction=0) + EPS).sqrt()
        return self.joined(x, deviation.mean(2))

    def parts(self, x: Tensor) -> Tensor:
        """[N, C, *spatial] as [group, groups, channels, rest]. Raises ValueError."""
        if x.dim() < 2:
            raise ValueError(f"x: expected [N, C, ...], got shape {list(x.shape)}")
        N, C = x.shape[:2]
        size = max(min(self.group, N), 1)
        if N % size:
            raise ValueError(
                f"group: expected a divisor of the number of samples, {N}, got {self.group} (each half of a "
                "step is a batch of its own)"
            )
        if C % self.channels:
            raise ValueError(f"channels: expected a divisor of x's {C}, got {self.channels}")
        return x.reshape(size, N // size, self.channels, -1)

    def joined(self, x: Tensor, statistics: Tensor) -> Tensor:
        """x with the groups' statistics [groups, channels] as channels more."""
        spatial = x.shape[2:]
        rows = statistics.repeat(x.shape[0] // len(statistics), 1)
        return torch.cat((x, rows.view(*rows.shape, *[1] * len(spatial)).expand(-1, -1, *spatial)), 1)

    def extra_repr(self) -> str:
        return f"group={self.group}, channels={self.channels}"


class Projection(nn.Module):
    """A discriminator that projects its features onto a class (Miyato and Koyama 2018, arXiv:1802.05637):
    linear(h) + <embedding(labels), h>, h = body(x) [N, features] (of maps [N, features, ...] the sum over
    places, as in the paper).

    A step gives it labels: ``discriminator_step(D, real, fake, labels=...)``. Raises TypeError or ValueError
    for options, ValueError for a body of other features or labels that do not fit, None among them.

    features: of what body gives. num_classes: how many labels there are.
    """

    def __init__(self, body: nn.Module, features: int, num_classes: int) -> None:
        super().__init__()
        if not isinstance(body, nn.Module):
            raise TypeError(f"body: expected an nn.Module, got {type(body).__name__}")
        self.body = body
        self.linear = nn.Linear(whole("features", features, 1), 1)
        self.embedding = nn.Embedding(whole("num_classes", num_classes, 2), features)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x: what body takes, labels: int64 [N] -> [N, 1]"""
        if labels is None:
            raise ValueError("labels: D projects onto classes and needs those of its samples, got None")
        h = self.pooled(self.body(x))
        own: Tensor = self.embedding(labels)
        z: Tensor = self.linear(h)
        return z + (own * h).sum(1, keepdim=True)

    def pooled(self, h: Tensor) -> Tensor:
        """[N, features]. Raises ValueError for another number of features."""
        if h.dim() < 2 or h.shape[1] != self.linear.in_features:
            raise ValueError(
                f"body: expected {self.linear.in_features} features a sample, got shape {list(h.shape)}"
            )
        return h.flatten(2).sum(2) if h.dim() > 2 else h


class HeldLabels(nn.Module):
    """D of [samples, labels] joined along dim 1, of which only the first ``width`` count in the gradient by
    the input: a gradient penalty is about moving a sample, and a one-hot label does not move.

    A step reads it as D and leaves the rest of dim 1 out of ||grad D||, of the noise of an approximate
    penalty too.

    D: a network whose forward takes one tensor. width: how many features along dim 1 count, at least 1.
    Raises TypeError or ValueError, naming the argument. The labels are those of Mirza and Osindero 2014
    (arXiv:1411.1784).
    """

    sample_dim = 0
    condition_dim = 1

    def __init__(self, D: nn.Module, width: int) -> None:
        super().__init__()
        self.D, self.width = D, whole("width", width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, width + labels, ...], the samples first -> D's logits."""
        z: Tensor = self.D(self.hold(x))
        return z

    def hold(self, x: Tensor) -> Tensor:
        """x, its labels without gradient."""
        return torch.cat((x[:, : self.width], x[:, self.width :].detach()), 1)
