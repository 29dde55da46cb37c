// The multifunction unit's 1/sqrt(x), of the layer norms.
#pragma once
#include <device/number.h>

namespace fusegen::device {

// Off by at most 2 ulp: an instruction. Subnormal numbers are zeros.
FUSEGEN_DEVICE float reciprocal_root(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace fusegen::device
