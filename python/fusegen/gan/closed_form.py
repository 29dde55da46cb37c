"""The step with penalties for convolutional networks: the closed form of ``ops.discriminator`` in torch's
operators.

It holds for any chain of linear maps (dense, convolution) and piecewise linear activations with one logit a
sample: the adjoints of one logit and the tangents of the input gradient take the place of a second backward.
Without a penalty it is what autograd does anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from .. import _backend, losses
from . import network
from .autograd_path import gradient_penalty_norms

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Map:
    """A linear map and the activation behind it: slope below zero, 1 for none; flatten: before the map."""

    module: nn.Module
    slope: float
    flatten: bool

    @property
    def conv(self) -> bool:
        return not isinstance(self.module, nn.Linear)

    def shaped(self, x: Tensor) -> Tensor:
        return x.flatten(1) if self.flatten else x

    def forward(self, x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
        m = self.module
        if not self.conv:
            if x.dim() != 2:
                raise TypeError("a dense layer stands over more than one dim")
            return F.linear(x, W, b)
        return torch.convolution(
            x, W, b, m.stride, m.padding, m.dilation, False, [0] * len(m.stride), m.groups
        )

    def backward(
        self, u: Tensor, x: Tensor, W: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The adjoint u W, and u^T x, where wanted."""
        m = self.module
        if not self.conv:
            return u @ W if wanted[0] else None, u.t() @ x if wanted[1] else None
        return torch.ops.aten.convolution_backward(
            u,
            x,
            W,
            None,
            m.stride,
            m.padding,
            m.dilation,
            False,
            [0] * len(m.stride),
            m.groups,
            [*wanted, False],
        )[:2]


def chain(D: nn.Module) -> tuple[Map, ...]:
    """D as maps, of which one at least is a convolution. Raises TypeError, saying what is in the way."""
    maps: list[Map] = []
    flatten = False
    for m in network.stages(D):
        kind = type_before_parametrizations(m)
        if kind is nn.Flatten and (m.start_dim, m.end_dim) == (1, -1):
            flatten = True
        elif kind is nn.Linear or kind in _CONVOLUTIONS:
            if kind is not nn.Linear and (m.padding_mode != "zeros" or isinstance(m.padding, str)):
                raise TypeError(f"{kind.__name__} pads in another way than with a number of zeros")
            maps.append(Map(m, 1.0, flatten))
            flatten = False
        elif kind in (nn.ReLU, nn.LeakyReLU) and maps and maps[-1].slope == 1.0:
            last = maps[-1]
            maps[-1] = Map(last.module, network.slope_of(m), last.flatten)
        elif kind is not nn.Identity:
            raise TypeError(
                f"{kind.__name__} stands where dense layers, convolutions and (Leaky)ReLU are known"
            )
    if not maps or maps[-1].slope != 1.0 or not any(m.conv for m in maps):
        raise TypeError("it is not a chain of convolutions that ends in a linear map")
    return tuple(maps)


