// Products on tensor cores (device/mma.h) of what lies in memory, in every format, and the sums under way.
//
// True float32 is three products of TF32 numbers. x = h + l, h the nearest TF32 number and l = x - h, exact:
// 12 bits, of which the multipliers take 11. Then a b = ah bh + (ah bl + al bh), and what is missing is al
// bl, at most 2^-22 |a b|, and the last bit of each l, at most 2^-23 |a b|: 2^-21 |a b| in all, without a
// bias. The small products have sums of their own, which the cut of the tensor cores' sums (they do not
// round) then touches below the last place of the large ones.
//
// Infinity: its l is NaN, and so is any sum of small products that it, or a NaN, comes into; where products
// of finite numbers overflow, small ones may become infinite with the other sign. The sum of the large ones
// has then already become what IEEE says of the whole, so a small sum that is not finite counts for nothing.
#pragma once
#include <device/mma.h>

#include "sums.h"

namespace fusegen::cuda {

using device::Fragment;
using device::Word4;

constexpr float kMost = 3.4028234663852886e38f;  // of finite numbers

// A lane's part of 16 rows of A, as registers keep it for many products.
template <class Format>
FUSEGEN_DEVICE Fragment fragment_of(Format, const Word4& top, const Word4& bottom) {
  return device::fragment(top, bottom);
}
template <>
FUSEGEN_DEVICE Fragment fragment_of(device::FormatTf32, const Word4& top, const Word4& bottom) {
  Fragment f = device::fragment(top, bottom);
#pragma unroll
  for (uint32_t& bits : f.a) bits = device::tf32(bits);
  return f;
}

// What is left of x beside its nearest TF32 number.
FUSEGEN_DEVICE uint32_t rest(uint32_t x, uint32_t high) {
  return device::as_bits(device::as_float(x) - device::as_float(high));
}

// Such a part, and one of 8 columns of B, as the multipliers take them: made once, for all products of the
// one with several of the other.
template <class Format>
struct RowsOf {
  Fragment all;
  explicit FUSEGEN_DEVICE RowsOf(const Fragment& kept) : all(kept) {}
};
template <>
struct RowsOf<device::FormatF32> {
  Fragment high, low;
  explicit FUSEGEN_DEVICE RowsOf(const Fragment& kept) {
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      high.a[r] = device::tf32(kept.a[r]);
      low.a[r] = rest(kept.a[r], high.a[r]);
    }
  }
};

template <class Format>
struct ColumnsOf {
  Word4 all;
  explicit FUSEGEN_DEVICE ColumnsOf(const Word4& v) : all(v) {}
};
template <>
struct ColumnsOf<device::FormatTf32> {
  Word4 all;
  explicit FUSEGEN_DEVICE ColumnsOf(const Word4& v)
      : all{device::tf32(v.x), device::tf32(v.y), device::tf32(v.z), device::tf32(v.w)} {}
};
template <>
struct ColumnsOf<device::FormatF32> {
  Word4 high, low;
  explicit FUSEGEN_DEVICE ColumnsOf(const Word4& v)
      : high(ColumnsOf<device::FormatTf32>(v).all),
        low{rest(v.x, high.x), rest(v.y, high.y), rest(v.z, high.z), rest(v.w, high.w)} {}
};

// kChains times four numbers that add up to what a lane has of a tile. An instruction waits for the one
// before into the same four, so products are dealt over the chains: an even number of them, or 1.
template <int kChains>
struct Chains {
  float d[kChains][4];

  FUSEGEN_DEVICE void start(const float (&first)[4]) {
#pragma unroll
    for (int chain = 0; chain < kChains; ++chain)
#pragma unroll
      for (int v = 0; v < 4; ++v) d[chain][v] = chain == 0 ? first[v] : 0.0f;
  }
  // Product number `i`, known when compiled.
  template <class Format>
  FUSEGEN_DEVICE void add(Format format, int i, const Fragment& a, const Word4& b) {
    device::multiply_add(format, d[2 * i % kChains], d[(2 * i + 1) % kChains], a, b);
  }
  FUSEGEN_DEVICE float total(int v) const {
    float sum = d[0][v];
#pragma unroll
    for (int chain = 1; chain < kChains; ++chain) sum += d[chain][v];
    return sum;
  }
};

// A tile's sums while products with it go on.
template <class Format, int kChains>
class Sum {
public:
  FUSEGEN_DEVICE void start(const float (&first)[4] = {0, 0, 0, 0}) { all_.start(first); }
  FUSEGEN_DEVICE void add(int i, const RowsOf<Format>& a, const ColumnsOf<Format>& b) {
    all_.add(Format{}, i, a.all, b.all);
  }
  FUSEGEN_DEVICE void fold() {}
  FUSEGEN_DEVICE float total(int v) const { return all_.total(v); }

private:
  Chains<kChains> all_;
};

// fold() adds the small products' sums to the large ones and starts them again: beside R, where registers are
// few, their chains are four instructions a product long.
template <int kChains>
class Sum<device::FormatF32, kChains> {
public:
  FUSEGEN_DEVICE void start(const float (&first)[4] = {0, 0, 0, 0}) {
    large_.start(first);
    small_.start({0, 0, 0, 0});
  }
  FUSEGEN_DEVICE void add(int i, const RowsOf<device::FormatF32>& a, const ColumnsOf<device::FormatF32>& b) {
    constexpr device::FormatTf32 format;
    small_.add(format, i, a.high, b.low);
    large_.add(format, i, a.high, b.high);
    small_.add(format, i, a.low, b.high);
  }
  FUSEGEN_DEVICE void fold() {
#pragma unroll
    for (int v = 0; v < 4; ++v) large_.d[0][v] = with_small(large_.d[0][v], v);
    small_.start({0, 0, 0, 0});
  }
  FUSEGEN_DEVICE float total(int v) const { return with_small(large_.total(v), v); }

private:
  FUSEGEN_DEVICE float with_small(float sum, int v) const {
    const float small = small_.total(v);
    if (fabsf(small) <= kMost) sum += small;
    return sum;
  }

  Chains<kChains> large_;
  Chains<(kChains > 2 ? 2 : 1)> small_;
};

// d += the product of what was just loaded.
template <class Format>
FUSEGEN_DEVICE void add_product(Format format, float (&d)[4], const Word4& top, const Word4& bottom,
                                const Word4& b) {
  Sum<Format, 1> sum;
  sum.start(d);
  sum.add(0, RowsOf<Format>(fragment_of(format, top, bottom)), ColumnsOf<Format>(b));
#pragma unroll
  for (int v = 0; v < 4; ++v) d[v] = sum.total(v);
}

}  // namespace fusegen::cuda
