"""Where a layer's step stands still, or nearly (Sussillo and Barak 2013, Neural Computation 25)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ... import _arguments
from .jacobian import _check, jacobians, sorted_eigenvalues
from .steps import Step

_WHAT = "fixed_points"


class FixedPoints(NamedTuple):
    """K states, the slowest first, under one input: points [K, S]; speeds [K], q = |F(s) - s|^2 / 2;
    eigenvalues [K, S] of the step there, complex, by falling modulus; unstable [K]: how many of them have a
    modulus above 1.

    points and speeds are float64, eigenvalues complex128, unstable integers.
    """

    points: Tensor
    speeds: Tensor
    eigenvalues: Tensor
    unstable: Tensor


def fixed_points(
    step: Step,
    states: Tensor,
    input: Tensor | None = None,
    *,
    tolerance: float = 1e-16,
    slow: float | None = None,
    apart: float = 1e-4,
    iterations: int = 100,
) -> FixedPoints:
    """Fixed points of a layer's step under a constant input, looked for from states that were visited.

    From each state q(s) = |F(s, x) - s|^2 / 2 is made smaller (equation 2.2 of the paper) by Levenberg's and
    Marquardt's steps with the exact Jacobian, which near a fixed point converge quadratically.

    Args:
        step: of ``step_of``. states [N, S]: where to begin, ``visited(...).states``.
        input: [I]; zeros if None.
        tolerance: q below which a state is a fixed point.
        slow: q below which a state that stays is given too, as a slow point; the tolerance if None.
        apart: states closer than that, relative to their size, are one point.
        iterations: steps at most.

    Returns ``FixedPoints`` in float64, with K = 0 where none was found. Raises TypeError or ValueError, which
    name the argument.
    """
    what = f"fusegen.inspect.{_WHAT}"
    x = torch.zeros(step.inputs) if input is None else input
    if not isinstance(x, Tensor) or x.shape != (step.inputs,):
        came = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{what}: expected input [{step.inputs}], got {came}")
    x = x.detach().to(states.device if isinstance(states, Tensor) else x.device).double()
    _check(_WHAT, step, states, x.expand(len(states), -1) if isinstance(states, Tensor) else x)
    tolerance = _arguments.number(f"{what}: tolerance", tolerance, 0, open_below=True)
    limit = tolerance if slow is None else _arguments.number(f"{what}: slow", slow, tolerance)
    apart = _arguments.number(f"{what}: apart", apart, 0, open_below=True)
    iterations = _arguments.whole(f"{what}: iterations", iterations, 1)
    with torch.no_grad():
        found, q = _descend(step, states.detach().double().clone(), x, tolerance, iterations)
    order = q.argsort()
    found, q = found[order], q[order]
    found, q = found[q <= limit], q[q <= limit]
    kept = _distinct(found, apart)
    points = found[kept]
    values = sorted_eigenvalues(jacobians(step, points, x.expand(len(points), -1)))
    return FixedPoints(points, q[kept], values, (values.abs() > 1).sum(-1))


def _descend(step: Step, s: Tensor, x: Tensor, tolerance: float, iterations: int) -> tuple[Tensor, Tensor]:
    """States of smaller q, and q."""
    N, S = s.shape
    inputs, eye = x.expand(N, -1), torch.eye(S, dtype=s.dtype, device=s.device)
    residual = step(s, inputs) - s
    q = residual.square().sum(1) / 2
    damping = torch.full((N,), 1e-3, dtype=s.dtype, device=s.device)
    for _ in range(iterations):
        going = (q > tolerance * 1e-3) & (damping < 1e12)
        if not going.any():
            break
        A = jacobians(step, s[going], inputs[going]) - eye
        normal = A.mT @ A + damping[going, None, None] * eye
        move = torch.linalg.solve(normal, -(A.mT @ residual[going].unsqueeze(-1))).squeeze(-1)
        new = s[going] + move
        new_residual = step(new, inputs[going]) - new
        new_q = new_residual.square().sum(1) / 2
        better = new_q < q[going]
        at = going.nonzero().squeeze(1)
        s[at[better]], residual[at[better]], q[at[better]] = new[better], new_residual[better], new_q[better]
        damping[at] = torch.where(better, damping[at] * 0.1, damping[at] * 10).clamp(min=1e-15)
    return s, q


def _distinct(points: Tensor, apart: float) -> list[int]:
    """Those that are near no earlier one."""
    kept: list[int] = []
    for i, point in enumerate(points):
        near = apart * max(1.0, point.norm().item())
        if not kept or torch.cdist(point.unsqueeze(0), points[kept]).min() > near:
            kept.append(i)
    return kept