@dataclass(frozen=True)
class Penalties:
    """Weights of R1, R2 and WGAN-GP, and how many real, fake and mixed samples there are."""

    r1: float
    r2: float
    gp: float
    counts: tuple[int, int, int]

    def rows(self, device: torch.device) -> Tensor:
        """Indices of the samples that a penalty looks at."""
        parts = torch.arange(sum(self.counts), device=device).split(self.counts)
        return torch.cat([p for p, w in zip(parts, (self.r1, self.r2, self.gp), strict=True) if w])

    def of(self, v: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The penalty of the input gradients v [rows, ...]; each row's factor in the tangent; mean norms."""
        total, factors, norms, at = v.new_zeros(()), [], {}, 0
        for name, weight, n in zip(
            ("real", "fake", "mixed"), (self.r1, self.r2, self.gp), self.counts, strict=True
        ):
            if not weight:
                continue
            part = v[at : at + n].flatten(1)
            at += n
            norm = gradient_penalty_norms(part)
            norms[f"norm_{name}"] = norm.detach().mean()
            if name == "mixed":
                total = total + weight * (norm - 1).square().mean()
                factor = 2 * weight * (norm - 1) / norm / n
                factors.append(torch.where(norm == 0, 0.0, factor))
            else:
                total = total + weight / 2 * part.square().sum(1).mean()
                factors.append(torch.full_like(norm, weight / n))
        return total, torch.cat(factors), norms


def _masked(t: Tensor, a: Tensor, slope: float) -> Tensor:
    return t if slope == 1.0 else torch.where(a > 0, t, slope * t)


def _forward(maps: Sequence[Map], x: Tensor, weights, biases) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Logits [N], each map's input, and what its activation was applied to."""
    inputs, before = [], []
    for m, W, b in zip(maps, weights, biases, strict=True):
        x = m.shaped(x)
        inputs.append(x)
        a = m.forward(x, W, b)
        before.append(a)
        x = a if m.slope == 1.0 else F.leaky_relu(a, m.slope)
    if x.flatten(1).shape[1] != 1:
        raise TypeError("it gives patches of logits, not one a sample")
    return x.flatten(), inputs, before


def _adjoints(maps, inputs, before, weights, rows: Tensor) -> tuple[list[Tensor], Tensor]:
    """The adjoint of one logit behind each map, and before the first, that of the given rows alone."""
    u, found = torch.ones_like(before[-1]), []
    for i in range(len(maps) - 1, -1, -1):
        u = _masked(u.reshape(before[i].shape), before[i].detach(), maps[i].slope)
        found.append(u)
        if i == 0:
            u, x = u[rows], inputs[0][rows]
        else:
            x = inputs[i]
        u = maps[i].backward(u, x, weights[i], (True, False))[0]
    return found[::-1], u


class _ClosedForm(torch.autograd.Function):
    """apply(maps, loss, smoothing, penalties, n, real, fake, mixed, *weights, *biases).

    Returns loss, penalty, logits and the mean norms of v, the last three without gradient.
    """

    @staticmethod
    def forward(ctx, maps, loss, smoothing, penalties, n, *tensors):
        samples, weights, biases = tensors[:3], tensors[3 : 3 + n], tensors[3 + n :]
        x = torch.cat([t for t in samples if t is not None])
        z, inputs, before = _forward(maps, x, weights, biases)
        nr, nf, _ = penalties.counts
        with torch.enable_grad():
            logits = z[: nr + nf].detach().requires_grad_()
            value = losses.discriminator_loss(loss, logits[:nr], logits[nr:], smoothing)
            (s,) = torch.autograd.grad(value, logits)
        rows = penalties.rows(x.device)
        adjoints, v = _adjoints(maps, inputs, before, weights, rows)
        penalty, factors, norms = penalties.of(v)
        ctx.static = maps, loss, smoothing, penalties, n
        ctx.save_for_backward(*tensors, s, v, rows, factors, *inputs[1:], *before, *adjoints)
        out = value.detach() + penalty, penalty, logits.detach(), torch.stack(list(norms.values()))
        ctx.mark_non_differentiable(*out[1:])
        ctx.set_materialize_grads(False)
        return out

    @staticmethod
    def backward(ctx, grad, *_):
        maps, loss, smoothing, penalties, n = ctx.static
        saved = list(ctx.saved_tensors)
        tensors, saved = saved[: 3 + 2 * n], saved[3 + 2 * n :]
        need = list(ctx.needs_input_grad[5:])
        need[2] = False
        if grad is None or not any(need):
            return (None,) * (5 + len(tensors))
        if torch.is_grad_enabled():
            _backend.note("discriminator_step under create_graph=True: the differentiable formula runs")
            alias = [t.view_as(t) if want else t for t, want in zip(tensors, need, strict=True)]
            value = formula(maps, loss, smoothing, penalties, n, *alias)
            wanted = [t for t, want in zip(alias, need, strict=True) if want]
            got = iter(torch.autograd.grad(value, wanted, grad, create_graph=True, materialize_grads=True))
            return (*(None,) * 5, *[next(got) if want else None for want in need])
        s, v, rows, factors, *rest = saved
        weights = tensors[3 : 3 + n]
        samples = torch.cat([t for t in tensors[:3] if t is not None])
        inputs, before, adjoints = (
            [maps[0].shaped(samples), *rest[: n - 1]],
            rest[n - 1 : 2 * n - 1],
            rest[2 * n - 1 :],
        )
        nr, nf, nm = penalties.counts
        s = grad * torch.cat((s, s.new_zeros(nm)))
        grads = _parameter_gradients(
            maps, inputs, before, adjoints, weights, s, grad * factors, v, rows, need[3:], n
        )
        dx = [None, None]
        for i, part in enumerate((slice(0, nr), slice(nr, nr + nf))):
            if need[i]:
                first = maps[0].backward(adjoints[0][part], inputs[0][part], weights[0], (True, False))[0]
                dx[i] = (_rows(s[part], first) * first).reshape(tensors[i].shape)
        return (*(None,) * 5, *dx, None, *grads)


def _rows(s: Tensor, like: Tensor) -> Tensor:
    return s.reshape(-1, *[1] * (like.dim() - 1))


def _parameter_gradients(
    maps, inputs, before, adjoints, weights, s, factors, v, rows, need, n
) -> list[Tensor | None]:
    dW: list[Tensor | None] = []
    db: list[Tensor | None] = []
    t = v
    for i, m in enumerate(maps):
        if any(need[i:n]):
            t = m.shaped(t)
        if need[i]:
            x = (_rows(s, inputs[i]) * inputs[i]).index_add(0, rows, _rows(factors, t) * t)
        dW.append(m.backward(adjoints[i], x, weights[i], (False, True))[1] if need[i] else None)
        u = adjoints[i]
        kept = [d for d in range(u.dim()) if d != 1]
        db.append((_rows(s, u) * u).sum(kept) if need[n + i] else None)
        if any(need[i + 1 : n]):
            t = _masked(m.forward(t, weights[i], None), before[i][rows], m.slope)
    return [*dW, *db]


def formula(maps, loss, smoothing, penalties: Penalties, n: int, *tensors) -> Tensor:
    """Loss and penalty, differentiable by every tensor any number of times."""
    samples, weights, biases = tensors[:3], tensors[3 : 3 + n], tensors[3 + n :]
    x = torch.cat([t for t in samples if t is not None])
    z, inputs, before = _forward(maps, x, weights, biases)
    nr, nf, _ = penalties.counts
    value = losses.discriminator_loss(loss, z[:nr], z[nr : nr + nf], smoothing)
    _, v = _adjoints(maps, [t.detach() for t in inputs], before, weights, penalties.rows(x.device))
    return value + penalties.of(v)[0]


def step(maps, real, fake, mixed, loss, smoothing, weights: tuple[float, float, float]):
    """(loss, penalty, logits, norms by name) of a chain with at least one penalty."""
    penalties = Penalties(*weights, (real.shape[0], fake.shape[0], 0 if mixed is None else mixed.shape[0]))
    parameters = [m.module.weight for m in maps], [m.module.bias for m in maps]
    tensors = (real, fake, mixed, *parameters[0], *parameters[1])
    value, penalty, logits, norms = _ClosedForm.apply(maps, loss, smoothing, penalties, len(maps), *tensors)
    names = [name for name, w in zip(("norm_real", "norm_fake", "norm_mixed"), weights, strict=True) if w]
    return value, penalty, logits, dict(zip(names, norms, strict=True))
