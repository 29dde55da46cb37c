// The host's side of csrc/kernels/cuda/device/mma.h: the same fragments, multiplied when all 32 lanes have
// come.
#pragma once
#include <device/number.h>

namespace fusegen::device {

struct FormatBf16 {};
struct FormatF16 {};
struct FormatTf32 {};
struct FormatF32 {};

namespace detail {

struct Operands {
  float* d;
  Word4 top, bottom, b;
};

inline float tf32(float x) {  // 10 bits of fraction, ties away from zero
  if (!std::isfinite(x)) return x;
  return as_float((as_bits(x) + 0x1000u) & 0xffffe000u);
}

// The numbers of 16 bytes as the multipliers see them.
inline int numbers(FormatBf16, Word4 v, float* out) {
  uint16_t e[8];
  std::memcpy(e, &v, 16);
  for (int i = 0; i < 8; ++i) out[i] = widen(Bf16{e[i]});
  return 8;
}
inline int numbers(FormatF16, Word4 v, float* out) {
  uint16_t e[8];
  std::memcpy(e, &v, 16);
  for (int i = 0; i < 8; ++i) out[i] = widen(F16{e[i]});
  return 8;
}
inline int numbers(FormatF32, Word4 v, float* out) {
  std::memcpy(out, &v, 16);
  return 4;
}
inline int numbers(FormatTf32, Word4 v, float* out) {
  std::memcpy(out, &v, 16);
  for (int i = 0; i < 4; ++i) out[i] = tf32(out[i]);
  return 4;
}

template <class Format>
float dot(Format, const float* a, const float* b, int n) {
  float sum = 0;
  for (int k = 0; k < n; ++k) sum += a[k] * b[k];
  return sum;
}
// in three products of TF32 numbers, as there
inline float dot(FormatF32, const float* a, const float* b, int n) {
  float small = 0, large = 0;
  for (int k = 0; k < n; ++k) {
    const float ah = tf32(a[k]), bh = tf32(b[k]);
    const float al = std::isfinite(a[k]) ? tf32(a[k] - ah) : 0,
                bl = std::isfinite(b[k]) ? tf32(b[k] - bh) : 0;
    small += al * bh + ah * bl;
    large += ah * bh;
  }
  return small + large;
}

template <class Format>
void multiply(const void* const* all) {
  float a[16][32], b[8][32];
  int n = 0;
  for (int lane = 0; lane < 32; ++lane) {
    const auto& o = *static_cast<const Operands*>(all[lane]);
    const int g = lane / 4, t = lane % 4;
    float e[8];
    n = numbers(Format{}, o.top, e);
    for (int i = 0; i < n; ++i) a[g][t * n + i] = e[i];
    numbers(Format{}, o.bottom, e);
    for (int i = 0; i < n; ++i) a[g + 8][t * n + i] = e[i];
    numbers(Format{}, o.b, e);
    for (int i = 0; i < n; ++i) b[g][t * n + i] = e[i];
  }
  for (int lane = 0; lane < 32; ++lane) {
    float* d = static_cast<const Operands*>(all[lane])->d;
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) d[i] += dot(Format{}, a[g + 8 * (i / 2)], b[2 * t + i % 2], 4 * n);
  }
}

}  // namespace detail

template <class Format>
void product(Format, float (&d)[4], const Word4& top, const Word4& bottom, const Word4& b) {
  const detail::Operands mine{d, top, bottom, b};
  static const char site = 0;
  simt::warp_together(&site, &mine, detail::multiply<Format>);
}

}  // namespace fusegen::device
