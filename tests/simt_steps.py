"""Discriminator steps that the emulated CUDA kernels run, and what autograd makes of them in float64."""

import itertools

import pytest
import torch
from fusegen import _precision, losses
from fusegen.ops.discriminator import SCALARS, MlpOptions, mlp_discriminator_step
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


def round_tf32(x):
    bits = x.float().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).double()


def input_gradient(weights, masks, n):
    """The gradient of each of n logits by its input [n, n0]; differentiable by the weights."""
    u = weights[-1].expand(n, -1)
    for W, mask in zip(reversed(weights[:-1]), reversed(masks), strict=True):
        u = (u * mask) @ W
    return u


class Case:
    """A network and its samples in the dtype of the call, and what float64 makes of them."""

    def __init__(
        self, sizes, batches, dtype, loss, penalty, wanted="all", slope=0.2, bias=True, generator=False
    ):
        torch.manual_seed(sum(sizes) * 100 + sum(batches))
        self.tf32 = dtype == "tf32"
        self.dtype = torch.float32 if self.tf32 else getattr(torch, dtype)
        weights = PENALTIES[penalty] if not generator else {}
        nr, nf = batches
        if loss == "relativistic" or "gp" in weights:
            nr = nf = min(nr, nf, 65)
        self.options = MlpOptions(
            loss, generator, 0.9 if loss in losses.SMOOTHED and not generator else 1.0, **weights
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
            real, fake, self.mixed, weights=weights, biases=biases, slopes=self.slopes, options=self.options
        )
        return loss.detach(), scalars, logits, torch.autograd.grad(1.5 * loss, leaves)

    def masks(self, x, weights, biases):
        """The derivative of each activation; rounding in the layers before decides its side of zero."""
        rounded = round_tf32 if self.tf32 else lambda t: t.to(self.dtype).double()
        masks = []
        for W, b, slope in zip(weights[:-1], biases[:-1], self.slopes, strict=True):
            a = rounded(x.detach()) @ rounded(W.detach()).t() + (0 if b is None else b.detach())
            masks.append(torch.where(a > 0, 1.0, slope))
            x = a * masks[-1]
        return masks

    def oracle(self):
        """The same from autograd in float64."""
        real, fake, mixed = (None if t is None else t.double() for t in (self.real, self.fake, self.mixed))
        weights, biases = (
            [None if t is None else t.double() for t in ts] for ts in (self.weights, self.biases)
        )
        o = self.options
        leaves = self.leaves((fake,) if o.generator else (real, fake), weights, biases)

        def run(x):
            if x is None:
                return None, []
            masks = self.masks(x, weights, biases)
            for W, b, mask in zip(weights[:-1], biases[:-1], masks, strict=True):
                x = nn.functional.linear(x, W, b) * mask
            return nn.functional.linear(x, weights[-1], biases[-1]).squeeze(-1), masks

        (f, of_fake), (r, of_real), (_, of_mixed) = run(fake), run(real), run(mixed)
        if o.generator:
            total = losses.generator_loss(o.loss, f, None if r is None else r.detach())
        else:
            total = losses.discriminator_loss(o.loss, r, f, 1 - o.target)
        penalty = torch.zeros((), dtype=torch.float64)
        norms = {}
        for name, factor, masks, x in (("real", o.r1, of_real, real), ("fake", o.r2, of_fake, fake)):
            if factor:
                v = input_gradient(weights, masks, x.shape[0])
                penalty = penalty + factor / 2 * v.square().sum(1).mean()
                norms[f"norm_{name}"] = v.norm(dim=1).mean()
        if o.gp:
            norm = input_gradient(weights, of_mixed, mixed.shape[0]).norm(dim=1)
            penalty = penalty + o.gp * (norm - 1).square().mean()
            norms["norm_mixed"] = norm.mean()
        total = total + penalty
        values = {"loss": total, "penalty": penalty, "mean_fake": f.mean(), **norms}
        if r is not None:
            values["mean_real"] = r.mean()
        logits = f if r is None else torch.cat((r, f))
        return values, logits, torch.autograd.grad(1.5 * total, leaves, materialize_grads=True)

    def near(self, got, want, kind, what):
        if self.tf32:
            scale = max(want.abs().max().item(), 1.0 if kind == "value" else 1e-3)
            assert (got.double() - want).abs().max() <= TOLERANCE["tf32", kind] * scale, what
        else:
            close(got, want, f"{kind} on tensor cores", what)

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
        for name, part in (("sign_real", logits[:nr]), ("sign_fake", logits[nr:])):
            if part.numel():
                assert scalars[SCALARS.index(name)].item() == pytest.approx(
                    part.sign().double().mean().item()
                )
        assert len(grads) == len(want)
        for i, (g, w) in enumerate(zip(grads, want, strict=True)):
            assert g.dtype == self.dtype
            self.near(g, w, "grad", f"gradient {i}")
