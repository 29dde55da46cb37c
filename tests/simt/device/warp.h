// The host's side of csrc/kernels/cuda/device/warp.h.
#pragma once
#include <device/number.h>

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

inline void sync_warp() { simt::sync_warp(); }

inline uint32_t votes_of_warp(bool mine) {
  struct Given {
    bool mine;
    uint32_t votes;
  } given{mine, 0};
  static const char site = 0;
  simt::warp_together(&site, &given, [](const void* const* all) {
    uint32_t votes = 0;
    for (int lane = 0; lane < 32; ++lane)
      votes |= static_cast<uint32_t>(static_cast<const Given*>(all[lane])->mine) << lane;
    for (int lane = 0; lane < 32; ++lane)
      const_cast<Given*>(static_cast<const Given*>(all[lane]))->votes = votes;
  });
  return given.votes;
}
inline bool any_of_warp(bool mine) { return votes_of_warp(mine); }
inline bool all_of_warp(bool mine) { return !any_of_warp(!mine); }

}  // namespace fusegen::device
