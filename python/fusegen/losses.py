"""GAN losses of logits in plain torch, and their sources; csrc/kernels/losses.h holds the same per logit.

With r and f the logits of real and fake samples, discriminator / generator:

- non_saturating, minimax: mean softplus(-r) + mean softplus(f) / mean softplus(-f) and -mean softplus(f)
  (Goodfellow et al. 2014, arXiv:1406.2661)
- hinge: mean relu(1 - r) + mean relu(1 + f) / -mean f (Lim and Ye 2017, arXiv:1705.02894)
- least_squares: 1/2 mean (r - 1)^2 + 1/2 mean f^2 / 1/2 mean (f - 1)^2 (Mao et al. 2017, arXiv:1611.04076)
- wasserstein: mean f - mean r / -mean f (Arjovsky et al. 2017, arXiv:1701.07875)
- relativistic: mean softplus(-(r - f)) / mean softplus(-(f - r)), in pairs (Jolicoeur-Martineau 2018,
  arXiv:1807.00734)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LOSSES = ("non_saturating", "minimax", "hinge", "least_squares", "wasserstein", "relativistic")
"""The names of the losses, which ``discriminator_loss``, ``generator_loss`` and every step take."""
SMOOTHED = ("non_saturating", "minimax")
"""The losses of ``LOSSES`` that take label smoothing."""


def check_loss(loss: str, label_smoothing: float = 0.0) -> None:
    """Raises TypeError for smoothing that is no number, ValueError for smoothing outside [0, 1) or of a loss
    without targets, or an unknown loss."""
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}")
    if isinstance(label_smoothing, bool) or not isinstance(label_smoothing, (int, float)):
        raise TypeError(f"label_smoothing: expected a number, got {type(label_smoothing).__name__}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing: expected a number in [0, 1), got {label_smoothing!r}")
    if label_smoothing and loss not in SMOOTHED:
        raise ValueError(
            f"label_smoothing: only {' and '.join(SMOOTHED)} have targets to smooth, got loss={loss!r}"
        )


def discriminator_loss(loss: str, r: Tensor, f: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The discriminator's loss of logits r [Nr] and f [Nf], a scalar; the target of real samples is 1 less
    ``label_smoothing``. Raises ValueError for unknown names, or a relativistic loss of unequal sizes.

    loss: one of ``LOSSES``, whose papers and formulas are in ``fusegen.losses``, from Goodfellow et al.
    2014 on. Of the logits' dtype, any floating one.
    """
    check_loss(loss, label_smoothing)
    if loss in SMOOTHED:  # cross entropy with the target
        real = F.softplus(-r)
        if label_smoothing:
            real = real + label_smoothing * r
        return real.mean() + F.softplus(f).mean()
    if loss == "hinge":
        return torch.relu(1 - r).mean() + torch.relu(1 + f).mean()
    if loss == "least_squares":
        return ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2
    if loss == "wasserstein":
        return f.mean() - r.mean()
    return F.softplus(-_difference(r, f)).mean()


def generator_loss(loss: str, f: Tensor, r: Tensor | None = None) -> Tensor:
    """The generator's loss of logits f [Nf], a scalar; the relativistic one needs the real samples' r [Nf].
    Raises ValueError for unknown names, or where r is missing or of another size.

    loss: one of ``LOSSES``, whose papers and formulas are in ``fusegen.losses``, from Goodfellow et al.
    2014 on. Of the logits' dtype, any floating one.
    """
    check_loss(loss)
    if loss == "non_saturating":
        return F.softplus(-f).mean()
    if loss == "minimax":
        return -F.softplus(f).mean()
    if loss == "least_squares":
        return ((f - 1) ** 2).mean() / 2
    if loss == "relativistic":
        if r is None:
            raise ValueError("real: the relativistic loss pairs fake samples with real ones, got None")
        return F.softplus(-_difference(f, r)).mean()
    return -f.mean()


def _difference(a: Tensor, b: Tensor) -> Tensor:
    if a.shape != b.shape:
        raise ValueError(
            f"real, fake: expected equal sizes for the relativistic loss, got {a.shape[0]} and {b.shape[0]}"
        )
    return a - b
