"""The gradient of an answer by what was read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .scores import Model, Question, Target, in_evaluation


def gradients(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    batch_dim: int = 1,
    at: nn.Module | str | None = None,
    times_input: bool = False,
) -> Tensor:
    """The gradient of each sample's score by each step and feature that the model read (Simonyan et al. 2014,
    arXiv:1312.6034), in evaluation mode and through the fused kernels.

    Args:
        model: a Module (evaluated, and put back in its mode) or a function of x.
        x: what it reads, time-major [T, B, I] by default, of any floating dtype; or tokens, with ``at``.
        target: whose score: a class (int, or integers [B]) of an output [B, classes], or a function of the
            output that gives [B]. Of a tuple that is no function's the first entry is the output.
        batch_dim: the dim of x that is the batch.
        at: the module (or its name) by whose output the gradient is taken: an embedding, for tokens.
        times_input: the gradient times what was read, an attribution whose sum over all is the score of a
            linear model (Ancona et al. 2018, arXiv:1711.06104).

    Returns a tensor of the shape and dtype of x, or of what ``at`` gives; sum over features gives a value a
    step. Parameters get no gradient. Raises TypeError or ValueError, which name the argument.
    """
    question = Question("fusegen.inspect.gradients", model, x, target, batch_dim=batch_dim, at=at)
    with in_evaluation(model), torch.enable_grad():
        value = question.read().requires_grad_()
        scores = question.score(value)
        (got,) = torch.autograd.grad(scores.sum(), value)
    return got * value.detach() if times_input else got
