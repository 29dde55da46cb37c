"""A layer whose recurrence the emulated CUDA kernels run, and what the float64 reference makes of it."""

import math

import cases
import pytest
import torch
from fusegen import _precision, reference
from fusegen._inside import Inside
from fusegen.ops.cuda import layers as cuda_layers
from fusegen.ops.cuda.engine import ENGINE, Engine
from simt_cases import SPECS
from tolerances import TOLERANCE, close

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

CELL_NAMES = ("lstm", "gru", "rnn_tanh", "rnn_relu")
WAYS = ("launch", "block", "l2", "cluster")


class Case:
    """A layer's inputs in the dtype of the call, and what the float64 reference makes of them."""

    def __init__(
        self,
        cell_name,
        H,
        B,
        T,
        dtype,
        ragged=False,
        D=1,
        *,
        P=None,
        I=5,
        bias=True,
        state=True,
        way="best",
        patience=ENGINE.patience,
        resets=None,
        reset_to=False,
        rates=(),
        training=True,
    ):
        torch.manual_seed(H * 1000 + B * 10 + T)
        self.cell_name, self.spec = cell_name, SPECS[cell_name]
        self.passes = cuda_layers.passes(Engine(simt, way, patience), self.spec)
        self.dtype = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
        self.tf32 = dtype == "tf32"
        G, P = self.spec.gates, P or H
        lstm = cell_name == "lstm"

        def some(*shape, scale=0.5):
            return (torch.randn(*shape) * scale).to(self.dtype)

        self.x = some(T, B, I)
        self.weights = []
        for _ in range(D):
            self.weights += [some(G * H, I, scale=0.5 / math.sqrt(I)), some(G * H, P, scale=1 / math.sqrt(P))]
            self.weights += [some(G * H), some(G * H)] if bias else [None, None]
            if lstm:
                self.weights.append(some(P, H, scale=1 / math.sqrt(H)) if P != H else None)
        self.starts = (
            ((some(D, B, P), some(D, B, H)) if lstm else (some(D, B, P),)) if state else (None,) * (1 + lstm)
        )
        self.lengths = torch.randint(0, T + 1, (B,)) if ragged else None
        self.inside, self.into = None, (None,) * (1 + lstm)
        if reset_to:
            self.into = (some(D, B, P), some(D, B, H))[: 1 + lstm]
        if resets is not None or rates:
            at = None if resets is None else boundaries(resets, T, B, self.lengths)
            key = torch.tensor(0x1234_5678_9ABC_DEF0 + H) if rates else None
            into = (*self.into, None)[:2]
            self.inside = Inside(at, *into, key, rates, layer=3, training=training)
        self.grads = [some(T, B, D * P), some(D, B, P)] + ([some(D, B, H)] if lstm else [])

    @property
    def relu(self):
        return self.cell_name == "rnn_relu"

    def forward(self, train=True):
        """(y, h_n, c_n, gates, cells)."""
        _precision.recurrence_in_tf32 = lambda dtype: self.tf32  # the fixture puts it back
        h0, c0 = (*self.starts, None)[:2]
        return self.passes.forward(
            self.x,
            h0,
            c0,
            weights=self.weights,
            relu=self.relu,
            lengths=self.lengths,
            packed=None,
            train=train,
            inside=self.inside,
        )

    def backward(self, kept, grads):
        """The gradients of x, the states, the weights and what states become; ``kept``: y, gates, cells."""
        h0, c0 = (*self.starts, None)[:2]
        call = (self.x, h0, c0, self.weights, self.relu, self.lengths, self.inside)
        into = () if self.inside is None else (*self.into, None)[:2]
        wanted = [t is not None for t in (self.x, h0, c0, *self.weights, *into)]
        return self.passes.backward(call, kept, (*grads, None)[:3], wanted)

    def run(self):
        """(outputs, gradients) of the kernels; what lies past a sequence's end is NaN on the way in."""
        x, grads = self.x, self.grads
        if self.lengths is not None:
            past = torch.arange(x.shape[0]).unsqueeze(1) >= self.lengths
            self.x = x.masked_fill(past.unsqueeze(-1), torch.nan)
            grads = [grads[0].masked_fill(past.unsqueeze(-1), torch.nan), *grads[1:]]
        try:
            y, h_n, c_n, gates, kept = self.forward()
            got = self.backward((y, gates, kept), grads)
        finally:
            self.x = x
        return [y, h_n] + ([c_n] if self.cell_name == "lstm" else []), got

    def oracle(self, y):
        """The reference's results; ``y`` decides relu's side of zero, which rounding may change."""
        inputs = cases.oracle_of(self.x, *self.starts, *self.weights, *self.into)
        n = len(self.starts)
        args = (*inputs[: 1 + n], list(inputs[1 + n : -n]), self.lengths)
        inside = None
        if self.inside is not None:
            inside = self.inside._replace(**dict(zip(("reset_h", "reset_c"), inputs[-n:], strict=False)))
        if self.relu and inside is not None and inside.rates:  # in float32: to that, the side is one
            want = reference.rnn(*args, True, inside)
        elif self.relu:
            if self.dtype == torch.float32 and not self.tf32:
                by_itself = reference.rnn(*args, True, inside)[0]
                close(y, by_itself, "value on tensor cores", "either side of zero")
            want = relu_by_sign(y > 0, *args, inside)
        else:
            want = getattr(reference, self.cell_name.split("_")[0])(*args, inside=inside)
        grads = [g.double() for g in self.grads]
        if self.lengths is not None:
            past = torch.arange(self.x.shape[0]).unsqueeze(1) >= self.lengths
            grads[0] = grads[0].masked_fill(past.unsqueeze(-1), 0)
        leaves = [t for t in inputs if t is not None]
        return list(want), torch.autograd.grad(want, leaves, grads, materialize_grads=True)

    def check(self):
        got, grads = self.run()
        want, want_grads = self.oracle(got[0])
        for kind, ours, theirs in (("value", got, want), ("grad", grads, want_grads)):
            assert len(ours) == len(theirs)
            for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                assert a.dtype == self.dtype
                if self.tf32:
                    scale = b.abs().max().clamp(min=1e-3 if kind == "grad" else 1)
                    assert ((a.double() - b).abs().max() / scale) <= TOLERANCE["tf32", kind]
                else:
                    close(a, b, f"{kind} on tensor cores", f"{kind} {i}")


