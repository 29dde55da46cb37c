// A recurrent matrix of blocks on its diagonal, whose zeros are neither stored nor multiplied: row j H + u of
// it holds what gate j of unit u reads, the units of u's block. One block is a whole matrix.
//
// Products see it block by block, the rows of a block's gates one after another.
#pragma once
#include "kernels/cpu/isa/vector/product.h"
#include "kernels/cpu/isa/vector/rows.h"

namespace fusegen::FUSEGEN_ISA_NS {

struct Blocks {
  int64_t H, gates, count;

  int64_t units() const { return H / count; }
  int64_t rows() const { return gates * units(); }  // of a block
  // Of all rows, row n of block b.
  int64_t row(int64_t b, int64_t n) const {
    const int64_t m = units();
    return count == 1 ? n : n / m * H + b * m + n % m;
  }
  // f(block, panels) for the blocks of a range of panels, of which each block has so many.
  template <class F>
  static void each(const Range& panels, int64_t of_block, const F& f) {
    for (int64_t b = panels.begin / of_block; b * of_block < panels.end; ++b)
      f(b, Range{std::max<int64_t>(panels.begin - b * of_block, 0),
                 std::min(panels.end - b * of_block, of_block)});
  }
  // A row of all gates, [gates][H], as [blocks][gates][units].
  template <class C>
  void gather(const C* row, C* to) const {
    const int64_t m = units();
    for (int64_t b = 0; b < count; ++b)
      for (int64_t g = 0; g < gates; ++g, to += m)
        std::memcpy(static_cast<void*>(to), row + g * H + b * m, static_cast<size_t>(m) * sizeof(C));
  }
  // The sums of a panel of block b to where they lie in a row of all gates.
  template <class C>
  FUSEGEN_INLINE void scatter(int64_t b, int64_t panel, const RowSums<C, kTileVectors>& sums, C* to) const {
    if (count == 1) return store_row<C>(rows(), panel, sums, false, to);
    const int64_t N = rows();
    for (int j = 0; j < kTileVectors; ++j) {
      const int64_t n = (panel * kTileVectors + j) * kLanes<C>;
      if (n >= N) break;
      if (units() % kLanes<C> == 0) store(to + row(b, n), load(sums[j]));
      else
        for (int l = 0; l < kLanes<C> && n + l < N; ++l) to[row(b, n + l)] = sums[j][l];
    }
  }
};

// Panel p of a product whose column n is row(n), of K elements: out[k][column], zero past N columns.
template <class S, class RowPointer>
void pack_columns(const RowPointer& row, int64_t N, int64_t K, int64_t p, Compute<S>* out) {
  using C = Compute<S>;
  constexpr int L = kLanes<C>;
  for (int j = 0; j < kTileVectors; ++j) {
    const int64_t first = (p * kTileVectors + j) * L;
    for (int64_t k = 0; k < K; k += L) {
      const int width = lanes_left<C>(K, k);
      Vector<C> v[L];
      for (int l = 0; l < L; ++l) v[l] = first + l < N ? load(row(first + l) + k, width) : Vector<C>{};
      transpose<C>(v);
      for (int l = 0; l < width; ++l)
        *reinterpret_cast<Vector<C>*>(out + ((k + l) * kTileVectors + j) * L) = v[l];
    }
  }
}

}  // namespace fusegen::FUSEGEN_ISA_NS
