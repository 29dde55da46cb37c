// Products with packed weights: C = A W^T for rows of A given by pointers; C[m][n] += sum_k A[k][m] B[k][n] for
// weight gradients. What happens to a finished tile is the caller's epilogue.
#pragma once
#include "batch.h"
#include "pack.h"

namespace fusegen::FUSEGEN_ISA_NS {

// epilogue(row, panel, sums) once a row, sums being its [4][lanes]; NW weight vectors a panel.
template <class C, int NW, class Epilogue>
FUSEGEN_INLINE void multiply_rows(const C* const* a, int rows, const C* packed, int64_t K, Range panels,
                                  const Epilogue& epilogue) {
  TileSums<C> sums;
  for (int64_t p = panels.begin; p < panels.end; ++p) {
    const C* w = packed + p * K * NW * kLanes<C>;
    for_each_tile(rows, [&](int row, int m) {
      tile_rows<C, NW, Operand::input>(m, a + row, w, K, {}, sums);
      for (int i = 0; i < m; ++i) epilogue(row + i, p, sums.value[i]);
    });
  }
}

template <class C>
using RowSums = C[kTileVectors][kLanes<C>];

// Writes the four blocks of a plain panel's row to where the whole row begins.
template <class S>
FUSEGEN_INLINE void store_row(int64_t N, int64_t panel, const RowSums<Compute<S>>& sums, bool add, S* out) {
  using C = Compute<S>;
  const PanelShape shape{N, 1};
  for (int j = 0; j < kTileVectors; ++j) {
    const int lanes = shape.lanes<C>(panel, j);
    if (!lanes) break;
    S* dst = out + shape.row<C>(panel, j);
    Vector<C> v = load(sums[j]);
    if (add) v += load(dst, lanes);
    store(dst, v, lanes);
  }
}

// A weight gradient being summed over chunks: out_row(m)[n] (+)= sum_k a[k][m] b_row(k)[n], m in `columns`.
// `panel` is scratch of this thread for K x kTileColumns values.
template <class S, class RowPointer, class OutRow>
FUSEGEN_INLINE void multiply_columns(const Compute<S>* a, int64_t stride, Range columns, const RowPointer& b_row, int64_t N,
                                     int64_t K, Compute<S>* panel, bool add, const OutRow& out_row) {
  using C = Compute<S>;
  TileSums<C> sums;
  for (int64_t p = 0, count = PanelShape{N, 1}.template count<C>(); p < count; ++p) {
    pack_rows<S>(b_row, N, K, p, panel);
    for_each_tile(static_cast<int>(columns.end - columns.begin), [&](int m0, int m) {
      tile_columns<C>(m, a + columns.begin + m0, stride, panel, K, sums);
      for (int i = 0; i < m; ++i) store_row<C>(N, p, sums.value[i], add, out_row(columns.begin + m0 + i));
    });
  }
}

}  // namespace fusegen::FUSEGEN_ISA_NS
