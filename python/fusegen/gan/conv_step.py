"""The step of convolutional networks without a penalty, in fusegen's kernels: all maps, norms and activations
forward and backward, real and fake samples together, batch norms on each half by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import chain
from .chain import Map, Parameters
from .closed_form import formula_backward, slopes, through_torch
from .layouts import Blocked


@dataclass(frozen=True)
class Step:
    """What a step computes. objective: the loss of the logits of all samples, a scalar."""

    maps: tuple[Map, ...]
    layout: Blocked
    counts: tuple[int, int, int]
    objective: Callable[[Tensor], Tensor]


class _ConvStep(torch.autograd.Function):
    """apply(step, real, fake, *weights, *biases, *norm_weights, *norm_biases).

    Returns loss, logits and the statistics of the norms, the latter two without gradient.
    """

    @staticmethod
    def forward(ctx, step: Step, *tensors):
        p, layout = _parameters(step, tensors), step.layout
        h, before, stats = [layout.join((*tensors[:2], None))], [], []
        for i, m in enumerate(step.maps):
            a = layout.forward(i, h[i], p.weights[i], p.biases[i], m.slope if m.norm is None else 1.0)
            if m.norm is not None:
                before.append(a)
                a, found = layout.batch_norm(m, a, p.norm_weights[i], p.norm_biases[i])
                stats += found
            h.append(a)
        logits = layout.logits(h[-1])
        value, s = slopes(step.objective, logits)
        ctx.step, ctx.sizes = step, (len(tensors), len(before))
        ctx.save_for_backward(*tensors, s, *h[:-1], *before, *stats)
        ctx.mark_non_differentiable(logits, *stats)
        ctx.set_materialize_grads(False)
        return value, logits, *stats

    @staticmethod
    def backward(ctx, grad, *_):
        step, (given, norms), n = ctx.step, ctx.sizes, len(ctx.step.maps)
        saved = ctx.saved_tensors  # once: checkpointing unpacks at each reading
        tensors, (s, *kept) = saved[:given], saved[given:]
        need = list(ctx.needs_input_grad[1:])
        if grad is None or not any(need):
            return (None,) * (1 + given)
        if through_torch(grad):
            return None, *formula_backward(lambda *t: formula(step, *t), tensors, need, grad)
        h, before, stats = kept[:n], kept[n : n + norms], kept[n + norms :]
        p, wanted, layout = _parameters(step, tensors), _parameters(step, need), step.layout
        per_norm = len(stats) // norms if norms else 0
        grads = Parameters(*([None] * n for _ in range(4)))
        lowest = 0 if need[0] or need[1] else min(i for i in range(n) if any(kind[i] for kind in wanted))
        every = [c > 0 for c in step.counts]
        pixels = math.prod(step.maps[-1].outer)  # of a patch of logits
        u = layout.spread(grad * s / pixels, every, s).expand(-1, pixels, -1, -1).contiguous()
        for i in range(n - 1, lowest - 1, -1):
            m = step.maps[i]
            if m.norm is not None:
                below = i > lowest or need[0] or need[1] or wanted.weights[i] or wanted.biases[i]
                of = before.pop(), p.norm_weights[i], [stats.pop() for _ in range(per_norm)][::-1], below
                u, dw, db = layout.batch_norm_backward(m, u, h[i + 1], *of)
                grads.norm_weights[i] = dw if wanted.norm_weights[i] else None
                grads.norm_biases[i] = db if wanted.norm_biases[i] else None
            if wanted.weights[i]:
                grads.weights[i] = layout.weight_gradient(i, u, h[i], p.weights[i])
            if wanted.biases[i]:
                grads.biases[i] = layout.bias_gradient(u)
            if i > lowest:
                # Behind a norm, its own backward applies the slope.
                below = step.maps[i - 1]
                slope = below.slope if below.norm is None else 1.0
                u = layout.input_gradient(i, u, p.weights[i], h[i], slope)
        dx: list[Tensor | None] = [None, None]
        for i in range(2):
            if need[i]:
                part = layout.part(i)
                first = layout.input_gradient(0, u[part], p.weights[0], h[0][part], 1.0)
                dx[i] = layout.leave(first, tensors[i].shape)
        return None, *dx, *(g for kind in grads for g in kind)


def _parameters(step: Step, tensors) -> Parameters:
    """Those of all that ``apply`` is given behind the step."""
    n = len(step.maps)
    return Parameters(*(list(tensors[2 + k * n : 2 + (k + 1) * n]) for k in range(4)))


def formula(step: Step, *tensors: Tensor | None) -> Tensor:
    """The loss in torch's operators, differentiable by every tensor any number of times."""
    halves = [t for t in tensors[:2] if t is not None]
    if all(m.norm is None for m in step.maps):
        halves = [torch.cat(halves)]
    p = _parameters(step, tensors)
    return step.objective(torch.cat([chain.through(step.maps, x, p)[0] for x in halves]))


def run(step: Step, real: Tensor | None, fake: Tensor, p: Parameters) -> tuple[Tensor, Tensor]:
    """The loss and the logits of all samples. Running statistics move as two passes move them, real first."""
    value, logits, *stats = _ConvStep.apply(step, real, fake, *(t for kind in p for t in kind))
    counts = [n for n in step.counts if n]
    norms = [m for m in step.maps if m.norm is not None]
    for k, n in enumerate(counts):
        for i, m in enumerate(norms):
            at = 2 * (i * len(counts) + k)
            _track(m, n, *stats[at : at + 2])
    return value, logits


@torch.no_grad()
def _track(m: Map, n: int, mean: Tensor, var: Tensor) -> None:
    norm, count = m.norm, n * math.prod(m.outer)
    if not norm.track_running_stats or norm.running_mean is None:
        return
    share = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            share = 1 / norm.num_batches_tracked.item()
    # Not lerp_, which would make NaN of an infinite statistic.
    norm.running_mean.mul_(1 - share).add_(mean, alpha=share)
    norm.running_var.mul_(1 - share).add_(var, alpha=share * count / (count - 1))
