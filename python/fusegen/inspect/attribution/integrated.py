"""Integrated gradients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ... import _arguments
from .scores import Model, Question, Target, in_evaluation

_WHAT = "fusegen.inspect.integrated_gradients"


class Integrated(NamedTuple):
    """values: of the shape of what was read; change [B]: the score less that of the baseline; gap [B]: how
    far the sum of a sample's values is from that, relative to it (completeness).

    values have the dtype of what was read, a floating one.
    """

    values: Tensor
    change: Tensor
    gap: Tensor


def integrated_gradients(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    baseline: Tensor | float = 0.0,
    steps: int = 64,
    batch_dim: int = 1,
    at: nn.Module | str | None = None,
    with_captum: bool | None = None,
) -> Integrated:
    """The gradient's mean on the straight way from a baseline to what was read, times the way (Sundararajan
    et al. 2017, arXiv:1703.01365, equation 1), in evaluation mode and through the fused kernels.

    The mean is taken by Gauss and Legendre's rule with ``steps`` points, which is captum's default.

    Args:
        model: as of ``gradients``.
        x: of a floating dtype, time-major [T, B, ...] unless batch_dim says otherwise; of tokens, integers.
        target: as of ``gradients``.
        baseline: what stands for nothing: a number, or a tensor that broadcasts to what is read.
        steps: how often the model runs forward and backward; 1 or more.
        batch_dim: as of ``gradients``.
        at: as of ``gradients``.
        with_captum: whether captum computes it (``captum.attr.IntegratedGradients``); None: where it is
            installed. The values are the same to rounding.

    Returns ``Integrated``. Raises TypeError or ValueError, which name the argument; ImportError for
    with_captum=True without captum.
    """
    question = Question(_WHAT, model, x, target, batch_dim=batch_dim, at=at)
    steps = _arguments.whole(f"{_WHAT}: steps", steps, 1)
    captum = _captum() if with_captum is None or with_captum else None
    if with_captum and captum is None:
        raise ImportError(f"{_WHAT}: with_captum=True needs captum: pip install captum")
    with in_evaluation(model), torch.enable_grad():
        value = question.read()
        base = torch.as_tensor(baseline, dtype=value.dtype, device=value.device).expand_as(value)
        run = _own if captum is None else captum
        values = run(question, value, base, steps)
        with torch.no_grad():
            change = question.score(value) - question.score(base)
    sums = values.double().movedim(batch_dim, 0).flatten(1).sum(1)
    gap = (sums - change.double()).abs() / change.double().abs().clamp(min=torch.finfo(value.dtype).tiny)
    return Integrated(values, change, gap)


def _own(question: Question, value: Tensor, base: Tensor, steps: int) -> Tensor:
    points, weights = np.polynomial.legendre.leggauss(steps)  # of -1..1
    mean = torch.zeros_like(value, dtype=torch.float64)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        now = (base + float(point) * (value - base)).requires_grad_()
        (got,) = torch.autograd.grad(question.score(now).sum(), now)
        mean += float(weight) * got.double()
    return (mean * (value.double() - base.double())).to(value.dtype)


def _captum():  # type: ignore[no-untyped-def]
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        return None

    def run(question: Question, value: Tensor, base: Tensor, steps: int) -> Tensor:
        """captum takes the batch in front, and as many points at once as make a batch: one."""
        dim = question.batch_dim

        def forward(given: Tensor) -> Tensor:
            return question.score(given.movedim(0, dim))

        got: Tensor = IntegratedGradients(forward).attribute(
            value.movedim(dim, 0), base.movedim(dim, 0), n_steps=steps, internal_batch_size=question.batch,
        )  # fmt: skip
        return got.movedim(0, dim)

    return run
