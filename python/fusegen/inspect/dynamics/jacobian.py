"""How a layer's step moves what lies beside a state: its Jacobian, and that Jacobian's eigenvalues."""

from __future__ import annotations

import torch
from torch import Tensor

from .steps import Step

_PART = 64  # states at a time: a Jacobian has S^2 numbers


def jacobians(step: Step, states: Tensor, inputs: Tensor) -> Tensor:
    """dF/ds [N, S, S] of the step at states [N, S] and inputs [N, I], in float64: row i, column j is the
    derivative of the new s_i by the old s_j. ``visited`` gives states and inputs.

    Raises ValueError for states and inputs that the step does not take.
    """
    _check("jacobians", step, states, inputs)

    def one(state: Tensor, x: Tensor) -> Tensor:
        return step(state.unsqueeze(0), x.unsqueeze(0)).squeeze(0)

    at = torch.func.vmap(torch.func.jacrev(one))
    with torch.no_grad():
        pairs = zip(states.double().split(_PART), inputs.double().split(_PART), strict=True)
        parts = [at(state, x) for state, x in pairs]
    return torch.cat(parts) if parts else states.new_zeros(0, step.size, step.size, dtype=torch.float64)


def jacobian_spectrum(step: Step, states: Tensor, inputs: Tensor) -> Tensor:
    """The eigenvalues [N, S], complex, of ``jacobians``, by falling modulus: what has one near 1 is kept for
    long, above 1 it grows, near 0 it is forgotten in a step (Pascanu et al. 2013, arXiv:1211.5063).

    states [N, S] and inputs [N, I], as ``visited`` gives them, in float64; the eigenvalues are complex128.
    Errors as of ``jacobians``.
    """
    return sorted_eigenvalues(jacobians(step, states, inputs))


def sorted_eigenvalues(J: Tensor) -> Tensor:
    values: Tensor = torch.linalg.eigvals(J)
    return values.gather(-1, values.abs().argsort(-1, descending=True))


def _check(what: str, step: Step, states: Tensor, inputs: Tensor) -> None:
    for name, given, size in (("states", states, step.size), ("inputs", inputs, step.inputs)):
        if not isinstance(given, Tensor) or given.dim() != 2 or given.shape[1] != size:
            came = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise ValueError(f"fusegen.inspect.{what}: expected {name} [N, {size}], got {came}")
    if len(states) != len(inputs):
        raise ValueError(
            f"fusegen.inspect.{what}: expected as many inputs as states, got {len(inputs)} for {len(states)}"
        )
