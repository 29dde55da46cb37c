// How far the activations of the kernels are from those of double.
#include <algorithm>
#include <array>
#include <string>

#include "kernels/cuda/sigmoid_tanh.h"

namespace fusegen::activations {

// Absolute, and in proportion where the right value is no smaller than float32's smallest normal number.
std::array<double, 2> worst_error(const std::string& name, double from, double to, int stride) {
  const auto bits = [](double x) { return static_cast<int64_t>(device::as_bits(static_cast<float>(x))); };
  const int64_t first = std::min(bits(from), bits(to)), last = std::max(bits(from), bits(to));
  std::array<double, 2> worst{};
  for (int64_t i = first; i <= last; i += stride) {
    const float x = device::as_float(static_cast<uint32_t>(i));
    const bool tanh = name == "tanh";
    const double right =
        tanh ? std::tanh(static_cast<double>(x)) : 1 / (1 + std::exp(-static_cast<double>(x)));
    const double error = std::abs((tanh ? cuda::Math::tanh(x) : cuda::Math::sigmoid(x)) - right);
    // A NaN counts as the worst of all.
    if (!(error <= worst[0])) worst[0] = error;
    if (std::abs(right) >= 0x1p-126 && !(error / std::abs(right) <= worst[1]))
      worst[1] = error / std::abs(right);
  }
  return worst;
}

}  // namespace fusegen::activations
