"""Discriminator steps that the emulated CUDA kernels run, and what autograd makes of them in float64."""

import itertools
from typing import NamedTuple

import pytest
import torch
from fusegen import _precision, losses
from fusegen.ops.discriminator import PIECEWISE, SCALARS, MlpOptions, mlp_discriminator_step
from fusegen.reference import SMOOTH, dropout_factors
from tolerances import TOLERANCE, close
from torch import nn

PENALTIES = {
    "none": {},
    "r1": {"r1": 10.0},
    "r2": {"r2": 3.0},
    "gp": {"gp": 10.0},
    "r1 and gp": {"r1": 2.0, "gp": 5.0},
    "all": {"r1": 2.0, "r2": 1.0, "gp": 5.0},
}
# With those by finite differences, whose groups are twice as long.
NEAR = {
    "near real": {"near_real": 3.0},
    "near fake": {"near_fake": 2.0, "r1": 1.0},
    "near and gp": {"near_real": 1.5, "near_fake": 2.0, "gp": 2.0},
}
KEY = torch.tensor(0x0123456789ABCDEF)


def round_tf32(x):
    bits = x.float().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).double()


def input_gradient(weights, masks, n):
    """The gradient of each of n logits by its input [n, n0]; differentiable by the weights. masks: what a
    gradient is multiplied by behind each layer, from the samples on."""
    u = weights[-1].expand(n, -1)
    for W, mask in zip(reversed(weights[:-1]), reversed(masks[1:]), strict=True):
        u = (u * mask) @ W
    return u * masks[0]


class Beyond(NamedTuple):
    """What a step has beside a plain chain: the activations behind its layers, in turn (slopes: of
    piecewise linear ones below zero, of ELU its alpha), how likely dropout drops an element of what its
    layers read, in turn, and how many inputs count."""

    activations: tuple[str, ...] = ()
    dropouts: tuple[float, ...] = ()
    counted: int = 0


PLAIN = Beyond()


