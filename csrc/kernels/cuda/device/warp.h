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

// Four matrices of 8 rows of 16 bytes in shared memory: lane 8i + j names row j of matrix i, and lane 4g + t
// gets, in part i of the word, 4 bytes of matrix i: those at 4t of row g.
FUSEGEN_DEVICE Word4 load_matrices(const void* row) {
  Word4 v;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
  return v;
}

// The same of rows of eight 16-bit numbers, by columns: column g of rows 2t and 2t + 1.
FUSEGEN_DEVICE Word4 load_turned_matrices(const void* row) {
  Word4 v;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
  return v;
}

}  // namespace fusegen::device
