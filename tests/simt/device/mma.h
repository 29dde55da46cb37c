// The host's side of csrc/kernels/cuda/device/mma.h: the same fragments, multiplied when all 32 lanes have
// come.
#pragma once
#include <device/number.h>

#include <type_traits>

#include "../tensor_core.h"

namespace fusegen::device {

struct FormatBf16 {};
struct FormatF16 {};
struct FormatTf32 {};
struct FormatF32 {};

struct Fragment {
  uint32_t a[8];
};

inline Fragment fragment(const Word4& top, const Word4& bottom) {
  return {{top.x, bottom.x, top.y, bottom.y, top.z, bottom.z, top.w, bottom.w}};
}

inline Fragment settled(const Fragment& f) { return f; }

inline uint32_t tf32(uint32_t bits) {  // 10 bits of fraction, ties to even
  const float x = as_float(bits);
  if (x != x) return 0x7fffffffu;
  if (std::isinf(x)) return bits;
  return (bits + 0xfffu + ((bits >> 13) & 1)) & 0xffffe000u;
}

namespace detail {

struct Operands {
  float *even, *odd;
  const uint32_t *a, *b;
};

// The numbers of a register as the multipliers see them.
inline void numbers(FormatBf16, uint32_t bits, float* out) {
  out[0] = widen(Bf16{static_cast<uint16_t>(bits)});
  out[1] = widen(Bf16{static_cast<uint16_t>(bits >> 16)});
}
inline void numbers(FormatF16, uint32_t bits, float* out) {
  out[0] = widen(F16{static_cast<uint16_t>(bits)});
  out[1] = widen(F16{static_cast<uint16_t>(bits >> 16)});
}
inline void numbers(FormatTf32, uint32_t bits, float* out) { out[0] = as_float(bits & 0xffffe000u); }

// Instruction `i` of the two. Register r of A holds row g + 8 (r % 2), and of k what lane t has of half r
// / 2.
template <class Format>
void instruction(const void* const* all, int i) {
  float a[16 * 16], b[8 * 16], d[16 * 8];
  constexpr int n = std::is_same_v<Format, FormatTf32> ? 1 : 2, K = 8 * n;
  const auto each_sum = [&](const auto& each) {
    for (int lane = 0; lane < 32; ++lane) {
      const auto& o = *static_cast<const Operands*>(all[lane]);
      float* of_lane = i ? o.odd : o.even;
      for (int v = 0; v < 4; ++v) each(of_lane[v], d[(lane / 4 + 8 * (v / 2)) * 8 + 2 * (lane % 4) + v % 2]);
    }
  };
  for (int lane = 0; lane < 32; ++lane) {
    const auto& o = *static_cast<const Operands*>(all[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; ++r)
      numbers(Format{}, o.a[4 * i + r], a + (g + 8 * (r % 2)) * K + (r / 2 * 4 + t) * n);
    for (int r = 0; r < 2; ++r) numbers(Format{}, o.b[2 * i + r], b + g * K + (r * 4 + t) * n);
  }
  each_sum([](float& of_lane, float& sum) { sum = of_lane; });
  simt::multiply_add(d, a, b, 16, 8, K, n == 1 ? simt::Numbers::tf32 : simt::Numbers::of16bits);
  each_sum([](float& of_lane, float& sum) { of_lane = sum; });
}

template <class Format>
void both(const void* const* all) {
  instruction<Format>(all, 0);
  instruction<Format>(all, 1);
}

}  // namespace detail

template <class Format>
void multiply_add(Format, float (&even)[4], float (&odd)[4], const Fragment& a, const Word4& b) {
  const uint32_t columns[4] = {b.x, b.y, b.z, b.w};
  const detail::Operands mine{even, odd, a.a, columns};
  static const char site = 0;
  simt::warp_together(&site, &mine, detail::both<Format>);
}

}  // namespace fusegen::device
