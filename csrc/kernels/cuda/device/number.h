// Numbers as they lie in memory, and their way to float and back (round to nearest even, NaN stays NaN).
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>

#include <device/thread.h>

namespace fusegen::device {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

FUSEGEN_DEVICE float as_float(uint32_t bits) { return __uint_as_float(bits); }
FUSEGEN_DEVICE uint32_t as_bits(float x) { return __float_as_uint(x); }

FUSEGEN_DEVICE float widen(float x) { return x; }
FUSEGEN_DEVICE float widen(Bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
FUSEGEN_DEVICE float widen(F16 x) { return __half2float(__ushort_as_half(x.bits)); }

template <class T>
FUSEGEN_DEVICE T narrow(float x);
template <>
FUSEGEN_DEVICE float narrow<float>(float x) {
  return x;
}
template <>
FUSEGEN_DEVICE Bf16 narrow<Bf16>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}
template <>
FUSEGEN_DEVICE F16 narrow<F16>(float x) {
  return {__half_as_ushort(__float2half_rn(x))};
}

struct Word4 {  // 16 bytes, as one load or store moves them
  uint32_t x, y, z, w;
};
FUSEGEN_DEVICE Word4 load16(const void* p) {
  const uint4 v = *static_cast<const uint4*>(p);
  return {v.x, v.y, v.z, v.w};
}
FUSEGEN_DEVICE void store16(void* p, Word4 v) { *static_cast<uint4*>(p) = make_uint4(v.x, v.y, v.z, v.w); }

FUSEGEN_DEVICE float not_a_number() { return __uint_as_float(0x7fffffffu); }

// 2^x, off by at most 2 ulp, and 1/x, by 1: an instruction each. Subnormal numbers are zeros.
FUSEGEN_DEVICE float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
FUSEGEN_DEVICE float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace fusegen::device