class Case:
    """A network and its samples in the dtype of the call, and what float64 makes of them."""

    def __init__(
        self,
        sizes,
        batches,
        dtype,
        loss,
        penalty,
        wanted="all",
        slope=0.2,
        bias=True,
        generator=False,
        beyond=PLAIN,
    ):
        torch.manual_seed(sum(sizes) * 100 + sum(batches))
        self.tf32 = dtype == "tf32"
        self.dtype = torch.float32 if self.tf32 else getattr(torch, dtype)
        weights = (PENALTIES | NEAR)[penalty] if not generator else {}
        nr, nf = batches
        if loss == "relativistic" or "gp" in weights:
            nr = nf = min(nr, nf, 65)
        self.options = MlpOptions(
            loss,
            generator,
            0.9 if loss in losses.SMOOTHED and not generator else 1.0,
            **weights,
            counted=min(beyond.counted, sizes[0]),
        )

        def some(*shape, scale=1.0):
            return (torch.randn(*shape) * scale).to(self.dtype)

        self.weights = [some(m, n, scale=(2 / n) ** 0.5) for n, m in itertools.pairwise(sizes)]
        self.biases = [some(m, scale=0.3) if bias else None for m in sizes[1:]]
        self.slopes = [slope] * (len(sizes) - 2)
        self.fake = some(nf, sizes[0])
        self.real = some(nr, sizes[0]) if not generator or loss == "relativistic" else None
        self.mixed = some(nf, sizes[0]) if "gp" in weights else None
        self.wanted = wanted
        self.beyond_plain = beyond != PLAIN or penalty in NEAR
        depth = len(sizes) - 1
        turns = itertools.cycle(beyond.activations or (PIECEWISE,))
        self.activations = list(itertools.islice(turns, depth - 1)) if beyond.activations else []
        self.dropouts = list(itertools.islice(itertools.cycle(beyond.dropouts or (0.0,)), depth))
        # samples with noise, of any size: the formula does not ask
        self.noisy = self.options.near_real > 0, self.options.near_fake > 0, False
        if self.noisy[0]:
            self.real = torch.cat((self.real, self.real + some(nr, sizes[0], scale=0.7)))
        if self.noisy[1]:
            self.fake = torch.cat((self.fake, self.fake + some(nf, sizes[0], scale=0.7)))

    def leaves(self, samples, weights, biases):
        """The tensors that gradients are asked for."""
        out = list(samples) if self.wanted != "weights" or self.options.generator else []
        out += [*weights, *biases] if self.wanted != "samples" and not self.options.generator else []
        return [t.requires_grad_() for t in out if t is not None]

    def run(self):
        """(loss, scalars, logits, gradients of 1.5 times the loss)."""
        _precision.products_in_tf32 = lambda dtype: self.tf32  # the fixture puts it back
        real, fake = (None if t is None else t.clone() for t in (self.real, self.fake))
        weights, biases = (
            [None if t is None else t.clone() for t in ts] for ts in (self.weights, self.biases)
        )
        samples = (fake,) if self.options.generator else (real, fake)
        leaves = self.leaves(samples, weights, biases)
        loss, scalars, logits = mlp_discriminator_step(
            real, fake, self.mixed, weights=weights, biases=biases, slopes=self.slopes, options=self.options,
            activations=self.activations, dropouts=self.dropouts if any(self.dropouts) else (),
            key=KEY if any(self.dropouts) else None,
        )  # fmt: skip
        return loss.detach(), scalars, logits, torch.autograd.grad(1.5 * loss, leaves)

    def factors(self, layer, group, x):
        """Dropout's, of what a layer reads."""
        rate = self.dropouts[layer]
        if not rate:
            return torch.ones_like(x)
        twice = 2 if self.noisy[group] else 1
        of = dropout_factors(KEY, layer, group, (len(x) // twice, x.shape[1]), rate, x.detach())
        return of.repeat(twice, 1)

    def name(self, layer):
        return self.activations[layer] if self.activations else PIECEWISE

    def signs(self, x, weights, biases, group):
        """The derivative of each piecewise linear activation; rounding in the layers before decides its side
        of zero."""
        rounded = round_tf32 if self.tf32 else lambda t: t.to(self.dtype).double()
        signs = []
        x = x.detach() * self.factors(0, group, x)
        for i, (W, b) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
            a = rounded(x) @ rounded(W.detach()).t() + (0 if b is None else b.detach())
            signs.append(torch.where(a > 0, 1.0, self.slopes[i]))
            smooth = SMOOTH.get(self.name(i))
            x = a * signs[-1] if smooth is None else smooth.value(a, self.slopes[i])
            x = x * self.factors(i + 1, group, x)
        return signs

    def logits(self, x, weights, biases, group):
        """Those of samples, and what a gradient is multiplied by behind each layer."""
        if x is None:
            return None, []
        counted = self.options.counted
        if counted:
            x = torch.cat((x[:, :counted], x[:, counted:].detach()), 1)
        signs = self.signs(x, weights, biases, group)
        masks = [self.factors(0, group, x)]
        x = x * masks[0]
        for i, (W, b) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
            a = nn.functional.linear(x, W, b)
            smooth = SMOOTH.get(self.name(i))
            derivative = signs[i] if smooth is None else smooth.derivative(a, self.slopes[i])
            x = a * signs[i] if smooth is None else smooth.value(a, self.slopes[i])
            kept = self.factors(i + 1, group, x)
            masks.append(derivative * kept)
            x = x * kept
        return nn.functional.linear(x, weights[-1], biases[-1]).squeeze(-1), masks

    def oracle(self):
        """The same from autograd in float64."""
        real, fake, mixed = (None if t is None else t.double() for t in (self.real, self.fake, self.mixed))
        weights, biases = (
            [None if t is None else t.double() for t in ts] for ts in (self.weights, self.biases)
        )
        o = self.options
        leaves = self.leaves((fake,) if o.generator else (real, fake), weights, biases)
        (r, of_real), (f, of_fake), (_, of_mixed) = (
            self.logits(x, weights, biases, group) for group, x in enumerate((real, fake, mixed))
        )
        ends = [t for t in (r, f) if t is not None]
        logits = torch.cat(ends)
        penalty = torch.zeros((), dtype=torch.float64)
        if o.near_real:
            r, other = r.chunk(2)
            penalty = penalty + o.near_real / 2 * (other - r).square().mean()
        if o.near_fake:
            f, other = f.chunk(2)
            penalty = penalty + o.near_fake / 2 * (other - f).square().mean()
        if o.generator:
            total = losses.generator_loss(o.loss, f, None if r is None else r.detach())
        else:
            total = losses.discriminator_loss(o.loss, r, f, 1 - o.target)
        norms = {}
        for name, factor, masks, x in (("real", o.r1, of_real, real), ("fake", o.r2, of_fake, fake)):
            if factor:
                v = input_gradient(weights, masks, x.shape[0])[:, : o.counted or None]
                penalty = penalty + factor / 2 * v.square().sum(1).mean()
                norms[f"norm_{name}"] = v.norm(dim=1).mean()
        if o.gp:
            norm = input_gradient(weights, of_mixed, mixed.shape[0])[:, : o.counted or None].norm(dim=1)
            penalty = penalty + o.gp * (norm - 1).square().mean()
            norms["norm_mixed"] = norm.mean()
        total = total + penalty
        values = {"loss": total, "penalty": penalty, "mean_fake": f.mean(), **norms}
        if r is not None:
            values["mean_real"] = r.mean()
        ends = [t for t in ends if t.requires_grad]
        slopes = torch.autograd.grad(1.5 * total, ends, retain_graph=True, materialize_grads=True)
        self.terms = sum(s.abs().sum().item() for s in slopes)
        return values, logits, torch.autograd.grad(1.5 * total, leaves, materialize_grads=True)

    def near(self, got, want, kind, what):
        if self.tf32:
            scale = max(want.abs().max().item(), 1.0 if kind == "value" else 1e-3)
            error = (got.double() - want).abs().max() / scale
            assert error <= TOLERANCE["tf32", kind], f"{what}: off by {error:.2e} of {scale:.2e}"
        else:
            close(got, want, f"{kind} on tensor cores", what)

    def near_gradient(self, got, want, what):
        """Beyond plain chains biases are held to their terms, sums of s u that may cancel: the gradient of
        each gets a number of a tenth of them."""
        if not self.beyond_plain:
            return self.near(got, want, "grad", what)
        if want.dim() == 1:
            got, want = (torch.cat((t, t.new_tensor([0.1 * self.terms]))) for t in (got, want))
        return self.near(got, want, "grad beyond plain chains", what)

    def check(self):
        loss, scalars, logits, grads = self.run()
        values, want_logits, want = self.oracle()
        assert loss.dtype == torch.float32 and logits.dtype == self.dtype
        self.near(logits, want_logits.detach(), "value", "logits")
        kind = "tf32" if self.tf32 else self.dtype
        most = max(1.0, want_logits.abs().max().item())  # rounding in a mean is that of its terms
        for name, value in zip(SCALARS, scalars.tolist(), strict=True):
            if name in values:
                want_value = values[name].item()
                limit = TOLERANCE[kind, "grad" if self.tf32 else "grad on tensor cores"] * max(
                    most, abs(want_value)
                )
                assert abs(value - want_value) <= limit, f"{name}: {value}, want {want_value}"
            elif not name.startswith("sign"):
                assert value != value, f"{name}: {value}, want NaN"
        limit = TOLERANCE[torch.float32, "pass"]  # scalars are float64
        assert abs(loss.item() - scalars[0].item()) <= limit * max(1.0, abs(loss.item()))
        nr = 0 if self.real is None else self.real.shape[0]
        parts = [part[: len(part) // (1 + noisy)] for part, noisy in
                 zip((logits[:nr], logits[nr:]), self.noisy[:2], strict=True)]  # fmt: skip
        for name, part in zip(("sign_real", "sign_fake"), parts, strict=True):
            if part.numel():
                assert scalars[SCALARS.index(name)].item() == pytest.approx(
                    part.sign().double().mean().item()
                )
        assert len(grads) == len(want)
        for i, (g, w) in enumerate(zip(grads, want, strict=True)):
            assert g.dtype == self.dtype
            self.near_gradient(g, w, f"gradient {i}")
