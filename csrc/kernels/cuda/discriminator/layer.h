// The discriminator step forward: a layer of all rows, the head, and the length of the input gradients.
#pragma once
#include <device/warp.h>

#include "../../activations.h"
#include "gemm.h"

namespace fusegen::cuda {

template <class V>
FUSEGEN_DEVICE V sum_of_warp(V v) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) v += device::from_lane_xor(v, mask);
  return v;
}

// Two neighbours of a row of our own memory, whose length is even.
template <class T>
FUSEGEN_DEVICE void store_pair(T* to, float x, float y) {
  if constexpr (sizeof(T) == 2) {
    *reinterpret_cast<uint32_t*>(to) =
        device::narrow<T>(x).bits | static_cast<uint32_t>(device::narrow<T>(y).bits) << 16;
  } else {
    to[0] = x;
    to[1] = y;
  }
}

// Blocks lie along the rows first, so that those that run together share W's tiles.
template <class T, class Format, class Tile, bool kAdjoint>
FUSEGEN_KERNEL void layer_kernel(FUSEGEN_ARGUMENT LayerArguments a) {
  const int blocks_m = (a.rows.count + Tile::kM - 1) / Tile::kM;
  const int first_m = device::block() % blocks_m * Tile::kM, first_n = device::block() / blocks_m * Tile::kN;
  Sums<Tile> sums;
  KMajor<T, Tile::kM, Tile::kChunks> left(a.a, a.rows, first_m, a.rows.count, a.K);
  if constexpr (kAdjoint) {
    const Plain<T> W{a.b, {a.K, 0, INT_MAX, 0}, a.K, a.N};
    NMajor<T, Tile::kN, Tile::kChunks, Plain<T>> right(W, first_n);
    multiply<T, Format, Tile>(sums, left, right, a.K);
  } else {
    KMajor<T, Tile::kN, Tile::kChunks> right(a.b, {a.N, 0, INT_MAX, 0}, first_n, a.N, a.K);
    multiply<T, Format, Tile>(sums, left, right, a.K);
  }
  for_each_pair<Tile>(sums, first_m, first_n, [&](int m, int n, float x, float y) {
    if (m >= a.rows.count || n >= a.out.stride) return;
    const int row = a.rows(m);
    if (a.bias) {
      const T* b = static_cast<const T*>(a.bias);
      if (n < a.N) x += device::widen(b[n]);
      if (n + 1 < a.N) y += device::widen(b[n + 1]);
    }
    if (a.activate) {
      x = activations::activated(x, a.slope);
      y = activations::activated(y, a.slope);
    } else if (a.mask.data) {
      const T* h = row_of<const T>(a.mask, row) + n;
      x = activations::activation_gradient(device::widen(h[0]), x, a.slope);
      y = activations::activation_gradient(device::widen(h[1]), y, a.slope);
    }
    // Past the row's width zeros are written, not what came out: the columns of W there are zero, but 0 * inf
    // is NaN, and the next layer reads whole words.
    store_pair(row_of<T>(a.out, row) + n, n < a.N ? x : 0.0f, n + 1 < a.N ? y : 0.0f);
  });
}

// A warp a row.
template <class T, class Format>
FUSEGEN_KERNEL void head_kernel(FUSEGEN_ARGUMENT HeadArguments a) {
  const int row = device::block() * device::kWarps + device::warp(), lane = device::lane();
  if (row >= a.split.rows) return;
  const T* in = row_of<T>(a.in, row);
  const T* w = static_cast<const T*>(a.w);
  if (row < a.split.plain) {
    float sum = 0;
    for (int n = lane; n < a.n; n += 32) sum += device::widen(in[n]) * device::widen(w[n]);
    sum = sum_of_warp(sum);
    if (a.b) sum += device::widen(*static_cast<const T*>(a.b));
    if (lane == 0) {
      a.logit[row] = sum;
      static_cast<T*>(a.logits)[row] = device::narrow<T>(sum);
    }
  }
  if (!among(a.split, a.adjoints, row)) return;
  T* out = row_of<T>(a.out, row);
  for (int n = lane; n < a.out.stride; n += 32) {
    const float u = n < a.n ? device::widen(w[n]) : 0.0f;
    out[n] = device::narrow<T>(
        a.masked && n < a.n ? activations::activation_gradient(device::widen(in[n]), u, a.slope) : u);
  }
}

// A warp a row.
template <class T, class Format>
FUSEGEN_KERNEL void norm_kernel(FUSEGEN_ARGUMENT NormArguments a) {
  const int i = device::block() * device::kWarps + device::warp(), lane = device::lane();
  if (i >= a.rows.count) return;
  const int row = a.rows(i);
  const T* v = row_of<const T>(a.v, row);
  float sum = 0;
  for (int n = lane; n < a.inputs; n += 32) sum += device::widen(v[n]) * device::widen(v[n]);
  sum = sum_of_warp(sum);
  if (lane == 0) a.norm2[row] = sum;
}

}  // namespace fusegen::cuda
