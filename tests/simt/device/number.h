// The host's side of csrc/kernels/cuda/device/number.h.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include <device/thread.h>

namespace fusegen::device {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

inline float as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t as_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

inline float widen(float x) { return x; }
inline float widen(Bf16 x) { return as_float(static_cast<uint32_t>(x.bits) << 16); }
inline float widen(F16 x) {
  const uint32_t sign = (x.bits & 0x8000u) << 16, exponent = (x.bits >> 10) & 31, fraction = x.bits & 0x3ffu;
  if (exponent == 31) return as_float(sign | 0x7f800000u | fraction << 13);
  if (exponent == 0) return as_float(sign | as_bits(static_cast<float>(fraction) * 0x1p-24f));
  return as_float(sign | (exponent + 112) << 23 | fraction << 13);
}

template <class T>
T narrow(float x);
template <>
inline float narrow<float>(float x) {
  return x;
}
template <>
inline Bf16 narrow<Bf16>(float x) {
  const uint32_t bits = as_bits(x);
  if (x != x) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16)};
}
template <>
inline F16 narrow<F16>(float x) {
  const uint32_t bits = as_bits(x), sign = (bits >> 16) & 0x8000u;
  const float size = std::fabs(x);
  if (x != x) return {0x7fff};
  if (size >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00u)};
  if (size < 0x1p-14f)
    return {static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(size * 0x1p24f)))};
  const uint32_t rounded = (bits & 0x7fffffffu) + 0xfffu + ((bits >> 13) & 1);
  return {static_cast<uint16_t>(sign | ((rounded >> 13) - (112u << 10)))};
}

struct Word4 {
  uint32_t x, y, z, w;
};
inline Word4 load16(const void* p) {
  Word4 v;
  std::memcpy(&v, p, 16);
  return v;
}
inline void store16(void* p, Word4 v) { std::memcpy(p, &v, 16); }

inline float not_a_number() { return std::numeric_limits<float>::quiet_NaN(); }

namespace detail {

// A result of the multifunction unit: off by up to so many ulp, differently for each argument; subnormal
// numbers are zeros.
inline float off(double result, float argument, int ulp) {
  const auto y = static_cast<float>(result);
  if (!std::isfinite(y) || y == 0) return y;
  const int by = static_cast<int>((as_bits(argument) * 0x9e3779b1u >> 16) % (2 * ulp + 1)) - ulp;
  const float z = as_float(as_bits(y) + static_cast<uint32_t>(by));
  return std::fabs(z) < 0x1p-126f ? std::copysign(0.0f, z) : z;
}
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

}  // namespace detail

inline float power_of_two(float x) {
  x = detail::flushed(x);
  return x == 0 ? 1.0f : detail::off(std::exp2(static_cast<double>(x)), x, 2);
}
inline float reciprocal(float x) {
  x = detail::flushed(x);
  return detail::off(1.0 / static_cast<double>(x), x, 1);
}

}  // namespace fusegen::device
