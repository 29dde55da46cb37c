// The activations of the cells, by the multifunction unit's 2^x and 1/x: no division, no branch, no call, so
// that those of a lane's units go side by side. tests/simt/test_sigmoid_tanh.py holds them to the bounds
// below over the whole range of float32, with an emulated unit that is off by as much as it may be.
#pragma once
#include <device/number.h>

namespace fusegen::cuda {

struct Math {
  // Off by at most 2e-7, and in proportion by at most 4e-7 + 9e-8 |x|: of the exponent what float32 has after
  // the point is what counts. Below 2^-126 it may be 0. Of -inf it is 0, of inf 1/1.
  static FUSEGEN_DEVICE float sigmoid(float x) {
    return device::reciprocal(1.0f + device::power_of_two(-1.44269504f * x));
  }

  // Off by at most 5e-7 in proportion. From 1/2 on 1 - 2 / (1 + e^2|x|); below, where the 1 would take the
  // digits away, x + x^3 P(x^2), P of the least error in proportion to tanh (1.5e-8), by our own fit.
  static FUSEGEN_DEVICE float tanh(float x) {
    const float size = fabsf(x), square = x * x;
    const float far = 1.0f - 2.0f * device::reciprocal(1.0f + device::power_of_two(2.88539008f * size));
    float p = 1.724149e-2f;
    p = p * square - 5.304549e-2f;
    p = p * square + 1.3325879e-1f;
    p = p * square - 3.3333144e-1f;
    const float near = size + size * (square * p);
    return copysignf(size < 0.5f ? near : far, x);
  }
};

}  // namespace fusegen::cuda
