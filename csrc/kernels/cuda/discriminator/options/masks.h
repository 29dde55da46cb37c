// The masks of dropout, made once a step, forward, for backward too: by Philox (philox.h), the very bits of
// the CPU's. A lane makes a block, whose four words are four elements of the row; making them where a
// product's sums are finished would take a block for each element, as a lane there has no four of one block.
#pragma once
#include <device/warp.h>

#include "../arguments.h"

namespace fusegen::cuda {

// Whether dropout drops elements n and n + 1 of a row of N, n even: what they are multiplied by.
struct Kept {
  float x, y;
};
FUSEGEN_DEVICE Kept kept_pair(const Dropped& dropped, int N, int row, int n) {
  if (!dropped.bits) return {1, 1};
  const uint64_t bits = dropped.bits[static_cast<int64_t>(row) * mask_groups(N) + n / 64] >> n % 64;
  return {bits & 1 ? 0.0f : dropped.kept, bits & 2 ? 0.0f : dropped.kept};
}

// The number of a row within its kind of mask: a sample with noise has the mask of the one without.
struct MaskRow {
  int64_t number;
  uint32_t kind;  // 0 real, 1 fake, 2 mixed
};
FUSEGEN_DEVICE MaskRow mask_row(const StepArguments& a, int row) {
  if (row < a.split.real) return {row % a.own_real, 0};
  if (row < a.split.plain) return {(row - a.split.real) % a.own_fake, 1};
  return {row - a.split.plain, 2};
}

// Eight rows, a warp each: two groups of 64 elements at a time, half the warp a group. Lane i of a half has
// elements i, 16 + i, 32 + i and 48 + i.
template <class T>
FUSEGEN_DEVICE void masks_of_rows(const StepArguments& a, const MaskArguments& g, int unit) {
  static_assert(philox::kGroup == 16);
  const int row = unit * device::kWarps + device::warp(), lane = device::lane();
  if (row >= a.split.rows) return;
  const MaskRow of = mask_row(a, row);
  const int groups = mask_groups(g.n);
#pragma unroll 1
  for (int group = 0; group < groups; group += 2) {
    const int element = 64 * (group + lane / 16) + lane % 16;
    const philox::Words words = philox::words(a.key, philox::Mask::discriminator, g.place + of.kind,
                                              philox::block_of(of.number, g.n, element));
    uint32_t votes[4];  // word by word; those of the second group from bit 16 on
#pragma unroll
    for (int i = 0; i < 4; ++i) votes[i] = device::votes_of_warp(words.w[i] < g.threshold);
    if (lane < 2 && group + lane < groups) {
      uint64_t bits = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) bits |= static_cast<uint64_t>(votes[i] >> 16 * lane & 0xffffu) << 16 * i;
      g.bits[static_cast<int64_t>(row) * groups + group + lane] = bits;
    }
    if (!g.samples.data) continue;
    const T* from = row_of<T>(a.samples, row);
    T* to = row_of<T>(g.samples, row);
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // 32 neighbours at a time: halves of two words of one group
      const int n = 64 * group + 32 * i + lane;
      const uint32_t word = lane < 16 ? votes[2 * (i % 2)] : votes[2 * (i % 2) + 1];
      const bool is_dropped = word >> (i / 2 * 16 + lane % 16) & 1;
      // times 0, as on the CPU: a NaN stays
      if (n < g.samples.stride)
        to[n] = device::narrow<T>(n < g.n ? device::widen(from[n]) * (is_dropped ? 0.0f : g.kept) : 0.0f);
    }
  }
}

}  // namespace fusegen::cuda
