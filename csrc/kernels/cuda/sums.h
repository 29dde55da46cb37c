// What a lane adds up of a product: four numbers of each tile, in registers as long as loops over them are
// unrolled.
#pragma once
#include <device/thread.h>

namespace fusegen::cuda {

template <int kTiles, int NT, class Each>
FUSEGEN_DEVICE void for_each_sum(const Each& each) {
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
    for (int n = 0; n < NT; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) each(tile, n, i);
}

template <int kTiles, int NT>
FUSEGEN_DEVICE void set_zero(float (&sums)[kTiles][NT][4]) {
  for_each_sum<kTiles, NT>([&](int tile, int n, int i) { sums[tile][n][i] = 0; });
}

// Adds the sums of warps that share rows up into those with k_split 0; `partial` is (8 - unit groups) *
// kTiles * NT * 128 floats of shared memory. One block barrier.
template <int kTiles, int NT>
FUSEGEN_DEVICE void add_up(float (&sums)[kTiles][NT][4], int k_split, int unit_group, int k_splits,
                           float* partial) {
  const int unit_groups = device::kWarps / k_splits, lane = device::lane();
  const auto at = [&](int split, int tile, int n, int i) -> float& {
    return partial[((((split - 1) * unit_groups + unit_group) * kTiles + tile) * NT + n) * 128 + i * 32 +
                   lane];
  };
  if (k_split > 0) {
    for_each_sum<kTiles, NT>([&](int tile, int n, int i) { at(k_split, tile, n, i) = sums[tile][n][i]; });
  }
  device::sync_block();
  if (k_split > 0) return;
#pragma unroll 1
  for (int split = 1; split < k_splits; ++split)
    for_each_sum<kTiles, NT>([&](int tile, int n, int i) { sums[tile][n][i] += at(split, tile, n, i); });
}

}  // namespace fusegen::cuda
