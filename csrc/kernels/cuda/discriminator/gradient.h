// The discriminator step backward: weight gradients as products over the samples, the gradients of biases and
// of the last layer as sums over them, and the gradients by the samples.
#pragma once
#include "bulk.h"
#include "options/bend.h"

namespace fusegen::cuda {

// What the gradients were not multiplied by on their way.
FUSEGEN_DEVICE float factor_of(const StepArguments& a) { return *a.scale * *a.unit; }

template <class T, class Format, class Tile, bool plain, class Ready>
FUSEGEN_DEVICE void weight_gradient(const typename Bulk<Tile>::Arguments& a, int job, int unit,
                                    Bulk<Tile>& ring, const Ready& ready) {
  const WeightGradient& g = a.job[job].product;
  const Corner corner = corner_of<Tile>(g.M, unit);
  Weighted<T, Tile::kN, Tile::kChunks> right(a, g, corner.n);
  Sums<Tile> sums;
  if constexpr (Tile::kWarpgroups) {
    Boxes<true> left(&a.left_maps[job], corner.m, g.M);
    multiply_by_bulk<Format, Tile, Early::left>(sums, left, right, a.split.rows, ring, ready);
  } else {
    Across<T, Tile::kM, Tile::kChunks> left({g.u.data, g.u.stride, true}, corner.m, a.split.rows, g.u.stride);
    multiply<T, Format, Tile, Early::left>(sums, left, right, a.split.rows, ready);
  }
  if constexpr (!plain) {
    if (g.r.data) add_bend<T, Format, Tile>(sums, a, job, corner, ring);
  }
  const float factor = factor_of(a);
  for_each_pair<Tile>(sums, corner, [&](int m, int n, float x, float y) {
    if (m >= g.M) return;
    T* out = static_cast<T*>(g.out) + static_cast<int64_t>(m) * g.N + n;
    if (n < g.N) out[0] = device::narrow<T>(factor * x);
    if (n + 1 < g.N) out[1] = device::narrow<T>(factor * y);
  });
}

// 32 columns, each warp every eighth row.
template <class T, bool plain>
FUSEGEN_DEVICE void column_sum(const StepArguments& a, const ColumnSum& g, int unit) {
  const int n = unit * 32 + device::lane();
  float sum = 0;
  if (n < g.n) {
    for (int row = device::warp(); row < a.split.rows; row += device::kWarps) {
      if (row < a.split.plain) {
        const float x =
            g.ones ? 1.0f
                   : device::widen((g.x.data ? row_of<const T>(g.x, row) : row_of<T>(a.samples, row))[n]);
        sum += a.s[row] * x;
      }
      if (g.t.data && among(a.split, a.tangents, row))
        sum += a.c[row] * device::widen(row_of<const T>(g.t, row)[n]);
    }
    if constexpr (!plain) {
      for (int i = device::warp(); g.r.data && i < a.penalised.count; i += device::kWarps)
        sum += device::widen(row_of<const T>(g.r, i)[n]);
    }
  }
  float* partial = reinterpret_cast<float*>(device::shared_memory());
  partial[device::thread()] = sum;
  device::sync_block();
  if (device::warp() > 0 || n >= g.n) return;
  for (int warp = 1; warp < device::kWarps; ++warp) sum += partial[warp * 32 + device::lane()];
  static_cast<T*>(g.out)[n] = device::narrow<T>(factor_of(a) * sum);
}

// scale s v of eight rows, a warp each. The penalties have no gradient by the input where all activations are
// piecewise linear: it is constant there. Else a layer writes these rows (Result::sample_gradient).
template <class T>
FUSEGEN_DEVICE void input_gradients_of_rows(const StepArguments& a, int unit) {
  const int row = unit * device::kWarps + device::warp();
  if (row >= a.split.plain) return;
  const bool real = row < a.split.real;
  T* out = static_cast<T*>(real ? a.dx[0] : a.dx[1]);
  if (!out) return;
  out += static_cast<int64_t>(real ? row : row - a.split.real) * a.inputs;
  const T* v = row_of<const T>(a.v, row);
  const float s = factor_of(a) * a.s[row];
  for (int n = device::lane(); n < a.inputs; n += 32) out[n] = device::narrow<T>(s * device::widen(v[n]));
}

}  // namespace fusegen::cuda