def boundaries(where, T, B, lengths):
    """[T, B] of bool: nowhere, before the first step or the last, everywhere, past lengths alone, or here and
    there."""
    at = torch.zeros(T, B, dtype=torch.bool)
    if where in ("first", "last"):
        at[0 if where == "first" else T - 1] = True
    elif where == "beyond":
        at = torch.arange(T).unsqueeze(1) >= lengths
    elif where == "some":
        at = torch.rand(T, B) < 0.4
    elif where == "all":
        at[:] = True
    else:
        assert where == "none"
    return at


def relu_by_sign(positive, x, h0, weights, lengths, inside=None):
    """reference.rnn with relu, its side of zero given: [T, B, D*H] of bool."""
    ys, finals = [], []
    T, B, H = *x.shape[:2], weights[1].shape[1]
    lengths = torch.full((B,), T) if lengths is None else lengths
    for d in range(len(weights) // 4):
        W, R, b_ih, b_hh = (0 if w is None else w for w in weights[4 * d : 4 * d + 4])
        h = x.new_zeros(B, H) if h0 is None else h0[d]
        out = [None] * T
        for t in reversed(range(T)) if d else range(T):
            live = (lengths > t).unsqueeze(-1)
            if inside is not None and t + d < T:
                anew = (inside.resets[t + d] & (lengths > t + d)).unsqueeze(-1)
                h = torch.where(anew, h.new_zeros(()) if inside.reset_h is None else inside.reset_h[d], h)
            new = (x[t] @ W.t() + b_ih + h @ R.t() + b_hh) * positive[t, :, d * H : (d + 1) * H]
            out[t] = torch.where(live, new, torch.zeros_like(new))
            h = torch.where(live, new, h)
        ys.append(torch.stack(out))
        finals.append(h)
    return torch.cat(ys, -1), torch.stack(finals)
