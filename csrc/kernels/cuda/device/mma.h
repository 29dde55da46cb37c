// The tensor-core product that every kernel here is made of: D[16 x 8] += A[16 x k] B[k x 8], k as many
// numbers as 64 bytes hold, added up in float32. The order of k is free as long as A and B agree, so a lane
// takes 16 bytes in a row of each: lane 4g+t holds bytes 16t..16t+15 of rows g (`top`) and g+8 (`bottom`) of
// A, and of column g of B. It gets D of rows g (d[0], d[1]) and g+8 (d[2], d[3]), columns 2t and 2t+1.
#pragma once
#include <device/number.h>

namespace fusegen::device {

// What the multipliers take: 16-bit numbers, float32 rounded to TF32, or float32 as the sum of two TF32
// numbers.
struct FormatBf16 {};
struct FormatF16 {};
struct FormatTf32 {};
struct FormatF32 {};

namespace detail {

FUSEGEN_DEVICE void mma16(FormatBf16, float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                          uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
FUSEGEN_DEVICE void mma16(FormatF16, float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                          uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
FUSEGEN_DEVICE void mma8(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

FUSEGEN_DEVICE uint32_t tf32(float x) {
  uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return r;
}

// What is left of x beside its TF32 part. Of infinity nothing: inf - inf would be NaN; NaN is in the TF32
// part already.
FUSEGEN_DEVICE uint32_t rest(uint32_t bits, uint32_t high) {
  const float x = __uint_as_float(bits);
  return fabsf(x) <= 3.0e38f ? tf32(x - __uint_as_float(high)) : 0u;
}

}  // namespace detail

template <class Format>
FUSEGEN_DEVICE void product(Format format, float (&d)[4], const Word4& top, const Word4& bottom,
                            const Word4& b) {
  detail::mma16(format, d, top.x, bottom.x, top.y, bottom.y, b.x, b.y);
  detail::mma16(format, d, top.z, bottom.z, top.w, bottom.w, b.z, b.w);
}

template <>
FUSEGEN_DEVICE void product(FormatTf32, float (&d)[4], const Word4& top, const Word4& bottom,
                            const Word4& b) {
  const auto round = [](uint32_t bits) { return detail::tf32(__uint_as_float(bits)); };
  detail::mma8(d, round(top.x), round(bottom.x), round(top.y), round(bottom.y), round(b.x), round(b.y));
  detail::mma8(d, round(top.z), round(bottom.z), round(top.w), round(bottom.w), round(b.z), round(b.w));
}

// a b = (ah + al)(bh + bl); al bl is below float32's last bit.
template <>
FUSEGEN_DEVICE void product(FormatF32, float (&d)[4], const Word4& top, const Word4& bottom, const Word4& b) {
  const auto half = [&](uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    const auto high = [](uint32_t bits) { return detail::tf32(__uint_as_float(bits)); };
    const uint32_t t0 = high(b0), t1 = high(b1), s0 = high(a0), s1 = high(a1), s2 = high(a2), s3 = high(a3);
    detail::mma8(d, s0, s1, s2, s3, detail::rest(b0, t0), detail::rest(b1, t1));
    detail::mma8(d, s0, s1, s2, s3, t0, t1);
    detail::mma8(d, detail::rest(a0, s0), detail::rest(a1, s1), detail::rest(a2, s2), detail::rest(a3, s3),
                 t0, t1);
  };
  half(top.x, bottom.x, top.y, bottom.y, b.x, b.y);
  half(top.z, bottom.z, top.w, bottom.w, b.z, b.w);
}

}  // namespace fusegen::device
