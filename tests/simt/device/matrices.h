// The host's side of csrc/kernels/cuda/device/matrices.h.
#pragma once
#include <device/number.h>

namespace fusegen::device {

namespace detail {

struct Matrices {
  const void* row;
  Word4 made;
};

// word(rows of a matrix, g, t)
template <class WordOf>
Word4 load_matrices(const void* shared, const char* site) {
  if (reinterpret_cast<uintptr_t>(shared) % 16) throw simt::Stuck("misaligned row of a matrix");
  Matrices given{shared, {}};
  simt::warp_together(site, &given, [](const void* const* all) {
    const auto* const* lanes = reinterpret_cast<const Matrices* const*>(all);
    for (int lane = 0; lane < 32; ++lane) {
      const auto word = [&](int i) { return WordOf::word(lanes + 8 * i, lane / 4, lane % 4); };
      const_cast<Matrices*>(lanes[lane])->made = {word(0), word(1), word(2), word(3)};
    }
  });
  return given.made;
}

struct Along {
  static uint32_t word(const Matrices* const* rows, int g, int t) {
    return static_cast<const uint32_t*>(rows[g]->row)[t];
  }
};
struct Across {
  static uint32_t word(const Matrices* const* rows, int g, int t) {
    const auto number = [&](int row) -> uint32_t { return static_cast<const uint16_t*>(rows[row]->row)[g]; };
    return number(2 * t) | number(2 * t + 1) << 16;
  }
};

}  // namespace detail

inline Word4 load_matrices(const void* shared) {
  static const char site = 0;
  return detail::load_matrices<detail::Along>(shared, &site);
}
inline Word4 load_transposed(const void* shared) {
  static const char site = 0;
  return detail::load_matrices<detail::Across>(shared, &site);
}

}  // namespace fusegen::device
