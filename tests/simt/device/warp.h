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

inline bool any_of_warp(bool mine) {
  struct Given {
    bool mine, any;
  } given{mine, false};
  static const char site = 0;
  simt::warp_together(&site, &given, [](const void* const* all) {
    bool any = false;
    for (int lane = 0; lane < 32; ++lane) any |= static_cast<const Given*>(all[lane])->mine;
    for (int lane = 0; lane < 32; ++lane) const_cast<Given*>(static_cast<const Given*>(all[lane]))->any = any;
  });
  return given.any;
}
inline bool all_of_warp(bool mine) { return !any_of_warp(!mine); }

namespace detail {

template <bool turned>
Word4 matrices(const void* row) {
  struct Given {
    const uint16_t* row;
    Word4 got;
  } given{static_cast<const uint16_t*>(row), {}};
  if (reinterpret_cast<uintptr_t>(row) % 16) throw simt::Stuck("misaligned row of a matrix");
  static const char site = 0;
  simt::warp_together(&site, &given, [](const void* const* all) {
    const auto of = [&](int lane) { return const_cast<Given*>(static_cast<const Given*>(all[lane])); };
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4;
      uint32_t parts[4];
      for (int i = 0; i < 4; ++i) {
        const uint16_t low = turned ? of(8 * i + 2 * t)->row[g] : of(8 * i + g)->row[2 * t],
                       high = turned ? of(8 * i + 2 * t + 1)->row[g] : of(8 * i + g)->row[2 * t + 1];
        parts[i] = low | static_cast<uint32_t>(high) << 16;
      }
      of(lane)->got = {parts[0], parts[1], parts[2], parts[3]};
    }
  });
  return given.got;
}

}  // namespace detail

inline Word4 load_matrices(const void* row) { return detail::matrices<false>(row); }
inline Word4 load_turned_matrices(const void* row) { return detail::matrices<true>(row); }

}  // namespace fusegen::device
