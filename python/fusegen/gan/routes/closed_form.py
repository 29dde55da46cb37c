"""Convolutional networks with penalties, in the closed form of ``ops.discriminator``.

It holds for any chain of linear maps (dense, convolution) and piecewise linear activations with one logit or
patch of logits a sample: the adjoints of one logit and the tangents of the input gradient take the place of a
second backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...ops.route import transformed
from .. import chain
from ..chain import Parameters
from ..layouts import SamplesFirst, activation_gradient
from ..objective import GROUPS
from ..request import Request, StepOutput, output
from . import passes
from .passes import ChainPass, Forward


class Plan(NamedTuple):
    """where: in what the passes run."""

    request: Request
    step: ClosedForm
    parameters: Parameters
    where: str


def fits(request: Request) -> Plan | str:
    if not request.objective.penalties:
        return ""
    maps = passes.known(request)
    if isinstance(maps, str):
        return maps
    if any(m.norm is not None for m in maps):
        return "with a batch norm, the penalty has no closed form in the kernels of convolutions"
    kernels = passes.kernel_layout(request, maps)
    p = passes.parameters(request, maps)
    if isinstance(p, str):
        return p
    if isinstance(kernels, str):
        step = ClosedForm(maps, SamplesFirst(maps, request.counts), request.objective)
        return Plan(request, step, p, f"torch's operators: {kernels}")
    return Plan(request, ClosedForm(maps, kernels, request.objective), p, "blocks of samples")


def run(plan: Plan) -> StepOutput:
    request, p = plan.request, plan.parameters
    tensors = *request.samples, *p.weights, *p.biases
    value, penalty, z, norms = plan.step.of(tensors) if transformed() else passes.run(plan.step, tensors)
    asked = [group for group, asks in zip(GROUPS, request.objective.penalised, strict=True) if asks]
    nr = request.counts[0]
    why = "convolutions and piecewise linear activations: the penalty in closed form, in"
    return output(
        request.objective,
        value,
        z[:nr],
        z[nr:],
        penalty=penalty,
        norms={f"norm_{group}": norm for group, norm in zip(asked, norms, strict=True)},
        path="fused_conv",
        reason=f"{why} {plan.where}",
    )


class Tangent(NamedTuple):
    """Of the samples that a penalty looks at: their input gradients, where they lie by the first dim, and
    each one's factor in the penalty's derivative."""

    v: Tensor
    rows: Tensor
    factors: Tensor


class ClosedForm(ChainPass):
    """tensors: real, fake, mixed, *weights, *biases. Outputs: loss, penalty, the logits of real and fake
    samples, and the mean lengths of the input gradients that a penalty looks at."""

    def forward(self, tensors: Sequence[Any]) -> Forward:
        n, layout = len(self.maps), self.layout
        weights, biases = tensors[3 : 3 + n], tensors[3 + n :]
        h = [layout.join(tensors[:3])]
        for i, m in enumerate(self.maps):
            h.append(layout.forward(i, h[i], weights[i], biases[i], m.slope))
        logits = layout.logits(h[-1])[: sum(layout.counts[:2])]
        value, s = self.loss_and_derivative(logits)
        adjoints = [layout.seed(h[-1])]
        for i in range(n - 1, 0, -1):
            u = layout.input_gradient(i, adjoints[0], weights[i], h[i], self.maps[i - 1].slope)
            adjoints.insert(0, u)
        penalised = self.objective.penalised
        rows = layout.rows(penalised, logits.device)
        v = layout.input_gradient(0, adjoints[0][rows], weights[0], h[0][rows], 1.0)
        v = layout.measured(v, self.objective.counted)
        penalty, factors, norms = self.objective.exact_penalty(layout.counts, *layout.lengths(v, penalised))
        outputs = value + penalty, penalty, logits.clone(), norms
        return outputs, (s, v, rows, factors, *h[:-1], *adjoints)

    def backward(
        self, grad: Tensor, tensors: Sequence[Any], kept: Sequence[Tensor], need: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        n, layout, counts = len(self.maps), self.layout, self.layout.counts
        s, v, rows, factors = kept[:4]
        s = grad * torch.cat((s, s.new_zeros(counts[2])))
        h, adjoints, weights = kept[4 : 4 + n], kept[4 + n :], tensors[3 : 3 + n]
        tangent = Tangent(v, rows, grad * factors)
        grads = self._parameter_gradients(h, adjoints, weights, s, tangent, need[3:])

        def by_samples(group: int, part: slice) -> Tensor:
            lies = layout.input_gradient(0, adjoints[0][part], weights[0], h[0][part], 1.0)
            lone = [group == i for i in range(3)]
            return layout.spread(s.split(counts)[group], lone, lies) * lies

        return *self.input_gradients(need, tensors, by_samples), None, *grads

    def _parameter_gradients(
        self,
        h: Sequence[Tensor],
        adjoints: Sequence[Tensor],
        weights: Sequence[Tensor],
        s: Tensor,
        tangent: Tangent,
        need: Sequence[bool],
    ) -> list[Tensor | None]:
        n, layout, (t, rows, factors) = len(self.maps), self.layout, tangent
        every, penalised = [c > 0 for c in layout.counts], self.objective.penalised
        dW: list[Tensor | None] = [None] * n
        db: list[Tensor | None] = [None] * n
        for i, m in enumerate(self.maps):
            if need[i]:
                x = layout.spread(s, every, h[i]) * h[i]
                x.index_add_(0, rows, layout.spread(factors, penalised, t) * t)
                dW[i] = layout.weight_gradient(i, adjoints[i], x, weights[i])
            if need[n + i]:
                db[i] = layout.bias_gradient(layout.spread(s, every, adjoints[i]) * adjoints[i])
            if any(need[i + 1 : n]):
                t = layout.forward(i, t, weights[i], None, 1.0)
                t = activation_gradient(t, h[i + 1][rows], m.slope)
        return [*dW, *db]

    def formula(self, tensors: Sequence[Any]) -> Tensor:
        return self.of(tensors)[0]

    def of(self, tensors: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The outputs in torch's operators, differentiable by every tensor any number of times."""
        n, maps, counts = len(self.maps), self.maps, self.layout.counts
        samples, weights, biases = tensors[:3], list(tensors[3 : 3 + n]), list(tensors[3 + n :])
        layout, (nr, nf, _) = SamplesFirst(maps, counts), counts
        x = torch.cat([t for t in samples if t is not None])
        none: list[Tensor | None] = [None] * n
        z, inputs, outputs = chain.through(maps, x, Parameters(weights, biases, none, none))
        value = self.objective.of(z[:nr], z[nr : nr + nf])
        u = layout.seed(outputs[-1].detach())
        for i in range(n - 1, -1, -1):
            slope = maps[i - 1].slope if i else 1.0
            u = layout.input_gradient(i, u, weights[i], inputs[i].detach(), slope)
        v = u[layout.rows(self.objective.penalised, x.device), : self.objective.counted].flatten(1)
        lengths = v.square().sum(1), torch.linalg.vector_norm(v, dim=1)
        penalty, _, norms = self.objective.exact_penalty(counts, *lengths)
        return value + penalty, penalty, z[: nr + nf], norms
