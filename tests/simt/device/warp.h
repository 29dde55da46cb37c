// The host's side of csrc/kernels/cuda/device/warp.h.
#pragma once
#include <device/thread.h>

namespace fusegen::device {

template <class V>
V from_lane_xor(V mine, int mask) {
  struct Given {
    V mine, theirs;
    int mask;
  } given{mine, mine, mask};
  static const char site = 0;
  // The table has each lane's own Given; the last lane to come fills in all of them.
  simt::warp_together(&site, &given, [](const void* const* all) {
    for (int lane = 0; lane < 32; ++lane) {
      auto* g = const_cast<Given*>(static_cast<const Given*>(all[lane]));
      g->theirs = static_cast<const Given*>(all[lane ^ g->mask])->mine;
    }
  });
  return given.theirs;
}

}  // namespace fusegen::device
