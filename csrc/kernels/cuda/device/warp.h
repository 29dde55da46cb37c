// What the lanes of a warp tell each other.
#pragma once
#include <device/thread.h>

namespace fusegen::device {

// The value of the lane whose number differs in the bits of `mask`. By all lanes of a warp; V is float or
// double.
template <class V>
FUSEGEN_DEVICE V from_lane_xor(V mine, int mask) {
  return __shfl_xor_sync(0xffffffffu, mine, mask);
}

}  // namespace fusegen::device
