// Matrices in shared memory, a word of each to every lane, as the multipliers take them.
#pragma once
#include <device/number.h>

namespace fusegen::device {

// By all lanes of a warp; each names 16 bytes, the lanes of every eight the rows of a matrix. Word i of lane
// 4g+t: bytes 4t..4t+3 of row g of matrix i.
FUSEGEN_DEVICE Word4 load_matrices(const void* shared) {
  Word4 v;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared)))
               : "memory");
  return v;
}

// The same of 16-bit numbers, read across the rows: numbers g of rows 2t and 2t+1 of matrix i.
FUSEGEN_DEVICE Word4 load_transposed(const void* shared) {
  Word4 v;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared)))
               : "memory");
  return v;
}

}  // namespace fusegen::device
