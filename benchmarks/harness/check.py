"""Every contestant's outputs and gradients against float64, before anything is timed."""

from __future__ import annotations

import torch

# Relative L2 error of one tensor. float32: rounding of sums of up to 51,200 terms (weight gradients over T*B
# rows), met by every peer with a factor of 10 in hand. bfloat16 has 8 bits: 0.4 % per rounding of h, carried
# over 100 steps, and forgotten over more. float16 and TF32 have 11 bits.
TOLERANCE = {"float32": 2e-5, "bfloat16": 5e-2, "float16": 8e-3, "tf32": 8e-3}
# On a GPU float32 sums have up to 131,072 terms, and tensor cores cut off where they add. Well below the
# 1e-3 of TF32.
TOLERANCE_CUDA = TOLERANCE | {"float32": 1e-4}


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


def verify(problem, found: dict[str, torch.Tensor]) -> float:
    """The largest relative error; 0.0 if there is nothing to check. Raises Mismatch above the tolerance."""
    case = problem.case
    seen = errors(found, problem.reference()) if found else {}
    table = TOLERANCE_CUDA if getattr(case, "device", "cpu") == "cuda" else TOLERANCE
    allowed = getattr(problem, "tolerance", table[case.dtype])
    wrong = {name: error for name, error in seen.items() if not error <= allowed}
    if wrong:
        listed = ", ".join(f"{name} {error:.1e}" for name, error in wrong.items())
        raise Mismatch(f"{case.name}: relative error {listed}; allowed {allowed:.0e}")
    return max(seen.values(), default=0.0)
