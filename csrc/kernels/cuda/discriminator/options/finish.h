// What becomes of a tile's sums where the step is not plain. A tile's sums lie in registers, whose indices
// must be known when compiled: written out for each pair, the activations would fill the kernel. So they go
// through shared memory, which the product has left, and a loop takes a pair at a time: an access each way,
// in a place of the lane's own, beside the whole product that made a sum.
#pragma once
#include "../layer.h"
#include "masks.h"
#include "smooth.h"

namespace fusegen::cuda {

template <class T>
FUSEGEN_DEVICE Pair load_pair(const Scratch& from, int row, int n) {
  const T* x = row_of<const T>(from, row) + n;
  return {device::widen(x[0]), device::widen(x[1])};
}

// Of a smooth activation, numbers n and n + 1 of a row.
struct SmoothPair {
  activations::Smooth<float> x, y;
};
FUSEGEN_DEVICE SmoothPair smooth_pair(const LayerArguments& a, Pair z) {
  SmoothPair s{};
  activations::with_smooth<SmoothMath, float, float>(a.activation, a.slope,
                                                     [&](const auto& f) { s = {f(z.x), f(z.y)}; });
  return s;
}

// v through the activation and the dropout behind it.
template <class T>
FUSEGEN_DEVICE Pair through_activation(const LayerArguments& a, int row, int n, Pair v) {
  const Pair m = load_pair<T>(a.mask, row, n);
  if (smooth(a.activation)) return {m.x * v.x, m.y * v.y};
  const Kept kept = kept_pair(a.dropped, a.N, row, n);
  return {activations::activation_gradient(m.x, v.x, a.slope) * kept.x,
          activations::activation_gradient(m.y, v.y, a.slope) * kept.y};
}

// Activations, what backward needs of a smooth one, and of the last hidden layer the adjoints.
template <class T>
FUSEGEN_DEVICE void finish_activations(const StepArguments& step, const LayerArguments& a, int row, int n,
                                       Pair z) {
  if (a.bias) {
    const Pair b = read_pair<T>(a.bias, n, a.N);
    z = {z.x + b.x, z.y + b.y};
  }
  const Kept kept = kept_pair(a.dropped, a.N, row, n);
  Pair w{1, 1};  // the gradient by what stands before dropout; known of the last hidden layer
  if (a.adjoints.data) w = read_pair<T>(a.logit_weights, n, a.N);
  if (smooth(a.activation)) {
    const SmoothPair s = smooth_pair(a, z);
    const Pair first{s.x.first * kept.x, s.y.first * kept.y};
    store_pair<T>(a.out, row, n, a.N, s.x.y * kept.x, s.y.y * kept.y);
    store_pair<T>(a.mask, row, n, a.N, first.x, first.y);
    if (a.adjoints.data) store_pair<T>(a.adjoints, row, n, a.N, first.x * w.x, first.y * w.y);
    if (a.second.data && among(step.split, step.tangents, row))
      store_pair<T>(a.second, row, n, a.N, s.x.second * kept.x * w.x, s.y.second * kept.y * w.y);
    return;
  }
  z = {activations::activated(z.x, a.slope) * kept.x, activations::activated(z.y, a.slope) * kept.y};
  store_pair<T>(a.out, row, n, a.N, z.x, z.y);
  if (!a.adjoints.data) return;
  const auto h = [](float x) { return device::widen(device::narrow<T>(x)); };  // as other readers see it
  store_pair<T>(a.adjoints, row, n, a.N, activations::activation_gradient(h(z.x), w.x, a.slope) * kept.x,
                activations::activation_gradient(h(z.y), w.y, a.slope) * kept.y);
}

template <class T>
FUSEGEN_DEVICE void finish_adjoints(const StepArguments& step, const LayerArguments& a, int row, int n,
                                    Pair w) {
  const Pair u = through_activation<T>(a, row, n, w);
  store_pair<T>(a.out, row, n, a.N, u.x, u.y);
  if (!a.second.data || !among(step.split, step.tangents, row)) return;
  const Pair second = load_pair<T>(a.second, row, n);
  store_pair<T>(a.second, row, n, a.N, second.x * w.x, second.y * w.y);
}

// v without what does not count.
template <class T>
FUSEGEN_DEVICE void finish_input_gradient(const StepArguments& step, const LayerArguments& a, int row, int n,
                                          Pair v) {
  const Kept kept = kept_pair(a.dropped, a.N, row, n);
  store_pair<T>(a.out, row, n, step.counted, v.x * kept.x, v.y * kept.y);
}

// q of penalised row number i, before the activation: T, and what a smooth activation's second derivative
// makes of q and the adjoint, a part of R. R has c in it, and like c is kept as a part of `unit`.
template <class T>
FUSEGEN_DEVICE void finish_tangents(const StepArguments& step, const LayerArguments& a, int i, int row, int n,
                                    Pair q) {
  const Pair t = through_activation<T>(a, row, n, q);
  store_pair<T>(a.out, row, n, a.N, t.x, t.y);
  if (!a.bend.data) return;
  Pair r{0, 0};
  if (a.second.data) {
    const Pair second = load_pair<T>(a.second, row, n);
    const float c = step.c[row];
    r = {c * second.x * q.x, c * second.y * q.y};
  }
  store_pair<T>(a.bend, i, n, a.N, r.x, r.y);
}

// R of penalised row number i: what its own second derivative gave, and what comes from the layer above.
template <class T>
FUSEGEN_DEVICE void finish_sent_back(const LayerArguments& a, int i, int row, int n, Pair v) {
  const Pair r = load_pair<T>(a.out, i, n), more = through_activation<T>(a, row, n, v);
  store_pair<T>(a.out, i, n, a.N, r.x + more.x, r.y + more.y);
}

// scale (s v + R_1 W_1), the latter of the inputs that count and are not dropped. The rows are the caller's:
// they may begin anywhere, and end with the tensor.
template <class T>
FUSEGEN_DEVICE void finish_sample_gradient(const StepArguments& step, const LayerArguments& a, int row, int n,
                                           Pair r) {
  const Kept kept = kept_pair(a.dropped, a.N, row, n);
  const float factor = *step.scale * *step.unit, s = step.s[row];
  const T* v = row_of<const T>(step.v, row) + n;
  T* out = row_of<T>(a.out, row) + n;
  const auto total = [&](int i, float more) {
    return device::narrow<T>(factor * (s * device::widen(v[i]) + (n + i < step.counted ? more : 0.0f)));
  };
  if (n < a.N) out[0] = total(0, r.x * kept.x);
  if (n + 1 < a.N) out[1] = total(1, r.y * kept.y);
}

// The sums of columns n and n + 1 of row number i of a layer's rows.
template <class T>
FUSEGEN_DEVICE void finish_with_options(const StepArguments& step, const LayerArguments& a, int i, int n,
                                        Pair z) {
  const int at = a.rows(i), row = a.compact ? step.penalised(at) : at;
  switch (a.result) {
    case Result::activations: return finish_activations<T>(step, a, row, n, z);
    case Result::adjoints: return finish_adjoints<T>(step, a, row, n, z);
    case Result::input_gradient: return finish_input_gradient<T>(step, a, row, n, z);
    case Result::tangents: return finish_tangents<T>(step, a, i, row, n, z);
    case Result::sent_back: return finish_sent_back<T>(a, at, row, n, z);
    case Result::sample_gradient: return finish_sample_gradient<T>(step, a, row, n, z);
  }
}

// A layer's tile, all of it. By all lanes of the block; its shared memory is in use afterwards.
template <class T, class Tile>
FUSEGEN_DEVICE void finish_tile(const StepArguments& step, const LayerArguments& a, const Sums<Tile>& sums,
                                const Corner& corner) {
  constexpr int kLanes = Tile::kWarpsM * Tile::kWarpsN * 32;  // that have sums
  static_assert(Tile::kM * Tile::kN * 4 <= ring_bytes(Tile::kWarpgroups));
  device::sync_block();  // others may still multiply out of it
  const WarpShare<Tile> share;
  if (share.split > 0) return;
  float* mine = reinterpret_cast<float*>(device::shared_memory()) + 32 * share.part + device::lane();
  for_each_sum<Tile::kTilesM, Tile::kTilesN>(
      [&](int m, int n, int i) { mine[((m * Tile::kTilesN + n) * 4 + i) * kLanes] = sums[m][n][i]; });
  const int m0 = corner.m + share.m + device::lane() / 4, n0 = corner.n + share.n + device::lane() % 4 * 2;
#pragma unroll 1
  for (int pair = 0; pair < 2 * Tile::kTilesM * Tile::kTilesN; ++pair, mine += 2 * kLanes) {
    const int tile = pair / 2, m = m0 + tile / Tile::kTilesN * 16 + pair % 2 * 8,
              n = n0 + tile % Tile::kTilesN * 8;
    if (m < a.rows.count && n < a.out.stride) finish_with_options<T>(step, a, m, n, {mine[0], mine[kLanes]});
  }
}

}  // namespace fusegen::cuda
