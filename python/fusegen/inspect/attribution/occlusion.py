"""What an answer loses when steps are taken away."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _arguments
from .scores import Model, Question, Target, in_evaluation


def occlusion(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    window: int = 1,
    stride: int | None = None,
    baseline: Tensor | float = 0.0,
    batch_dim: int = 1,
    time_dim: int = 0,
) -> Tensor:
    """How much each sample's score falls when some of its steps are replaced by a baseline (Zeiler and Fergus
    2014, arXiv:1311.2901, there of patches of pictures), in evaluation mode.

    Args:
        model: as of ``gradients``.
        x: what the model reads, of any dtype: tokens too, whose baseline is a token.
        target: as of ``gradients``.
        window: how many steps are replaced at a time.
        stride: from one window to the next; the window if None. The last window may be shorter.
        baseline: a number, or a tensor that broadcasts to a window of x.
        time_dim: the dim of x that is time.
        batch_dim: as of ``gradients``.

    Returns [windows, B]: the score less that without the steps w * stride to w * stride + window. The model
    runs once a window, and once. Raises TypeError or ValueError, which name the argument.
    """
    what = "fusegen.inspect.occlusion"
    question = Question(what, model, x, target, batch_dim=batch_dim, at=None, differentiates=False)
    if not 0 <= time_dim < x.dim() or time_dim == batch_dim:
        raise ValueError(f"{what}: expected time_dim in 0..{x.dim() - 1}, not batch_dim, got {time_dim}")
    window = _arguments.whole(f"{what}: window", window, 1, x.shape[time_dim])
    stride = window if stride is None else _arguments.whole(f"{what}: stride", stride, 1)
    found = []
    with in_evaluation(model), torch.no_grad():
        whole = question.of_input(x)
        for begin in range(0, x.shape[time_dim], stride):
            without = x.clone()
            part = without.narrow(time_dim, begin, min(window, x.shape[time_dim] - begin))
            part.copy_(torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(part))
            found.append(whole - question.of_input(without))
    return torch.stack(found)
