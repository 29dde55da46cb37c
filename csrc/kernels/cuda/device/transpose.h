// Sixteen-bit numbers read across the rows they lie in.
#pragma once
#include <device/number.h>

namespace fusegen::device {

// By all lanes of a warp; each names 16 bytes in shared memory, the lanes of every eight the rows of a matrix
// of 8 by 8 numbers. Word i of lane 4g+t: numbers g of rows 2t and 2t+1 of matrix i.
FUSEGEN_DEVICE Word4 load_transposed(const void* shared) {
  Word4 v;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared)))
               : "memory");
  return v;
}

}  // namespace fusegen::device
