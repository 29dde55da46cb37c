"""Products of rows kept in registers, in the emulator, against double: error, infinity and NaN."""

import math

import pytest

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

SHAPES = {"lstm": (2, 6, 8), "gru": (2, 4), "rnn": (4, 14, 16), "three chunks, two tiles of columns": (3,)}
"""Chunks of each. float32: 2^-21 of each product (csrc/kernels/cuda/multiply.h) is the most, and a chain of
eight instructions' cut; in sums of mixed signs it is well below. TF32: both numbers rounded to 11 bits."""
MOST = {False: 2.0**-21, True: 2.0**-10}


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_products(shape, tf32):
    for chunks in SHAPES[shape]:
        for special in (0.0, math.inf, -math.inf, math.nan):
            assert simt.product_error(shape, tf32, chunks, special) <= MOST[tf32], (chunks, special)
