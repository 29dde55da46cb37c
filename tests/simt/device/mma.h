// The host's side of csrc/kernels/cuda/device/mma.h: the same fragments, multiplied when all 32 lanes have
// come, instruction by instruction in the order of that file.
#pragma once
#include <device/number.h>

#include "../tensor_core.h"

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
// What is left of x beside its TF32 part.
inline float rest(float x, float high) { return std::isfinite(x) ? tf32(x - high) : 0; }

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

// What the lanes hold of A and B, by the k of the two instructions that a product takes: of each, lane t of a
// group of four has in one word the numbers K/4 t.. of the first half of K, in the next those of the second.
struct Fragments {
  float a[2][16 * 16], b[2][8 * 16];  // [instruction][row][k]
  int K = 0;
};

template <class Format>
void gather(Fragments& f, const void* const* all) {
  for (int lane = 0; lane < 32; ++lane) {
    const auto& o = *static_cast<const Operands*>(all[lane]);
    const int g = lane / 4, t = lane % 4;
    const auto place = [&](float (*to)[16 * 16], float (*to_b)[8 * 16], int row, const Word4& word) {
      float e[8];
      const int n = numbers(Format{}, word, e), of_word = n / 4;
      f.K = 2 * n;
      for (int i = 0; i < n; ++i) {
        const int instruction = i / (n / 2), half = i / of_word % 2, k = half * n + t * of_word + i % of_word;
        (to ? to[instruction] : to_b[instruction])[row * f.K + k] = e[i];
      }
    };
    place(f.a, nullptr, g, o.top);
    place(f.a, nullptr, g + 8, o.bottom);
    place(nullptr, f.b, g, o.b);
  }
}

template <class Format>
void instructions(Format, float* d, const Fragments& f) {
  constexpr auto kind = std::is_same_v<Format, FormatTf32> ? simt::Numbers::tf32 : simt::Numbers::of16bits;
  for (int i = 0; i < 2; ++i) simt::multiply_add(d, f.a[i], f.b[i], 16, 8, f.K, kind);
}
// in three products of TF32 numbers
inline void instructions(FormatF32, float* d, const Fragments& f) {
  for (int i = 0; i < 2; ++i) {
    float high_a[16 * 8], rest_a[16 * 8], high_b[8 * 8], rest_b[8 * 8];
    const auto split = [](float* high, float* low, const float* x, int count) {
      for (int j = 0; j < count; ++j) {
        high[j] = tf32(x[j]);
        low[j] = rest(x[j], high[j]);
      }
    };
    split(high_a, rest_a, f.a[i], 16 * 8);
    split(high_b, rest_b, f.b[i], 8 * 8);
    simt::multiply_add(d, high_a, rest_b, 16, 8, 8, simt::Numbers::tf32);
    simt::multiply_add(d, high_a, high_b, 16, 8, 8, simt::Numbers::tf32);
    simt::multiply_add(d, rest_a, high_b, 16, 8, 8, simt::Numbers::tf32);
  }
}

template <class Format>
void multiply(const void* const* all) {
  Fragments f;
  gather<Format>(f, all);
  float d[16 * 8];
  const auto each_sum = [&](const auto& each) {
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i)
        each(static_cast<const Operands*>(all[lane])->d[i],
             d[(lane / 4 + 8 * (i / 2)) * 8 + 2 * (lane % 4) + i % 2]);
  };
  each_sum([](float& of_lane, float& sum) { sum = of_lane; });
  instructions(Format{}, d, f);
  each_sum([](float& of_lane, float& sum) { of_lane = sum; });
}

}  // namespace detail

template <class Format>
void product(Format, float (&d)[4], const Word4& top, const Word4& bottom, const Word4& b) {
  const detail::Operands mine{d, top, bottom, b};
  static const char site = 0;
  simt::warp_together(&site, &mine, detail::multiply<Format>);
}

}  // namespace fusegen::device
