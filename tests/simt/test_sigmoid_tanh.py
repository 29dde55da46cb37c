"""The activations of the CUDA kernels against double, over the whole range of float32, with the multifunction
unit as far off as NVIDIA says that it may be."""

import math

import pytest

simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

TINY, LARGE = 1.1754943508222875e-38, 3.4028234663852886e38  # of the normal numbers


# Every 97th float: 44 million of both signs for the two, and each of the unit's errors beside each argument's
# neighbours.
@pytest.mark.parametrize(
    ("low", "high", "most", "in_proportion"),
    [
        (TINY, 1, 2e-7, 5e-7),
        (1, 16, 2e-7, 4e-7 + 9e-8 * 16),
        (16, 87, 2e-7, 4e-7 + 9e-8 * 87),
        (87, LARGE, 2e-7, None),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_sigmoid(low, high, most, in_proportion, sign):
    error, proportion = simt.activation_error("sigmoid", sign * low, sign * high, 97)
    assert error <= most
    if in_proportion:
        assert proportion <= in_proportion


@pytest.mark.parametrize("sign", [1, -1])
def test_tanh(sign):
    error, proportion = simt.activation_error("tanh", sign * TINY, sign * LARGE, 97)
    assert error <= 5e-7
    assert proportion <= 5e-7


def test_limits():
    for name, at_minus_infinity, at_zero in (("sigmoid", 0, 0.5), ("tanh", -1, 0)):
        assert simt.activation(name, -math.inf) == at_minus_infinity
        # 1/1 itself may be off by an ulp
        assert simt.activation(name, math.inf) == pytest.approx(1, abs=1e-7)
        assert simt.activation(name, 0.0) == pytest.approx(at_zero, abs=1e-7)
        assert math.isnan(simt.activation(name, math.nan))
        assert math.isnan(simt.activation(name, -math.nan))
    assert math.copysign(1, simt.activation("tanh", -0.0)) == -1
    assert abs(simt.activation("tanh", -88.0)) == 1
