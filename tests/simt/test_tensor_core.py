"""What the emulator's tensor cores make of sums: cut off, not rounded (tests/simt/tensor_core.h)."""

import math

import pytest
import torch
from tolerances import tensor_core_error

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

U = 2.0**-23
CARDS = {8: (8, 1), 9: (16, 2), 10: (16, 2)}
"""By generation: the 16-bit products of a block, and the bits kept below the largest's last."""


@pytest.mark.parametrize("major", CARDS)
@pytest.mark.parametrize("sign", (1.0, -1.0))
def test_sums_are_cut_toward_zero(major, sign):
    simt.set_device(major=major)
    for tf32 in (False, True):
        # nearest would give 1 + U
        assert simt.tensor_core(sign, [sign * 0.75 * U], [1.0], tf32=tf32) == sign
        assert simt.tensor_core(sign, [sign * 1.75 * U], [1.0], tf32=tf32) == sign * (1 + U)


@pytest.mark.parametrize("major", CARDS)
def test_an_addend_loses_what_lies_below_the_kept_bits(major):
    """1 less 2^-(23+e) is seen only where e bits are kept, and then cut at float32's last place."""
    simt.set_device(major=major)
    kept = CARDS[major][1]
    for e in range(5):
        got = simt.tensor_core(1.0, [-(2.0 ** -(23 + e))], [1.0], tf32=False)
        assert got == (1.0 if e > kept else 1 - (U if e == 0 else U / 2)), e


@pytest.mark.parametrize("major", CARDS)
@pytest.mark.parametrize("tf32", (False, True))
def test_a_block_is_added_exactly_and_cut_once(major, tf32):
    """Numbers of half a last place add up inside a block, and each block is cut on its own."""
    simt.set_device(major=major)
    block = CARDS[major][0] // (1 + tf32)
    K = 8 if tf32 else 16
    got = simt.tensor_core(1.0, [U / 2] * K, [1.0] * K, tf32=tf32)
    assert got == 1 + K // block * (block // 2) * U
    # one alone in each block is lost each time
    alone = [U / 2 if k % block == 0 else 0.0 for k in range(K)]
    assert simt.tensor_core(1.0, alone, [1.0] * K, tf32=tf32) == 1.0


@pytest.mark.parametrize("tf32", (False, True))
def test_products_are_exact_whatever_their_size(tf32):
    """Above and below the range that is worked on in float32, and across all of it."""
    a, b = 1 + 2.0**-7, 1 - 2.0**-7
    for e in (-126, -111, -100, -60, 0, 60, 119, 125):
        x = math.ldexp(a, e // 2), math.ldexp(b, e - e // 2)
        want = math.ldexp(a * b, e)
        assert simt.tensor_core(0.0, [x[0]], [x[1]], tf32=tf32) == want
        assert simt.tensor_core(-want, [x[0]], [x[1]], tf32=tf32) == 0.0


@pytest.mark.parametrize("tf32", (False, True))
def test_nan_and_inf(tf32):
    inf, nan = math.inf, math.nan
    core = simt.tensor_core
    assert core(1.0, [inf, 1.0], [2.0, 3.0], tf32=tf32) == inf
    assert core(-inf, [1.0], [3.0], tf32=tf32) == -inf
    assert core(0.0, [2.0**100], [2.0**100], tf32=tf32) == inf
    for got in (
        core(1.0, [inf], [0.0], tf32=tf32),
        core(inf, [inf], [-1.0], tf32=tf32),
        core(0.0, [nan], [0.0], tf32=tf32),
        core(nan, [1.0], [1.0], tf32=tf32),
    ):
        assert math.isnan(got)


@pytest.mark.parametrize("major", CARDS)
@pytest.mark.parametrize("tf32", (False, True))
def test_a_chain_is_off_by_no_more_than_the_table_says(major, tf32):
    """Sums of one sign, the worst for a cut that is toward zero, and of both."""
    simt.set_device(major=major)
    torch.manual_seed(major)
    K = 8 if tf32 else 16
    for chain in (1, 8, 96):
        for positive in (True, False):
            a, b = (torch.randn(chain, K).bfloat16().float() for _ in range(2))
            if positive:
                a, b = a.abs(), b.abs()
            d = 0.0
            for x, y in zip(a.tolist(), b.tolist(), strict=True):
                d = simt.tensor_core(d, x, y, tf32=tf32)
            products = a.double() * b.double()
            largest = max(products.sum(1).cumsum(0).abs().max().item(), products.abs().max().item())
            error = abs(d - products.sum().item())
            assert error <= tensor_core_error(chain, tf32=tf32, major=major) * largest
            if chain == 96 and positive:  # and it shows
                assert error > 0.02 * tensor_core_error(chain, tf32=tf32, major=major) * largest
