// The host's side of csrc/kernels/cuda/device/mma.h: the same fragments, multiplied when all 32 lanes have
// come.
#pragma once
#include <device/number.h>

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
inline int numbers(FormatBf16, uint32_t bits, float* out) {
  out[0] = widen(Bf16{static_cast<uint16_t>(bits)});
  out[1] = widen(Bf16{static_cast<uint16_t>(bits >> 16)});
  return 2;
}
inline int numbers(FormatF16, uint32_t bits, float* out) {
  out[0] = widen(F16{static_cast<uint16_t>(bits)});
  out[1] = widen(F16{static_cast<uint16_t>(bits >> 16)});
  return 2;
}
inline int numbers(FormatTf32, uint32_t bits, float* out) {
  out[0] = as_float(bits & 0xffffe000u);
  return 1;
}

// Instruction `i` of the two. Register r of A holds row g + 8 (r % 2), and of k what lane t has of half r
// / 2.
template <class Format>
void instruction(const void* const* all, int i) {
  float a[16][16], b[8][16];
  int n = 0;
  for (int lane = 0; lane < 32; ++lane) {
    const auto& o = *static_cast<const Operands*>(all[lane]);
    const int g = lane / 4, t = lane % 4;
    float e[2];
    for (int r = 0; r < 4; ++r) {
      n = numbers(Format{}, o.a[4 * i + r], e);
      for (int j = 0; j < n; ++j) a[g + 8 * (r % 2)][(r / 2 * 4 + t) * n + j] = e[j];
    }
    for (int r = 0; r < 2; ++r) {
      numbers(Format{}, o.b[2 * i + r], e);
      for (int j = 0; j < n; ++j) b[g][(r * 4 + t) * n + j] = e[j];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto& o = *static_cast<const Operands*>(all[lane]);
    float* d = i ? o.odd : o.even;
    for (int v = 0; v < 4; ++v) {
      const float *row = a[lane / 4 + 8 * (v / 2)], *column = b[2 * (lane % 4) + v % 2];
      float sum = 0;
      for (int k = 0; k < 8 * n; ++k) sum += row[k] * column[k];
      d[v] += sum;
    }
  }
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
