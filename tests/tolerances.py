"""How far rounding may move a result. One table for tests and benchmarks, each number with its reason.

The kind says what is compared and by which measure:

- "value", "grad": with the float64 oracle, by ``close``. max|got - want| <= tolerance * max(1, max|want|):
  absolute for outputs and states, whose scale is 1, and relative to the largest element for gradients, whose
  elements are sums over steps and batch.
- "value", "grad", "norm on tensor cores": the same, of the GPU's kernels, on a GPU or in the emulator.
- "norm": with the oracle, by the L2 norm of the difference over that of what is wanted (``same``): where
  single elements may jump, as at relu's zero, or cancel.
- "pass": as "norm", of one pass over one layer.
- "ways": two ways to one result in one dtype, neither of them the oracle, by ``agree``; of figures that are
  no tensors, as a measure or a loss, by ``near``: |got - want| <= tolerance * |want|.
- "constant", "printed", "peer": figures too, of what the table says. "ladder": the largest error in h.
- "training": losses of whole training runs that should be one, and "weights", what those runs end with.
- "benchmark": as "norm", of any contestant before it is timed; "benchmark on GPU"; "benchmark of 8 bits",
  "benchmark of a step", a discriminator's, and "benchmark of batch norms", one with such.

What chance may do (a frequency over 4,000 draws), what learning must reach and the decimals of a figure
worked by hand stand beside their tests: they are no rounding.
"""

import math

import torch


def tensor_core_error(chain: int, *, tf32: bool, major: int) -> float:
    """What a chain of matrix instructions may be off by, relative to the largest of its partial sums.

    A tensor core multiplies exactly and cuts where it adds (tests/simt/tensor_core.h, with the papers that
    measured it): of a block of p products and the sum so far, each number is cut toward zero at 2^-e of the
    largest's last place, which is 2^-23 of it or less; so p + 1 numbers lose less than (p + 1) 2^-e 2^-23 of
    the largest; then the sum is cut to float32 and loses less than 2^-23 of itself. That is
    b ((p + 1) 2^-e + 1) 2^-23 an instruction of b blocks, and adds up along the chain:

    generation | TF32, k 8         | 16-bit, k 16
    8          | p 4, e 1, b 2: 7  | p 8, e 1, b 2: 11
    9, 10      | p 8, e 2, b 1: 3.25 | p 16, e 2, b 1: 5.25   (times 2^-23)

    The cuts of addends have their signs, so of a sum of mixed signs they mostly cancel; the cut of the sum is
    toward zero each time, half a last place on average, and does not. So the chain's length, not that of the
    sum, is what counts: a sum in several accumulators, rounded where they meet, is off by one chain's.
    """
    products, kept = (8, 2) if major >= 9 else (4, 1)
    if not tf32:
        products *= 2
    blocks = (8 if tf32 else 16) // products
    return chain * blocks * ((products + 1) / 2**kept + 1) * 2.0**-23


