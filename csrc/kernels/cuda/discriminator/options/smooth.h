// The smooth activations of a discriminator's layers, by CUDA's own functions, which are within a few ulp
// over all of float32: they run once a number, behind a product, where the cells' faster ones
// (sigmoid_tanh.h) would save nothing that is seen.
#pragma once
#include <cmath>

#include <device/number.h>

#include "../../../activations.h"

namespace fusegen::cuda {

struct SmoothMath {
  static FUSEGEN_DEVICE float tanh(float x) { return std::tanh(x); }
  // The smaller of the two from the exponential, the larger from 1: each in proportion.
  static FUSEGEN_DEVICE activations::Sigmoids<float> sigmoid_both(float x) {
    const float e = std::exp(-std::fabs(x)), large = 1.0f / (1.0f + e), small = e * large;
    return x < 0 ? activations::Sigmoids<float>{small, large} : activations::Sigmoids<float>{large, small};
  }
  static FUSEGEN_DEVICE float expm1(float x) { return std::expm1(x); }
  static FUSEGEN_DEVICE activations::Normal<float> normal(float x) {
    return {0.5f * std::erfc(x * -0.707106781186547524f), 0.398942280401432678f * std::exp(x * x * -0.5f)};
  }
};

}  // namespace fusegen::cuda
