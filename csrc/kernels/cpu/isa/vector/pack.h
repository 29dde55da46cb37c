// Weights into panels [panel][pass][k][vectors of the pass][lanes], zero where there is no unit; any storage
// type to its compute type.
#pragma once
#include <algorithm>

#include "kernels/params.h"
#include "team.h"
#include "tile.h"

namespace fusegen::FUSEGEN_ISA_NS {

// How the NW vectors of a panel map to rows of the weight. `gates` > 1: panel p holds units [p L, p L + L) of
// each gate, gate j starting at row j * units. `gates` == 1: panel p holds kTileVectors blocks of L
// consecutive units.
struct PanelShape {
  int64_t units;
  int gates;

  constexpr int vectors() const { return gates == 1 ? kTileVectors : gates; }
  constexpr int passes() const { return vectors() / pass_vectors(vectors()); }
  template <class C>
  constexpr int64_t count() const {
    const int64_t width = kLanes<C> * (gates == 1 ? kTileVectors : 1);
    return (units + width - 1) / width;
  }
  template <class C>
  constexpr int64_t size(int64_t K) const {  // elements of a whole packed matrix
    return count<C>() * K * vectors() * kLanes<C>;
  }
  // First weight row of vector j of panel p, and how many of its lanes are units.
  template <class C>
  FUSEGEN_INLINE int64_t row(int64_t p, int j) const {
    return gates == 1 ? (p * kTileVectors + j) * kLanes<C> : j * units + p * kLanes<C>;
  }
  template <class C>
  FUSEGEN_INLINE int lanes(int64_t p, int j) const {
    const int64_t first = gates == 1 ? (p * kTileVectors + j) * kLanes<C> : p * kLanes<C>;
    const int64_t left = units - first;
    return left <= 0 ? 0 : left < kLanes<C> ? static_cast<int>(left) : kLanes<C>;
  }
};

template <class C, int... i>
FUSEGEN_INLINE Vector<C> interleave(Vector<C> a, Vector<C> b, bool high, std::integer_sequence<int, i...>) {
  constexpr int L = kLanes<C>;
  using Bits = typename VectorOf<C>::bits;
  const Bits low_mask = {(i / 2 + (i % 2) * L)...};
  const Bits high_mask = {(L / 2 + i / 2 + (i % 2) * L)...};
  return high ? __builtin_shuffle(a, b, high_mask) : __builtin_shuffle(a, b, low_mask);
}

// v[i][j] -> v[j][i]: log2(lanes) rounds of interleaving the first half with the second.
template <class C>
FUSEGEN_INLINE void transpose(Vector<C> (&v)[kLanes<C>]) {
  constexpr int L = kLanes<C>;
#pragma GCC unroll 8
  for (int round = 1; round < L; round *= 2) {
    Vector<C> t[L];
#pragma GCC unroll 16
    for (int i = 0; i < L / 2; ++i) {
      t[2 * i] = interleave<C>(v[i], v[i + L / 2], false, std::make_integer_sequence<int, L>{});
      t[2 * i + 1] = interleave<C>(v[i], v[i + L / 2], true, std::make_integer_sequence<int, L>{});
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) v[i] = t[i];
  }
}

// Steps k to k + width of a row of K elements, in lanes.
template <class S, Step step = kStep<S>>
FUSEGEN_INLINE Vector<Compute<S>> load_steps(const S* row, int64_t K, int64_t k, int width) {
  if constexpr (step == Step::pair) {
    return (Vector<Compute<S>>)load_pairs(row + 2 * k, std::min<int64_t>(2 * width, K - 2 * k));
  } else {
    return load(row + k, width);
  }
}

// A weight as it lies: rows of K elements, `stride` apart.
template <class S>
struct WeightRows {
  const S* data;
  int64_t stride;
  int64_t K;
};

// Steps [k0, k1) of one pass over a panel.
struct PanelBlock {
  int64_t panel;
  int pass;
  int64_t k0, k1;
};

// out[k - k0][j][lane] = w[row(p, j) + lane][k] for the vectors j of the pass: torch's own layout, turned. In
// pairs, bf16 stays as it is, a word holding elements 2k and 2k + 1.
template <class S, Step step = kStep<S>>
void pack_panel(const PanelShape& shape, const WeightRows<S>& w, const PanelBlock& block, Compute<S>* out) {
  const auto [p, pass, k0, k1] = block;
  using C = Compute<S>;
  constexpr int L = kLanes<C>;
  const int count = pass_vectors(shape.vectors());
  for (int i = 0; i < count; ++i) {
    const int j = pass * count + i, lanes = shape.lanes<C>(p, j);
    const S* src = w.data + (lanes ? shape.row<C>(p, j) * w.stride : 0);
    C* dst = out + i * L;
    for (int64_t k = k0; k < k1; k += L) {
      const int width = k1 - k < L ? static_cast<int>(k1 - k) : L;
      Vector<C> v[L];
      for (int l = 0; l < L; ++l)
        v[l] = l < lanes ? load_steps<S, step>(src + l * w.stride, w.K, k, width) : Vector<C>{};
      transpose<C>(v);
      for (int l = 0; l < width; ++l) *reinterpret_cast<Vector<C>*>(dst + (k - k0 + l) * count * L) = v[l];
    }
  }
}

// out[k][lane] = row(k)[p * columns + lane] for k in [begin, end) of K: the panel's columns as they lie
// (plain products).
template <class S, class RowPointer>
FUSEGEN_INLINE void pack_rows(const RowPointer& row, int64_t N, int64_t begin, int64_t end, int64_t p,
                              Compute<S>* out) {
  using C = Compute<S>;
  constexpr int L = kLanes<C>;
  const PanelShape shape{N, 1};
  constexpr int64_t kAhead = 16;  // rows lie pages apart, where the hardware does not look ahead
  constexpr int64_t kLine = 64 / sizeof(S);
  for (int64_t k = begin; k < end; ++k) {
    const S* src = row(k);
    if (k + kAhead < end) {
      const S* ahead = row(k + kAhead) + shape.row<C>(p, 0);
      for (int64_t i = 0; i < kTileColumns<C>; i += kLine) __builtin_prefetch(ahead + i, 0, 3);
    }
    for (int j = 0; j < kTileVectors; ++j) {
      const int lanes = shape.lanes<C>(p, j);
      const Vector<C> v = lanes ? load(src + shape.row<C>(p, j), lanes) : Vector<C>{};
      *reinterpret_cast<Vector<C>*>(out + (k * kTileVectors + j) * L) = v;
    }
  }
}

// The same in pairs: step k of the panel holds rows 2k and 2k + 1 of `rows`, a missing one as zeros. Steps
// [begin, end).
template <class X, class RowPointer>
FUSEGEN_INLINE void pack_row_pairs(const RowPointer& row, int64_t N, int64_t rows, const Range& steps,
                                   int64_t p, float* out) {
  constexpr int L = kLanes<float>;
  const PanelShape shape{N, 1};
  constexpr int64_t kAhead = 8;  // as pack_rows()
  constexpr int64_t kLine = 64 / sizeof(X);
  for (int64_t k = steps.begin; k < steps.end; ++k) {
    const X *first = row(2 * k), *second = 2 * k + 1 < rows ? row(2 * k + 1) : nullptr;
    if (k + kAhead < steps.end)
      for (int64_t r = 2 * (k + kAhead); r < std::min(rows, 2 * (k + kAhead) + 2); ++r)
        for (int64_t i = 0; i < kTileColumns<float>; i += kLine)
          __builtin_prefetch(row(r) + shape.row<float>(p, 0) + i, 0, 3);
    for (int j = 0; j < kTileVectors; ++j) {
      const int lanes = shape.lanes<float>(p, j);
      const int64_t u = shape.row<float>(p, j);
      const auto of = [&](const X* from) { return lanes && from ? load(from + u, lanes) : Vector<float>{}; };
      *reinterpret_cast<Vector<float>*>(out + (k * kTileVectors + j) * L) = zip_pairs(of(first), of(second));
    }
  }
}

}  // namespace fusegen::FUSEGEN_ISA_NS
