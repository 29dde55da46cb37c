// The host's side of csrc/kernels/cuda/device/root.h.
#pragma once
#include <device/number.h>

namespace fusegen::device {

inline float reciprocal_root(float x) {
  x = detail::flushed(x);
  return detail::off(1.0 / std::sqrt(static_cast<double>(x)), x, 2);
}

}  // namespace fusegen::device
