// Rows of a caller's tensors and of scratch.
#pragma once
#include "kernels/params.h"
#include "simd.h"

namespace fusegen::FUSEGEN_ISA_NS {

// Row strides of scratch: whole vectors, and one more so that rows do not fall on the same cache sets.
template <class C>
constexpr int64_t padded(int64_t n) {
  return (n + kLanes<C> - 1) / kLanes<C> * kLanes<C> + kLanes<C>;
}

template <class S>
S* row_of(const Rows& r, int64_t t, int64_t b) {
  return static_cast<S*>(r.data) + t * r.stride_t + b * r.stride_b;
}

// Of n elements, how many lie in the vector that begins at u.
template <class C>
FUSEGEN_INLINE int lanes_left(int64_t n, int64_t u) {
  return n - u < kLanes<C> ? static_cast<int>(n - u) : kLanes<C>;
}

}  // namespace fusegen::FUSEGEN_ISA_NS
