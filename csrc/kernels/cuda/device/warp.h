// What the lanes of a warp tell each other.
#pragma once
#include <device/number.h>

namespace fusegen::device {

// The value of the lane whose number differs in the bits of `mask`. By all lanes of a warp; V is float or
// double.
template <class V>
FUSEGEN_DEVICE V from_lane_xor(V mine, int mask) {
  return __shfl_xor_sync(0xffffffffu, mine, mask);
}

// Until all lanes of the warp are here; what each wrote to shared memory before, all can read after.
FUSEGEN_DEVICE void sync_warp() { __syncwarp(); }

// By all lanes of a warp.
FUSEGEN_DEVICE bool all_of_warp(bool mine) { return __all_sync(0xffffffffu, mine); }
FUSEGEN_DEVICE bool any_of_warp(bool mine) { return __any_sync(0xffffffffu, mine); }
// A bit for each lane, set where its `mine` is true.
FUSEGEN_DEVICE uint32_t votes_of_warp(bool mine) { return __ballot_sync(0xffffffffu, mine); }

}  // namespace fusegen::device
