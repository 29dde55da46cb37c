"""Convolutional networks without a penalty, in fusegen's kernels: all maps, norms and activations forward and
backward, real and fake samples together, batch norms on each half by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import chain
from ..chain import Map, Parameters
from ..layouts import Blocked, Normed
from ..request import Request, StepOutput, output
from . import passes
from .passes import ChainPass, Forward


class Plan(NamedTuple):
    request: Request
    step: Convolution
    parameters: Parameters


def fits(request: Request) -> Plan | str:
    if request.objective.penalties:
        return ""
    maps = passes.known(request)
    if isinstance(maps, str):
        return maps
    layout = passes.kernel_layout(request, maps)
    if isinstance(layout, str):
        return layout
    if reason := _unfit_norm(request, maps):
        return reason
    p = passes.parameters(request, maps)
    return p if isinstance(p, str) else Plan(request, Convolution(maps, layout, request.objective), p)


def run(plan: Plan) -> StepOutput:
    """Running statistics move as two passes move them, real first."""
    request, (real, fake, _) = plan.request, plan.request.samples
    loss, z, *stats = passes.run(plan.step, (real, fake, *(t for group in plan.parameters for t in group)))
    counts = [n for n in request.counts if n]
    norms = [m for m in plan.step.maps if m.norm is not None]
    for k, n in enumerate(counts):
        for i, m in enumerate(norms):
            at = 2 * (i * len(counts) + k)
            _track(m, n, stats[at], stats[at + 1])
    nr = request.counts[0]
    why = "convolutions and piecewise linear activations, in blocks of samples"
    return output(request.objective, loss, z[:nr] if nr else None, z[nr:], path="fused_conv", reason=why)


class Convolution(ChainPass):
    """tensors: real, fake, *weights, *biases, *norm_weights, *norm_biases. Outputs: the loss, the logits of
    all samples and the statistics of the norms."""

    layout: Blocked

    def _grouped(self, given: Sequence[Any]) -> list[list[Any]]:
        """Of what there is of each tensor, that of weights, biases, norm_weights and norm_biases by map."""
        n = len(self.maps)
        return [list(given[2 + k * n : 2 + (k + 1) * n]) for k in range(4)]

    def forward(self, tensors: Sequence[Any]) -> Forward:
        p, layout = Parameters(*self._grouped(tensors)), self.layout
        h, before, stats = [layout.join((*tensors[:2], None))], [], []
        for i, m in enumerate(self.maps):
            a = layout.forward(i, h[i], p.weights[i], p.biases[i], _slope_alone(m))
            if m.norm is not None:
                before.append(a)
                a, found = layout.batch_norm(m, a, p.norm_weights[i], p.norm_biases[i])
                stats += found
            h.append(a)
        logits = layout.logits(h[-1])
        value, s = self.loss_and_derivative(logits)
        return (value, logits, *stats), (s, *h[:-1], *before, *stats)

    def backward(
        self, grad: Tensor, tensors: Sequence[Any], kept: Sequence[Tensor], need: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        n, layout, p = len(self.maps), self.layout, Parameters(*self._grouped(tensors))
        wanted = self._grouped(need)
        want_weights, want_biases, want_norm_weights, want_norm_biases = wanted
        grads: list[list[Tensor | None]] = [[None] * n for _ in wanted]
        h, normed = kept[1 : 1 + n], self._normed(kept)
        by_samples = need[0] or need[1]
        lowest = 0 if by_samples else min(i for i in range(n) if any(group[i] for group in wanted))
        u = self._seed(grad * kept[0])
        for i in range(n - 1, lowest - 1, -1):
            m = self.maps[i]
            if m.norm is not None:
                below = i > lowest or by_samples or want_weights[i] or want_biases[i]
                dx, dw, db = layout.batch_norm_backward(m, u, normed[i], p.norm_weights[i], below)
                u = u if dx is None else dx
                grads[2][i] = dw if want_norm_weights[i] else None
                grads[3][i] = db if want_norm_biases[i] else None
            if want_weights[i]:
                grads[0][i] = layout.weight_gradient(i, u, h[i], p.weights[i])
            if want_biases[i]:
                grads[1][i] = layout.bias_gradient(u)
            if i > lowest:
                u = layout.input_gradient(i, u, p.weights[i], h[i], _slope_alone(self.maps[i - 1]))

        def by_group(_: int, part: slice) -> Tensor:
            return layout.input_gradient(0, u[part], p.weights[0], h[0][part], 1.0)

        samples = self.input_gradients(need, tensors, by_group)
        return *samples, *(g for group in grads for g in group)

    def _seed(self, s: Tensor) -> Tensor:
        """What the last map gave, its gradient: each of a patch of logits has a part of its sample's."""
        pixels = math.prod(self.maps[-1].outer)
        every = [n > 0 for n in self.layout.counts]
        return self.layout.spread(s / pixels, every, s).expand(-1, pixels, -1, -1).contiguous()

    def _normed(self, kept: Sequence[Tensor]) -> dict[int, Normed]:
        """What ``forward`` kept of each norm, by its map."""
        n, at = len(self.maps), [i for i, m in enumerate(self.maps) if m.norm is not None]
        h, before, stats = kept[1 : 1 + n], kept[1 + n : 1 + n + len(at)], kept[1 + n + len(at) :]
        per = len(stats) // len(at) if at else 0
        return {i: Normed(before[k], h[i + 1], stats[k * per : (k + 1) * per]) for k, i in enumerate(at)}

    def formula(self, tensors: Sequence[Any]) -> Tensor:
        halves = [t for t in tensors[:2] if t is not None]
        if all(m.norm is None for m in self.maps):
            halves = [torch.cat(halves)]
        p = Parameters(*self._grouped(tensors))
        z, nr = torch.cat([chain.through(self.maps, x, p)[0] for x in halves]), self.layout.counts[0]
        return self.objective.of(z[:nr] if nr else None, z[nr:])


def _slope_alone(m: Map) -> float:
    """Of the activation that the map's own kernel applies: behind a norm, the norm's does."""
    return m.slope if m.norm is None else 1.0


def _unfit_norm(request: Request, maps: Sequence[Map]) -> str:
    """Why a norm is one that torch would refuse, which then does; or of which samples with noise are a batch
    of their own."""
    for m in maps:
        norm = m.norm
        if norm is None:
            continue
        if request.objective.approximate:
            return (
                f"{type(norm).__name__} needs statistics of the noisy samples of an approximate penalty by "
                "themselves, which the fused step does not take"
            )
        name = type(norm).__name__
        if any(n * math.prod(m.outer) == 1 for n in request.counts):
            return f"{name} gets a single value per channel; it needs a larger batch"
        for statistic in (norm.running_mean, norm.running_var):
            if statistic is not None and (
                statistic.shape != (norm.num_features,) or statistic.dtype != request.fake.dtype
            ):
                return f"{name} has running statistics of another shape or dtype than its input"
    return ""


@torch.no_grad()
def _track(m: Map, n: int, mean: Tensor, var: Tensor) -> None:
    norm, count = m.norm, n * math.prod(m.outer)
    if norm is None or not norm.track_running_stats:
        return
    if norm.running_mean is None or norm.running_var is None:
        return
    share = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            share = 1 / norm.num_batches_tracked.item()
    # Not lerp_, which would make NaN of an infinite statistic.
    norm.running_mean.mul_(1 - share).add_(mean, alpha=share)
    norm.running_var.mul_(1 - share).add_(var, alpha=share * count / (count - 1))
