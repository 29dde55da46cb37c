// Matrices in global memory whose rows a warp multiplies, and how their numbers are read.
#pragma once
#include <device/mma.h>
#include <device/number.h>

#include "layout.h"

namespace fusegen::cuda {

// Rows of `valid` numbers, one after another.
struct Operand {
  const void* data[2];  // of a direction
  int units;            // rows of a gate
  int valid;
  bool aligned;  // 16-byte loads fit
  int chunks;    // of the padded row, in all
};

// [gates * units, valid] of D directions, to be multiplied with such vectors.
inline Operand operand_of(const void* const (&data)[2], int D, int units, const PaddedVector& v) {
  Operand a{};
  a.units = units;
  a.valid = v.valid;
  a.chunks = static_cast<int>(v.bytes / kChunk);
  a.aligned = v.valid * v.number % 16 == 0;
  for (int d = 0; d < D; ++d) {
    a.data[d] = data[d];
    a.aligned = a.aligned && reinterpret_cast<uintptr_t>(data[d]) % 16 == 0;
  }
  return a;
}

// Up to a word of numbers, one by one; zero past `count`.
template <class T>
FUSEGEN_DEVICE device::Word4 gather_word(const T* from, int count) {
  uint32_t parts[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < 16 / static_cast<int>(sizeof(T)); ++i) {
    if (i >= count) break;
    if constexpr (sizeof(T) == 4) {
      parts[i] = device::as_bits(from[i]);
    } else {
      parts[i / 2] |= static_cast<uint32_t>(from[i].bits) << (16 * (i % 2));
    }
  }
  return {parts[0], parts[1], parts[2], parts[3]};
}

// 16 bytes of a row from number `k` of the vector on; zero where the row has none.
template <class T>
FUSEGEN_DEVICE device::Word4 load_numbers(const Operand& a, int direction, int row, int k) {
  constexpr int n = 16 / static_cast<int>(sizeof(T));
  if (row < 0 || k >= a.valid) return {0, 0, 0, 0};
  const T* from = static_cast<const T*>(a.data[direction]) + static_cast<int64_t>(row) * a.valid + k;
  if (a.aligned && k + n <= a.valid) return device::load16(from);
  return gather_word(from, a.valid - k);
}

}  // namespace fusegen::cuda
