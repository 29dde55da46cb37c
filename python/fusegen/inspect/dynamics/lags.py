"""How far back a gradient reaches: where the memory ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ... import _arguments
from ..attribution.scores import in_evaluation

_WHAT = "fusegen.inspect.gradient_by_lag"


class ByLag(NamedTuple):
    """norms [lags], in float64: of lag 0 first; reach: the least lag within which ``share`` of their sum
    lies.

    norms are a tensor [lags]; reach is an integer.
    """

    norms: Tensor
    reach: int


def gradient_by_lag(
    model: nn.Module | Callable[[Tensor], Any],
    x: Tensor,
    *,
    at: int = -1,
    probes: int | None = None,
    seed: int = 0,
    share: float = 0.99,
    batch_first: bool = False,
) -> ByLag:
    """How much an output moves with what was read so many steps before: the Frobenius norm of dy_t / dx_(t -
    lag), its mean over the batch, by lag (the norms of Pascanu et al. 2013, arXiv:1211.5063, measured).

    Evaluation mode; backward runs on the fused kernels.

    Args:
        model: a layer, or a Module or function that gives [T, B, n] for x (a tuple's first entry).
        x: [T, B, I] floating-point, or [B, T, I] with batch_first, as then the output is.
        at: the step t whose output is asked about; the last by default.
        probes: None takes each of the n outputs in turn, n backward passes; a number draws so many random
            directions by ``seed`` instead, whose mean square has the same expectation (Hutchinson).
        share: what ``reach`` is of, in 0..1.

    Raises TypeError or ValueError, which name the argument.
    """
    if not isinstance(x, Tensor) or x.dim() != 3 or not x.is_floating_point():
        raise ValueError(f"{_WHAT}: expected x as a floating-point Tensor with 3 dimensions")
    share = _arguments.number(f"{_WHAT}: share", share, 0, 1)
    T = x.shape[1 if batch_first else 0]
    if isinstance(at, bool) or not isinstance(at, int) or not -T <= at < T:
        raise ValueError(f"{_WHAT}: expected at in {-T}..{T - 1}, got {at!r}")
    t = at % T
    with in_evaluation(model), torch.enable_grad():
        read = x.detach().requires_grad_()
        y = model(read)
        y = y[0] if isinstance(y, (tuple, list)) else y
        if not isinstance(y, Tensor) or y.dim() != 3 or y.shape[:2] != x.shape[:2]:
            came = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"{_WHAT}: expected an output {[*x.shape[:2], 'n']}, got {came}")
        out = y[:, t] if batch_first else y[t]
        directions = _directions(out, probes, seed)
        squares = torch.zeros(x.shape[:2], dtype=torch.float64, device=x.device)
        for k, v in enumerate(directions):
            (got,) = torch.autograd.grad(out, read, v, retain_graph=k + 1 < len(directions))
            squares += got.double().square().sum(-1)
    if probes is not None:
        squares /= probes
    norms = (squares.T if batch_first else squares).sqrt().mean(1)[: t + 1].flip(0)
    total = norms.cumsum(0)
    inside = (total >= share * total[-1]).nonzero()
    return ByLag(norms, int(inside[0]) if len(inside) else 0)


def _directions(out: Tensor, probes: int | None, seed: int) -> list[Tensor]:
    """In the space of out [B, n], the same for the whole batch."""
    n = out.shape[1]
    if probes is None:
        chosen = torch.eye(n)
    else:
        count = _arguments.whole(f"{_WHAT}: probes", probes, 1)
        chosen = torch.randn(count, n, generator=torch.Generator().manual_seed(seed))
    return [v.to(out.device, out.dtype).expand_as(out) for v in chosen]
