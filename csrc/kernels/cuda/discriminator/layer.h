// The discriminator step forward: a layer of all rows, the logits, and the length of the input gradients.
#pragma once
#include <device/warp.h>

#include "../../activations.h"
#include "bulk.h"

namespace fusegen::cuda {

template <class V>
FUSEGEN_DEVICE V sum_of_warp(V v) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) v += device::from_lane_xor(v, mask);
  return v;
}

FUSEGEN_DEVICE Input input_of(const Scratch& o) {
  return {{o.data, nullptr, nullptr}, {o.stride, 0, 0}, {o.first, INT_MAX, INT_MAX}, true};
}
FUSEGEN_DEVICE Input input_of(const Weight& w) {
  return {{w.data, nullptr, nullptr}, {w.stride, 0, 0}, {0, INT_MAX, INT_MAX}, w.aligned};
}

// Two neighbours of a row of our own memory, whose length is even. Past the row's width zeros are written,
// not what came out: W's columns there are zero, but 0 * inf is NaN, and readers take whole words.
template <class T>
FUSEGEN_DEVICE void store_pair(const Scratch& out, int row, int n, int width, float x, float y) {
  T* to = row_of<T>(out, row) + n;
  const T first = device::narrow<T>(n < width ? x : 0.0f),
          second = device::narrow<T>(n + 1 < width ? y : 0.0f);
  if constexpr (sizeof(T) == 2) {
    *reinterpret_cast<uint32_t*>(to) = first.bits | static_cast<uint32_t>(second.bits) << 16;
  } else {
    to[0] = first;
    to[1] = second;
  }
}

// Numbers n and n + 1 of a vector of `width`; 0 past it.
struct Pair {
  float x, y;
};
template <class T>
FUSEGEN_DEVICE Pair read_pair(const void* vector, int n, int width) {
  const T* v = static_cast<const T*>(vector);
  return {n < width ? device::widen(v[n]) : 0.0f, n + 1 < width ? device::widen(v[n + 1]) : 0.0f};
}

// What becomes of the sums of a row's columns n and n + 1.
template <class T>
FUSEGEN_DEVICE void finish_pair(const LayerArguments& a, int row, int n, Pair z) {
  if (a.bias) {
    const Pair b = read_pair<T>(a.bias, n, a.N);
    z = {z.x + b.x, z.y + b.y};
  }
  if (a.activate) {
    z = {activations::activated(z.x, a.slope), activations::activated(z.y, a.slope)};
  } else if (a.mask.data) {
    const T* h = row_of<const T>(a.mask, row) + n;
    z = {activations::activation_gradient(device::widen(h[0]), z.x, a.slope),
         activations::activation_gradient(device::widen(h[1]), z.y, a.slope)};
  }
  store_pair<T>(a.out, row, n, a.N, z.x, z.y);
  if (!a.adjoints.data) return;
  const Pair w = read_pair<T>(a.logit_weights, n, a.N);
  const auto h = [](float x) { return device::widen(device::narrow<T>(x)); };  // as other readers see it
  store_pair<T>(a.adjoints, row, n, a.N, activations::activation_gradient(h(z.x), w.x, a.slope),
                activations::activation_gradient(h(z.y), w.y, a.slope));
}

// The sums of a tile whose operands bulk copies bring, of job `job`. False where they cannot; nothing was
// done then.
template <class Format, class Tile, class Ready>
FUSEGEN_DEVICE bool layer_by_bulk(Sums<Tile>& sums, const BulkArguments& step, int job, const Corner& corner,
                                  Bulk<Tile>& ring, const Ready& ready) {
  const LayerArguments& a = step.job[job].layer;
  if (!step.job[job].bulk) return false;
  const bool own = a.a.data;
  const RowBoxes rows = boxes_of(a.rows, corner.m, own ? INT_MAX : step.samples.first[1],
                                 own ? INT_MAX : step.samples.first[2]);
  if (!rows.on_end) return false;
  const auto map = [&](int i) { return own ? &step.left_maps[job] : &step.sample_maps[rows.piece[i]]; };
  const auto at = [&](int i) {
    return rows.row[i] - (own                 ? a.a.first
                          : !rows.piece[i]    ? 0
                          : rows.piece[i] > 1 ? step.samples.first[2]
                                              : step.samples.first[1]);
  };
  Boxes<false> left(map(0), at(0), map(1), at(1), rows.boxes);
  if (a.across) {
    Boxes<true> right(&step.right_maps[job], corner.n, a.N);
    multiply_by_bulk<Format, Tile, Early::right>(sums, left, right, a.K, ring, ready);
  } else {
    Boxes<false> right(&step.right_maps[job], corner.n, a.N);
    multiply_by_bulk<Format, Tile, Early::right>(sums, left, right, a.K, ring, ready);
  }
  return true;
}

// The sums of a tile whose operands lanes bring.
template <class T, class Format, class Tile, class Ready>
FUSEGEN_DEVICE void layer_by_lanes(Sums<Tile>& sums, const StepArguments& step, const LayerArguments& a,
                                   const Corner& corner, const Ready& ready) {
  Along<T, Tile::kM, Tile::kChunks> left(a.a.data ? input_of(a.a) : step.samples, a.rows, corner.m, a.K);
  if (a.across) {
    Across<T, Tile::kN, Tile::kChunks> right(a.W, corner.n, a.K, a.N);
    multiply<T, Format, Tile, Early::right>(sums, left, right, a.K, ready);
  } else {
    Along<T, Tile::kN, Tile::kChunks> right(input_of(a.W), {a.N, 0, INT_MAX, 0}, corner.n, a.K);
    multiply<T, Format, Tile, Early::right>(sums, left, right, a.K, ready);
  }
}

// Eight rows, a warp each. `seen(v, row, n)`: what becomes of v[n] where there is no hidden layer.
template <class T, class Seen>
FUSEGEN_DEVICE void logits_of_rows(const StepArguments& step, int unit, const Seen& seen) {
  const LogitArguments& a = step.logits;
  const int row = unit * device::kWarps + device::warp(), lane = device::lane();
  if (row >= step.split.rows) return;
  const T* w = static_cast<const T*>(a.w);
  if (row < step.split.plain) {
    const T* in = a.in.data ? row_of<const T>(a.in, row) : row_of<T>(step.samples, row);
    float sum = 0;
    for (int n = lane; n < a.n; n += 32) sum += device::widen(in[n]) * device::widen(w[n]);
    sum = sum_of_warp(sum);
    if (a.b) sum += device::widen(*static_cast<const T*>(a.b));
    if (lane == 0) {
      step.logit[row] = sum;
      static_cast<T*>(a.out)[row] = device::narrow<T>(sum);
    }
  }
  if (!a.v.data || !among(step.split, a.groups, row)) return;
  T* v = row_of<T>(a.v, row);
  for (int n = lane; n < a.v.stride; n += 32) v[n] = n < a.n ? seen(w[n], row, n) : device::narrow<T>(0.0f);
}

// Eight rows, a warp each.
template <class T>
FUSEGEN_DEVICE void norms_of_rows(const StepArguments& a, int unit) {
  const int i = unit * device::kWarps + device::warp(), lane = device::lane();
  if (i >= a.penalised.count) return;
  const int row = a.penalised(i);
  const T* v = row_of<const T>(a.v, row);
  float sum = 0;
  for (int n = lane; n < a.inputs; n += 32) sum += device::widen(v[n]) * device::widen(v[n]);
  sum = sum_of_warp(sum);
  if (lane == 0) a.norm2[row] = sum;
}

}  // namespace fusegen::cuda
