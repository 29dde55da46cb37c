"""The step with penalties for convolutional networks: the closed form of ``ops.discriminator``.

It holds for any chain of linear maps (dense, convolution) and piecewise linear activations with one logit or
patch of logits a sample: the adjoints of one logit and the tangents of the input gradient take the place of a
second backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _backend, losses
from ..ops._common import batched, transformed
from . import chain
from .autograd_path import gradient_penalty_norms
from .chain import Map
from .layouts import Blocked, SamplesFirst, masked


@dataclass(frozen=True)
class Penalties:
    """Weights of R1, R2 and WGAN-GP, and how many real, fake and mixed samples there are."""

    r1: float
    r2: float
    gp: float
    counts: tuple[int, int, int]

    @property
    def groups(self) -> tuple[bool, bool, bool]:
        """Which of real, fake and mixed samples a penalty looks at."""
        return self.r1 > 0, self.r2 > 0, self.gp > 0

    def of(self, squares: Tensor, norms: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The penalty of input gradients of these squared lengths and lengths; each one's factor in the
        tangent; mean lengths."""
        total, factors, means, at = squares.new_zeros(()), [], {}, 0
        for name, weight, n in zip(
            ("real", "fake", "mixed"), (self.r1, self.r2, self.gp), self.counts, strict=True
        ):
            if not weight:
                continue
            square, norm = squares[at : at + n], norms[at : at + n]
            at += n
            means[f"norm_{name}"] = norm.detach().mean()
            if name == "mixed":
                total = total + weight * (norm - 1).square().mean()
                factor = 2 * weight * (norm - 1) / norm / n
                factors.append(torch.where(norm == 0, 0.0, factor))
            else:
                total = total + weight / 2 * square.mean()
                factors.append(torch.full_like(norm, weight / n))
        return total, torch.cat(factors), means


@dataclass(frozen=True)
class Step:
    """What a step computes, and how."""

    maps: tuple[Map, ...]
    layout: SamplesFirst | Blocked
    loss: str
    smoothing: float
    penalties: Penalties


def slopes(objective, z: Tensor) -> tuple[Tensor, Tensor]:
    """objective(z), a scalar, and its derivative by z."""
    with torch.inference_mode(False), torch.enable_grad():
        z = z.clone().detach().requires_grad_()
        value = objective(z)
        return value.detach(), torch.autograd.grad(value, z)[0]


class _ClosedForm(torch.autograd.Function):
    """apply(step, real, fake, mixed, *weights, *biases).

    Returns loss, penalty, logits and the mean norms of v, the last three without gradient.
    """

    @staticmethod
    def forward(ctx, step: Step, *tensors):
        n = len(step.maps)
        samples, weights, biases = tensors[:3], tensors[3 : 3 + n], tensors[3 + n :]
        layout, penalties = step.layout, step.penalties
        nr, nf, _ = penalties.counts
        h = [layout.join(samples)]
        for i, m in enumerate(step.maps):
            h.append(layout.forward(i, h[i], weights[i], biases[i], m.slope))
        logits = layout.logits(h[-1])[: nr + nf]
        value, s = slopes(
            lambda z: losses.discriminator_loss(step.loss, z[:nr], z[nr:], step.smoothing), logits
        )
        adjoints = [layout.seed(h[-1])]
        for i in range(n - 1, 0, -1):
            adjoints.insert(
                0, layout.input_gradient(i, adjoints[0], weights[i], h[i], step.maps[i - 1].slope)
            )
        rows = layout.rows(penalties.groups, logits.device)
        v = layout.input_gradient(0, adjoints[0][rows], weights[0], h[0][rows], 1.0)
        penalty, factors, norms = penalties.of(*layout.lengths(v, penalties.groups))
        ctx.step = step
        ctx.save_for_backward(*tensors, s, v, rows, factors, *h[:-1], *adjoints)
        out = value + penalty, penalty, logits.clone(), torch.stack(list(norms.values()))
        ctx.mark_non_differentiable(*out[1:])
        ctx.set_materialize_grads(False)
        return out

    @staticmethod
    def backward(ctx, grad, *_):
        step, n = ctx.step, len(ctx.step.maps)
        saved = list(ctx.saved_tensors)
        tensors, (s, v, rows, factors), saved = (
            saved[: 3 + 2 * n],
            saved[3 + 2 * n : 7 + 2 * n],
            saved[7 + 2 * n :],
        )
        need = list(ctx.needs_input_grad[1:])
        need[2] = False
        if grad is None or not any(need):
            return (None,) * (1 + len(tensors))
        if through_torch(grad):
            return None, *formula_backward(lambda *given: formula(step, *given)[0], tensors, need, grad)
        h, adjoints, weights = saved[:n], saved[n:], tensors[3 : 3 + n]
        s = torch.cat((s, s.new_zeros(step.penalties.counts[2])))
        grads = _parameter_gradients(step, h, adjoints, weights, grad * s, grad * factors, v, rows, need[3:])
        dx: list[Tensor | None] = [None, None]
        for i in range(2):
            if need[i]:
                part = step.layout.part(i)
                first = step.layout.input_gradient(0, adjoints[0][part], weights[0], h[0][part], 1.0)
                lone = [i == 0, i == 1, False]
                s_part = s.split(list(step.penalties.counts))[i]
                first = step.layout.spread(grad * s_part, lone, first) * first
                dx[i] = step.layout.leave(first, tensors[i].shape)
        return None, *dx, None, *grads


