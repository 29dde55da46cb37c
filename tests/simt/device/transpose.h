// The host's side of csrc/kernels/cuda/device/transpose.h.
#pragma once
#include <device/number.h>

namespace fusegen::device {

inline Word4 load_transposed(const void* shared) {
  if (reinterpret_cast<uintptr_t>(shared) % 16) throw simt::Stuck("misaligned row of a matrix");
  struct Given {
    const void* row;
    Word4 made;
  } given{shared, {}};
  static const char site = 0;
  simt::warp_together(&site, &given, [](const void* const* all) {
    const auto number = [&](int matrix, int row, int column) -> uint32_t {
      return static_cast<const uint16_t*>(static_cast<const Given*>(all[8 * matrix + row])->row)[column];
    };
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4;
      const auto word = [&](int matrix) {
        return number(matrix, 2 * t, g) | number(matrix, 2 * t + 1, g) << 16;
      };
      const_cast<Given*>(static_cast<const Given*>(all[lane]))->made = {word(0), word(1), word(2), word(3)};
    }
  });
  return given.made;
}

}  // namespace fusegen::device