# Matrix instructions that a kernel of the recurrences adds up in one accumulator, at most; of float32's three
# products those of the low halves have accumulators of their own (csrc/kernels/cuda/multiply.h).
CHAIN = 8

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
    # A layer norm divides by the deviation of its row, of few numbers down to a tenth, and multiplies what
    # the row was rounded by.
    (torch.bfloat16, "value normalised"): 6e-2,
    (torch.float16, "value normalised"): 9e-3,
    (torch.bfloat16, "grad normalised"): 1.2e-1,
    (torch.float16, "grad normalised"): 1.8e-2,
    # TF32 keeps 10 bits of fraction, as float16 does; it adds up in float32.
    ("tf32", "value"): 3e-3,
    ("tf32", "grad"): 6e-3,
    # Beyond plain chains, the discriminator's step on a GPU rounds the derivatives of its activations too,
    # the second ones twice, and what those send back: twice as many roundings on the way to a gradient.
    (torch.float32, "grad beyond plain chains"): 4e-5,
    (torch.bfloat16, "grad beyond plain chains"): 8e-2,
    (torch.float16, "grad beyond plain chains"): 1.2e-2,
    ("tf32", "grad beyond plain chains"): 1.2e-2,
    # A step of a discriminator with its penalties: sums of a few thousand terms, each side rounding at 1e-16,
    # of which a penalty takes the difference from 1 and squares it.
    (torch.float64, "norm"): 1e-9,
    # The same at 6e-8, of sums that cancel less; 8 and 11 bits round what goes into each product.
    (torch.float32, "norm"): 1e-5,
    (torch.bfloat16, "norm"): 2e-2,
    (torch.float16, "norm"): 5e-3,
    # A ReLU's unit that rounding moved over its kink has a gradient or none: of a few hundred, one is off by
    # itself, 5 % of the norm.
    (torch.bfloat16, "norm at a kink"): 2e-1,
    (torch.float16, "norm at a kink"): 1e-1,
    # One convolution, norm or product: sums of at most 300 x 9 terms of one sign each, 1e-13 in float64.
    (torch.float64, "pass"): 1e-12,
    (torch.float32, "pass"): 1e-6,
    # Sums in another order, or split over other threads: a few roundings of what is up to 9 in size.
    (torch.float64, "ways"): 1e-11,
    (torch.float32, "ways"): 1e-5,
    # A weight, product or gate that is rounded once more or less.
    (torch.bfloat16, "ways"): 2e-2,
    (torch.float16, "ways"): 2e-2,
    # One number in float32 among sums in float64: half of its last digit, 6e-8.
    (torch.float32, "constant"): 1e-7,
    # Six significant digits in a line of text: half of the last is 5e-6 of a figure that begins with 1.
    (torch.float32, "printed"): 1e-5,
    # Another library's figure in float64: a root of a covariance that is all but singular keeps half the
    # digits, and each library takes it another way.
    (torch.float64, "peer"): 1e-4,
    # The same from features, or sums of cubes over 60 x 60 pairs that cancel, in float32.
    (torch.float32, "peer"): 1e-3,
    # benchmarks/gpu/lstm_forward.cu, whose own bar this is: half a digit of |h| < 1 in bfloat16 is 2e-3, and
    # a sum near a tie may be rounded the other way.
    (torch.bfloat16, "ladder"): 1e-2,
    # Up to 50 steps of an optimiser, whose batch is cut another way: losses near 5, Adam's division by small
    # second moments magnifies what weights differ by.
    (torch.float64, "training"): 1e-11,
    (torch.float64, "weights"): 1e-9,
    (torch.float32, "training"): 1e-5,
    # Sums of up to 51,200 terms (weight gradients over T*B rows), met by every peer with a factor of 10 in
    # hand.
    (torch.float32, "benchmark"): 2e-5,
    # A layer norm of a state of zero divides by the root of eps, 3e-3, so that the first steps' rounding
    # grows 300 times: torch's own loop of LayerNormLSTM's formula is off by 3e-4 in its worst gradient.
    (torch.float32, "benchmark normalised"): 2e-3,
    # 0.4 % per rounding of h, carried over 100 steps, and forgotten over more.
    (torch.bfloat16, "benchmark"): 5e-2,
    # 11 bits.
    (torch.float16, "benchmark"): 8e-3,
    ("tf32", "benchmark"): 8e-3,
    # Weights and activations of 8 bits, h rounded anew at every step. Of three libraries the worst, torch.ao
    # with one scale a matrix, reads 2.4e-2 (T 100); gates in a wrong order read 0.5 and more.
    (torch.float32, "benchmark of 8 bits"): 5e-2,
    # Sums of up to 131,072 terms, and tensor cores cut off where they add. Well below the 1e-3 of TF32.
    (torch.float32, "benchmark on GPU"): 1e-4,
    # WGAN-GP's ||v|| - 1 and a recurrent network's biases cancel: autograd itself is off by 5e-4.
    (torch.float32, "benchmark of a step"): 2e-3,
    ("tf32", "benchmark of a step"): 8e-3,
    # Behind batch norms torch's own convolutions, held to AVX2, are off by 3.4e-3.
    (torch.float32, "benchmark of batch norms"): 1e-2,
    ("tf32", "benchmark of batch norms"): 1e-2,
}
# What goes through tensor cores: the chain's error beside the rounding, of sums no larger than the scale that
# errors are measured by; that of the oldest generation, which is the largest.
TOLERANCE |= {
    (dtype, f"{kind} on tensor cores"): TOLERANCE[dtype, kind]
    + tensor_core_error(CHAIN, tf32=dtype == torch.float32, major=8)
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
    for kind in ("value", "grad", "grad beyond plain chains", "norm")
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
        max(1.0, want64.abs().max().item())
        if kind.startswith("value")
        else want64.abs().max().clamp(min=1e-3).item()
    )
    error = (got64 - want64).abs() / scale
    limit = TOLERANCE[got.dtype, kind]
    worst = torch.nan_to_num(error, nan=torch.inf).argmax().item()
    assert error.flatten()[worst] <= limit, (
        f"{what}: off by {error.flatten()[worst]:.2e} of {scale:.2e} (allowed {limit:.0e}) at {worst}: "
        f"got {got64.flatten()[worst]:.8g}, want {want64.flatten()[worst]:.8g}"
    )


def same(got, want, what: str, kind: str = "norm") -> None:
    """Asserts that a tensor is the oracle's to the table's tolerance for got's dtype, by its L2 norm."""
    if not want.is_floating_point():
        assert torch.equal(got, want), f"{what}: got {got}, want {want}"
        return
    error = (got.double() - want.double()).norm().item()
    scale = want.double().norm().item()
    # A sum that cancels to nothing leaves the rounding of its terms.
    limit = TOLERANCE[got.dtype, kind] * max(scale, 1e-4)
    assert error <= limit, f"{what}: off by {error:.2e} of {scale:.2e} (allowed {limit:.0e})"


def agree(got, want, what: str | None = None) -> None:
    """Asserts that two ways to one result agree, in tensors and nested tuples or lists of them."""
    if isinstance(want, (tuple, list)):
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            agree(g, w, f"{what or 'result'}[{i}]")
        return
    limit = TOLERANCE[want.dtype, "ways"] if want.is_floating_point() else 0
    said = None if what is None else lambda said: f"{what}: {said}"
    torch.testing.assert_close(got, want, rtol=limit, atol=limit, msg=said)


def near(
    got: float, want: float, what: str = "figure", kind: str = "ways", dtype: torch.dtype = torch.float32
) -> None:
    """Asserts that figures that were computed in dtype agree to the table's tolerance; NaN is only NaN."""
    if math.isnan(want):
        assert math.isnan(got), f"{what}: got {got}, want NaN"
        return
    limit = TOLERANCE[dtype, kind] * max(abs(want), 1e-3)
    error = abs(got - want)
    assert error <= limit, f"{what}: got {got:.8g}, want {want:.8g}: off by {error:.2e} (allowed {limit:.0e})"
