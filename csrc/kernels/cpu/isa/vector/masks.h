// Rows of random masks (kernels/philox.h), a bit an element, made a group of 64 at a time; and what their
// bits do to a vector.
#pragma once
#include <utility>

#include "kernels/philox.h"
#include "simd.h"

namespace fusegen::FUSEGEN_ISA_NS {

constexpr int64_t kMaskGroup = 4 * philox::kGroup;
constexpr int64_t mask_groups(int64_t n) { return (n + kMaskGroup - 1) / kMaskGroup; }

// The halves of a * m.
struct WideProduct {
  Words high, low;
};
FUSEGEN_INLINE WideProduct multiply_wide(Words a, uint32_t m) {
#if defined(__aarch64__)
  const uint32x4_t v = (uint32x4_t)a;
  const uint32x4_t first = vreinterpretq_u32_u64(vmull_n_u32(vget_low_u32(v), m)),
                   second = vreinterpretq_u32_u64(vmull_n_u32(vget_high_u32(v), m));
  return {(Words)vuzp2q_u32(first, second), (Words)vuzp1q_u32(first, second)};
#else
  typedef uint64_t Wide __attribute__((vector_size(kVectorBytes)));
  const Wide factor = Wide{} + m, odd_words = (Wide)a >> 32;
#if defined(__AVX512F__)
  const Wide even = (Wide)_mm512_mul_epu32((__m512i)a, (__m512i)factor),
             odd = (Wide)_mm512_mul_epu32((__m512i)odd_words, (__m512i)factor);
#elif defined(__AVX2__)
  const Wide even = (Wide)_mm256_mul_epu32((__m256i)a, (__m256i)factor),
             odd = (Wide)_mm256_mul_epu32((__m256i)odd_words, (__m256i)factor);
#else
  const Wide even = (Wide)_mm_mul_epu32((__m128i)a, (__m128i)factor),
             odd = (Wide)_mm_mul_epu32((__m128i)odd_words, (__m128i)factor);
#endif
  const Wide low = Wide{} + 0xffffffffu;
  return {(Words)((even >> 32) | (odd & ~low)), (Words)((even & low) | (odd << 32))};
#endif
}

// A bit for each lane that is below `threshold`.
FUSEGEN_INLINE uint64_t lanes_below(Words v, uint32_t threshold) {
  const Words limit = Words{} + threshold;
#if defined(__AVX512F__)
  return _mm512_cmplt_epu32_mask((__m512i)v, (__m512i)limit);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)(v < limit)));
#elif defined(__SSE2__)
  return static_cast<uint32_t>(_mm_movemask_ps((__m128)(v < limit)));
#else
  uint64_t bits = 0;
  for (int i = 0; i < kLanes<float>; ++i) bits |= uint64_t{v[i] < threshold} << i;
  return bits;
#endif
}

// One mask of a direction: which of n elements a row has.
struct MaskRows {
  philox::Mask mask;
  uint64_t key;
  uint32_t place;
  uint32_t threshold;
  int64_t n;

  MaskRows(philox::Mask mask, uint64_t key, uint32_t place, double probability, int64_t n)
      : mask(mask), key(key), place(place), threshold(philox::threshold(probability)), n(n) {}

  // Bits of the groups [begin, end) of a row: set where an element is dropped, or kept old.
  void make(int64_t row, int64_t begin, int64_t end, uint64_t* bits) const {
    for (int64_t group = begin; group < end; ++group)
      bits[group] = of_group(philox::block_of(row, n, group * kMaskGroup));
  }

private:
  // philox::words of kGroup blocks at once. The first block is a multiple of kGroup, so no sum carries.
  uint64_t of_group(uint64_t first) const {
    uint64_t bits = 0;
    for (int i = 0; i < philox::kGroup; i += kLanes<float>) {
      Words w0 = numbered(static_cast<uint32_t>(first) + i, std::make_integer_sequence<int, kLanes<float>>{}),
            w1 = Words{} + static_cast<uint32_t>(first >> 32), w2 = Words{} + place,
            w3 = Words{} + static_cast<uint32_t>(mask);
      uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
      for (int round = 0; round < 10; ++round) {
        const WideProduct a = multiply_wide(w0, 0xD2511F53), b = multiply_wide(w2, 0xCD9E8D57);
        w0 = b.high ^ w1 ^ k0;
        w2 = a.high ^ w3 ^ k1;
        w1 = b.low;
        w3 = a.low;
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
      }
      bits |= (lanes_below(w0, threshold) | lanes_below(w1, threshold) << 16 |
               lanes_below(w2, threshold) << 32 | lanes_below(w3, threshold) << 48)
              << i;
    }
    return bits;
  }
  template <int... i>
  static FUSEGEN_INLINE Words numbered(uint32_t first, std::integer_sequence<int, i...>) {
    return Words{i...} + first;
  }
};

// What is kept of a dropout is multiplied by this.
template <class C>
C kept_scale(double probability) {
  return static_cast<C>(1.0 / (1.0 - probability));
}

template <class C, int... i>
FUSEGEN_INLINE auto lanes_of(uint64_t bits, std::integer_sequence<int, i...>) {
  using Bits = typename VectorOf<C>::bits;
  const Bits each = {(1 << i)...};
  return ((Bits{} + static_cast<int>(bits & ((1u << kLanes<C>)-1))) & each) != 0;
}
// `set` in the lanes of a mask's row, from element u on, that have their bit, else `unset`.
template <class C>
FUSEGEN_INLINE Vector<C> choose(const uint64_t* row, int64_t u, Vector<C> set, Vector<C> unset) {
  return lanes_of<C>(row[u / kMaskGroup] >> (u % kMaskGroup), std::make_integer_sequence<int, kLanes<C>>{})
             ? set
             : unset;
}

}  // namespace fusegen::FUSEGEN_ISA_NS
