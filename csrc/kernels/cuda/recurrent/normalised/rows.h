// What the kernels of rows have in common: a row of the batch at a step, its lanes, and their sums.
#pragma once
#include <device/exchange.h>
#include <device/root.h>
#include <device/warp.h>

#include "../../access.h"
#include "../../layout.h"
#include "../../sigmoid_tanh.h"
#include "../boundaries.h"
#include "arguments.h"

namespace fusegen::cuda::normalised {

constexpr int kMostSums = 8;                                    // at once
constexpr int kRowShared = 2 * device::kWarps * kMostSums * 4;  // bytes

// A row at this step. A sequence's first step is the one that forward runs first.
template <class Pass>
struct Row {
  int d, b, t, lane;
  int length;  // -1: out of range, what the sequence gives is NaN
  bool there;  // blocks reach past the last row
  bool reverse, live, first, last;

  FUSEGEN_DEVICE explicit Row(const RowArguments<Pass>& a) {
    const int lanes = 1 << a.log_lanes,
              row = device::block() * (device::kThreads >> a.log_lanes) + (device::thread() >> a.log_lanes);
    lane = device::thread() & (lanes - 1);
    d = row >= a.pass.B ? 1 : 0;
    there = row < a.pass.D * a.pass.B;
    if (!there) d = 0;
    b = there ? row - d * a.pass.B : 0;
    t = a.t[d];
    reverse = d == 1;
    const int64_t n = !there ? 0 : a.pass.lengths ? a.pass.lengths[b] : a.pass.T;
    length = n < 0 || n > a.pass.T ? -1 : static_cast<int>(n);
    live = t >= 0 && t < length;
    first = live && t == (reverse ? length - 1 : 0);
    last = live && t == (reverse ? 0 : length - 1);
  }
  FUSEGEN_DEVICE bool bad() const { return length < 0; }
  // Of [D,B,..], [D,T,B,..] and [T,B,D,..].
  FUSEGEN_DEVICE int64_t state(const Pass& p) const { return static_cast<int64_t>(d) * p.B + b; }
  FUSEGEN_DEVICE int64_t saved(const Pass& p, int at) const { return (d * p.T + at) * p.B + b; }
  FUSEGEN_DEVICE int64_t call(const Pass& p, int at) const {
    return (static_cast<int64_t>(at) * p.B + b) * p.D + d;
  }
  // Whether the sequence starts anew before a step, counted as forward runs them.
  FUSEGEN_DEVICE bool anew(const Pass& p, int order) const {
    return there && p.boundaries.at && starts_anew(p, d, order, b);
  }
};

// f(unit) for those of a lane.
template <class F>
FUSEGEN_DEVICE void each_unit(int lane, int log_lanes, int units, const F& f) {
#pragma unroll 1
  for (int unit = lane; unit < units; unit += 1 << log_lanes) f(unit);
}

// What a layer norm averages over: all gates or, of Ba's GRU, the third apart.
FUSEGEN_DEVICE int group_of(Norm norm, Cell cell, int gate) {
  return norm == Norm::ba && cell == Cell::gru && gate == 2 ? 1 : 0;
}

// Each number's sum over the lanes of a row, to all of them, by every lane of the block: the same bits in
// each, in an order that the number of lanes alone decides. `turn` counts the calls of a kernel.
template <int N>
FUSEGEN_DEVICE void add_over_row(float (&v)[N], int log_lanes, int turn) {
  static_assert(N <= kMostSums);
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2)
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] += device::from_lane_xor(v[i], mask);
  if (log_lanes == 5) return;
  // Two copies by turns: behind the barrier of one, all have read the other.
  float* const of_warps =
      reinterpret_cast<float*>(device::shared_memory()) + turn % 2 * (device::kWarps * kMostSums);
  if (device::lane() == 0) {
#pragma unroll
    for (int i = 0; i < N; ++i) of_warps[device::warp() * kMostSums + i] = v[i];
  }
  device::sync_block();
  const int warps = 1 << log_lanes >> 5, first = device::warp() & -warps;
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = of_warps[first * kMostSums + i];
#pragma unroll 1
  for (int warp = 1; warp < warps; ++warp)
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] += of_warps[(first + warp) * kMostSums + i];
}

// 1 / sqrt(x) of a variance and what is added to it. One turn of Newton's takes the instruction's 2 ulp away.
FUSEGEN_DEVICE float reciprocal_deviation(float x) {
  const float y = device::reciprocal_root(x);
  return y * (1.5f - 0.5f * x * y * y);
}

}  // namespace fusegen::cuda::normalised
