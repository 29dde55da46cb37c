// The host's side of csrc/kernels/cuda/device/warpgroup.h: a warp's part of a product is formed when its
// group is waited for, as late as it can be, by the descriptors' own rules.
#pragma once
#include <device/mma.h>

#include "../memory.h"

namespace fusegen::device {

constexpr bool kHasWarpgroups = true;

struct SharedMatrix {
  uint64_t descriptor;
};

namespace detail {

inline SharedMatrix shared_matrix(const void* start, int leading, int stride, uint64_t swizzle) {
  const auto address =
      static_cast<uint64_t>(static_cast<const unsigned char*>(start) - simt::shared_memory());
  if (address % 16 || leading % 16 || stride % 16) throw simt::Stuck("a misaligned matrix in shared memory");
  return {(address & 0x3ffff) >> 4 | static_cast<uint64_t>(leading >> 4) << 16 |
          static_cast<uint64_t>(stride >> 4) << 32 | swizzle << 62};
}

// Where the number in row (of A; column of B) r and place k of 16 lies.
inline const unsigned char* place_of(SharedMatrix m, bool across, int r, int k) {
  const auto offset = [&](int bit) { return static_cast<int>(m.descriptor >> bit & 0x3fff) << 4; };
  const int start = offset(0), leading = offset(16), stride = offset(32);
  const int bytes = m.descriptor >> 62 == 1 ? 128 : 64;
  int at = across ? start + r / 64 * leading + r % 64 * 2 + k / 8 * stride + k % 8 * bytes
                  : start + r / 8 * stride + r % 8 * bytes + k * 2;
  at ^= (at >> 7 & (bytes / 16 - 1)) << 4;
  return simt::shared_memory() + at;
}
template <class T>
float number_of(SharedMatrix m, bool across, int r, int k) {
  return widen(T{simt::half_word(place_of(m, across, r, k))});
}

struct WarpgroupProduct {
  float (*d)[4];
  SharedMatrix a, b;
  bool across_a, across_b;
  void (*form)(const WarpgroupProduct&);
  float rows[2][16];  // of A, the lane's, where the warps' registers have it
};

// The words of A, 64 rows of 32 bytes where it lies in memory, and of B, dealt over the lanes of the four
// warps: what the memory model is told of.
template <int kColumns, bool kept_a, class Each>
void for_each_word(const WarpgroupProduct& p, const Each& each) {
  const auto one = [&](SharedMatrix m, bool across, int i) {
    each(across ? place_of(m, true, i / 16 * 8, i % 16) : place_of(m, false, i / 2, i % 2 * 8));
  };
  if (!kept_a) one(p.a, p.across_a, thread() % 128);
  for (int i = thread() % 128; i < 2 * kColumns; i += 128) one(p.b, p.across_b, i);
}

template <class T, int kColumns, bool kept_a>
void form(const WarpgroupProduct& p) {
  constexpr int kOfLane = kColumns / 4;
  const int g = lane() / 4, t = lane() % 4;
  float a[2][16], b[kOfLane][16], d[2][kOfLane];  // of the lane: two rows, two of every eight columns
  for (int k = 0; k < 16; ++k) {
    for (int i = 0; i < 2; ++i)
      a[i][k] = kept_a ? p.rows[i][k] : number_of<T>(p.a, p.across_a, warp() % 4 * 16 + g + 8 * i, k);
    for (int n = 0; n < kOfLane; ++n) b[n][k] = number_of<T>(p.b, p.across_b, n / 2 * 8 + 2 * t + n % 2, k);
  }
  for (int n = 0; n < kOfLane; ++n)
    for (int i = 0; i < 2; ++i) d[i][n] = p.d[n / 2][2 * i + n % 2];
  simt::multiply_add(d[0], a[0], b[0], 2, kOfLane, 16, simt::Numbers::of16bits);
  for (int n = 0; n < kOfLane; ++n)
    for (int i = 0; i < 2; ++i) p.d[n / 2][2 * i + n % 2] = d[i][n];
  for_each_word<kColumns, kept_a>(p, [](const void* word) {
    simt::memory::complete(word, 16, simt::memory::kRead | simt::memory::kProxy);
  });
}

// The lane's two rows of 16 numbers, of which four lanes have four each.
template <class T>
void gather_rows(float (&rows)[2][16], const uint32_t (&a)[4]) {
  struct Given {
    const uint32_t* a;
    float (*rows)[16];
  } mine{a, rows};
  static const char site = 0;
  simt::warp_together(&site, &mine, [](const void* const* all) {
    for (int lane = 0; lane < 32; ++lane)
      for (int t = 0; t < 4; ++t)
        for (int i = 0; i < 4; ++i)
          for (int n = 0; n < 2; ++n)
            static_cast<const Given*>(all[lane])->rows[i % 2][i / 2 * 8 + 2 * t + n] = widen(
                T{static_cast<uint16_t>(static_cast<const Given*>(all[lane / 4 * 4 + t])->a[i] >> 16 * n)});
  });
}

// Of the lane that runs: its groups under way, the last one open. In ../warpgroup.cpp, since what is compiled
// with the kernels is held against the memory model.
void ask_for(const WarpgroupProduct& product);
void close_group();
void form_groups(size_t open);  // all but the last `open`

template <class Format>
struct NumberOf;
template <>
struct NumberOf<FormatBf16> {
  using Type = Bf16;
};
template <>
struct NumberOf<FormatF16> {
  using Type = F16;
};

}  // namespace detail

inline SharedMatrix matrix_along(const void* start) { return detail::shared_matrix(start, 16, 512, 2); }
inline SharedMatrix matrix_across(const void* start, int leading) {
  return detail::shared_matrix(start, leading, 1024, 1);
}
inline void fence_for_products() { simt::memory::fence_proxy(simt::memory::Space::shared); }
inline void begin_products() {}
inline void end_product_group() { detail::close_group(); }
template <int open>
void product_groups_done() {
  detail::form_groups(open);
}
template <int kColumns, bool kept_a>
void ask_for(const detail::WarpgroupProduct& product) {
  detail::for_each_word<kColumns, kept_a>(product, [](const void* word) {
    simt::memory::access(word, 16, simt::memory::kRead | simt::memory::kProxy | simt::memory::kPending);
  });
  detail::ask_for(product);
}
template <int across_a, int across_b, class Format>
void warpgroup_product(Format, float (&d)[16][4], SharedMatrix a, SharedMatrix b) {
  using T = typename detail::NumberOf<Format>::Type;
  ask_for<128, false>({d, a, b, across_a == 1, across_b == 1, detail::form<T, 128, false>, {}});
}
template <class Format, int kColumns8>
void warpgroup_product(Format, float (&d)[kColumns8][4], const uint32_t (&a)[4], SharedMatrix b) {
  using T = typename detail::NumberOf<Format>::Type;
  detail::WarpgroupProduct product{d, {}, b, false, false, detail::form<T, 8 * kColumns8, true>, {}};
  detail::gather_rows<T>(product.rows, a);
  ask_for<8 * kColumns8, true>(product);
}

}  // namespace fusegen::device
