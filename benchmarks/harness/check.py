"""Every contestant's outputs and gradients against float64, before anything is timed."""

from __future__ import annotations

import runpy

import torch

from harness.machine import ROOT

# The tests' own, each number with its reason.
TOLERANCE = runpy.run_path(str(ROOT / "tests/tolerances.py"))["TOLERANCE"]


class Mismatch(AssertionError):
    """A contestant computed something else; it is not timed."""


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """L2 norm of the difference over that of `expected` (float64); absolute if that is zero."""
    expected = expected.double()
    norm = expected.norm().item()
    return (found.double() - expected).norm().item() / (norm or 1.0)


def errors(found: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> dict[str, float]:
    """Relative error of each tensor found. Raises Mismatch for an unknown name or another shape."""
    for name, value in found.items():
        if name not in reference or value.shape != reference[name].shape:
            raise Mismatch(f"{name} of shape {tuple(value.shape)} is not in the reference")
    return {name: relative_error(value, reference[name]) for name, value in found.items()}


def allowed(problem, compared: str | None = None) -> float:
    """By the table of tolerances: for the case's dtype, and what is `compared`, or the problem says so."""
    case = problem.case
    dtype = case.dtype if case.dtype == "tf32" else getattr(torch, case.dtype)
    compared = compared or getattr(problem, "compared", "benchmark")
    on_gpu = (dtype, f"{compared} on GPU")
    return TOLERANCE[on_gpu if case.device == "cuda" and on_gpu in TOLERANCE else (dtype, compared)]


def verify(problem, found: dict[str, torch.Tensor], compared: str | None = None) -> float:
    """The largest relative error; 0.0 if there is nothing to check. Raises Mismatch above the tolerance."""
    seen = errors(found, problem.reference()) if found else {}
    limit = allowed(problem, compared)
    wrong = {name: error for name, error in seen.items() if not error <= limit}
    if wrong:
        listed = ", ".join(f"{name} {error:.1e}" for name, error in wrong.items())
        raise Mismatch(f"{problem.case.name}: relative error {listed}; allowed {limit:.0e}")
    return max(seen.values(), default=0.0)
