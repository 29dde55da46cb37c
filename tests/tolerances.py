"""How far a result may be from the float64 oracle. One table, each number with its reason.

``close(got, want, kind)`` asks max|got - want| <= tolerance * max(1, max|want|): absolute for outputs and
states, whose scale is 1, and relative to the largest element for gradients, whose elements are sums over
steps and batch.
"""

import torch

TOLERANCE = {
    # Rounding is 1e-16; sums of up to 600 products, 100 steps: 1e-13. Two orders of margin for the order of
    # sums.
    (torch.float64, "value"): 1e-11,
    (torch.float64, "grad"): 1e-11,
    # Rounding is 6e-8, exp and tanh within 2 ulp; 100 steps feed errors back and reach 1e-6 with these
    # weights.
    (torch.float32, "value"): 5e-6,
    # Gradients add up to T*B terms of mixed sign, so that more is lost to cancellation than in the values.
    (torch.float32, "grad"): 2e-5,
    # h is rounded to 8 bits (2e-3 at 1) at every step; it feeds back through R, which adds up a few such
    # roundings.
    (torch.bfloat16, "value"): 2e-2,
    # Activations, weights and the incoming gradient are all rounded to 8 bits; the errors add over steps.
    (torch.bfloat16, "grad"): 4e-2,
    # As bfloat16 with 11 bits (2.4e-4 at 1).
    (torch.float16, "value"): 3e-3,
    (torch.float16, "grad"): 6e-3,
}


def close(got, want, kind: str, what: str = "result") -> None:
    """Asserts that tensors (or nested tuples of them) agree to the table's tolerance for got's dtype."""
    if isinstance(want, (tuple, list)):
        assert len(got) == len(want), f"{what}: {len(got)} results for {len(want)}"
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            close(g, w, kind, f"{what}[{i}]")
        return
    if want is None or got is None:
        assert got is None and want is None, f"{what}: got {got}, want {want}"
        return
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, want {tuple(want.shape)}"
    if want.numel() == 0:
        return
    got64, want64 = got.detach().double(), want.detach().double()
    scale = (
        max(1.0, want64.abs().max().item()) if kind == "value" else want64.abs().max().clamp(min=1e-3).item()
    )
    error = (got64 - want64).abs() / scale
    limit = TOLERANCE[got.dtype, kind]
    worst = torch.nan_to_num(error, nan=torch.inf).argmax().item()
    assert error.flatten()[worst] <= limit, (
        f"{what}: off by {error.flatten()[worst]:.2e} of {scale:.2e} (allowed {limit:.0e}) at {worst}: "
        f"got {got64.flatten()[worst]:.8g}, want {want64.flatten()[worst]:.8g}"
    )