def through_torch(grad: Tensor) -> bool:
    """Whether backward has to go through torch's operators: it is to be differentiated, or grad is a batch
    (``is_grads_batched``)."""
    return torch.is_grad_enabled() or batched(grad)


def formula_backward(formula, tensors: Sequence[Tensor | None], need: Sequence[bool], grad: Tensor):
    """The gradients of formula(*tensors) where needed, in torch's operators."""
    again = torch.is_grad_enabled()
    under = "create_graph=True" if again else "is_grads_batched=True"
    _backend.note(f"discriminator_step under {under}: the differentiable formula runs")
    with torch.enable_grad():
        alias = [t.view_as(t) if want else t for t, want in zip(tensors, need, strict=True)]
        wanted = [t for t, want in zip(alias, need, strict=True) if want]
        value = formula(*alias)
    found = torch.autograd.grad(value, wanted, grad, create_graph=again, materialize_grads=True)
    got = iter(found)
    return [next(got) if want else None for want in need]


def _parameter_gradients(
    step: Step,
    h,
    adjoints,
    weights,
    s: Tensor,
    factors: Tensor,
    t: Tensor,
    rows: Tensor,
    need: Sequence[bool],
) -> list[Tensor | None]:
    n, layout = len(step.maps), step.layout
    every, groups = [c > 0 for c in step.penalties.counts], step.penalties.groups
    dW: list[Tensor | None] = []
    db: list[Tensor | None] = []
    for i, m in enumerate(step.maps):
        if need[i]:
            x = layout.spread(s, every, h[i]) * h[i]
            x.index_add_(0, rows, layout.spread(factors, groups, t) * t)
        dW.append(layout.weight_gradient(i, adjoints[i], x, weights[i]) if need[i] else None)
        u = adjoints[i]
        db.append(layout.bias_gradient(layout.spread(s, every, u) * u) if need[n + i] else None)
        if any(need[i + 1 : n]):
            t = masked(layout.forward(i, t, weights[i], None, 1.0), h[i + 1][rows], m.slope)
    return [*dW, *db]


def formula(step: Step, *tensors: Tensor | None):
    """What ``run`` gives, in torch's operators, differentiable by every tensor any number of times."""
    n, maps, penalties = len(step.maps), step.maps, step.penalties
    samples, weights, biases = tensors[:3], tensors[3 : 3 + n], tensors[3 + n :]
    layout = SamplesFirst(maps, penalties.counts)
    nr, nf, _ = penalties.counts
    x = torch.cat([t for t in samples if t is not None])
    z, inputs, outputs = chain.through(
        maps, x, chain.Parameters(list(weights), list(biases), [None] * n, [None] * n)
    )
    value = losses.discriminator_loss(step.loss, z[:nr], z[nr : nr + nf], step.smoothing)
    u = layout.seed(outputs[-1].detach())
    for i in range(n - 1, -1, -1):
        slope = maps[i - 1].slope if i else 1.0
        u = layout.input_gradient(i, u, weights[i], inputs[i].detach(), slope)
    v = u[layout.rows(penalties.groups, x.device)].flatten(1)
    penalty, _, norms = penalties.of(v.square().sum(1), gradient_penalty_norms(v))
    return value + penalty, penalty, z[: nr + nf], norms


def run(step: Step, real: Tensor, fake: Tensor, mixed: Tensor | None, p: chain.Parameters):
    """(loss, penalty, logits, norms by name) of a chain with at least one penalty."""
    tensors = real, fake, mixed, *p.weights, *p.biases
    if transformed():
        return formula(step, *tensors)
    value, penalty, logits, norms = _ClosedForm.apply(step, *tensors)
    names = ("norm_real", "norm_fake", "norm_mixed")
    names = [name for name, wanted in zip(names, step.penalties.groups, strict=True) if wanted]
    return value, penalty, logits, dict(zip(names, norms, strict=True))
