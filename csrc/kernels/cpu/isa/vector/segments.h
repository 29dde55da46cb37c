// The product that convolutions are made of: a result's sum runs over segments, each some columns of A
// against a panel [k][NW][lanes] that lies somewhere in a tensor. No panel is copied, and what padding would
// add is left out.
#pragma once
#include <vector>

#include "team.h"
#include "tile.h"

namespace fusegen::FUSEGEN_ISA_NS {

// Steps [k, k + K) of A against the panel at w. A lies turned: for each tile of for_each_tile, and each of
// its steps, the rows' values side by side, so that a tile of any height reads it through one pointer.
template <class C>
struct Segment {
  const C* w;
  int64_t K;
  const C* a;
  int64_t k;
};

// sums[m] (+)= sum over segments and k of A[m][k] w[k]; the tile's steps begin at a + first.
template <class C, int NW, int M>
void tile_segments(const Segment<C>* segments, int64_t count, int64_t first, bool add,
                   TileSums<C, NW>& sums) {
  constexpr int L = kLanes<C>, V = kPassVectors<NW>;
#pragma GCC unroll 1
  for (int pass = 0; pass < kPasses<NW>; ++pass) {
    Vector<C> acc[M][V] = {};
    for (const Segment<C>*s = segments, *end = segments + count; s != end; ++s) {
      const C *w = s->w + pass * V * L, *a = s->a + first + s->k * M;
#pragma GCC unroll 2
      for (int64_t k = 0; k < s->K; ++k, w += NW * L, a += M) {
        prefetch_panel<C, NW, M>(w);
        Vector<C> b[V];
#pragma GCC unroll 4
        for (int j = 0; j < V; ++j) b[j] = load(w + j * L);
#pragma GCC unroll 24
        for (int m = 0; m < M; ++m) {
          const Vector<C> am = splat(a[m]);
#pragma GCC unroll 4
          for (int j = 0; j < V; ++j) acc[m][j] += am * b[j];
        }
      }
    }
#pragma GCC unroll 24
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j) {
        Vector<C>& sum = *reinterpret_cast<Vector<C>*>(sums.value[m][pass * V + j]);
        sum = add ? sum + acc[m][j] : acc[m][j];
      }
  }
}

// For a number of rows known at run time (segments.cpp).
template <class C, int NW>
void tile_segments(int rows, const Segment<C>* segments, int64_t count, int64_t first, bool add,
                   TileSums<C, NW>& sums);

template <int NW>
constexpr int64_t tile_count(int64_t rows) {
  return (rows + kTileRows<NW> - 1) / kTileRows<NW>;
}

// epilogue(row, sums) for the rows of these tiles; A has `rows` rows of `row_steps` steps. Segments are taken
// in blocks that stay in L2 while the tiles pass over them; each block is summed by itself, as in
// multiply_rows. No segment is longer than a block.
template <class C, int NW, int64_t kBlock = kPanelBlockSteps, class Epilogue>
FUSEGEN_INLINE void multiply_segments(const std::vector<Segment<C>>& segments, int64_t rows, Range tiles,
                                      int64_t row_steps, std::vector<TileSums<C, NW>>& sums,
                                      const Epilogue& epilogue) {
  sums.resize(tile_count<NW>(rows));
  size_t begin = 0;
  do {
    size_t end = begin;
    for (int64_t steps = 0; end < segments.size() && (end == begin || steps + segments[end].K <= kBlock);
         ++end)
      steps += segments[end].K;
    const bool first = begin == 0, last = end == segments.size();
    for_each_tile<NW>(static_cast<int>(rows), [&](int tile, int row, int m) {
      if (tile < tiles.begin || tile >= tiles.end) return;
      tile_segments<C, NW>(m, segments.data() + begin, static_cast<int64_t>(end - begin), row * row_steps,
                           !first, sums[tile]);
      if (last)
        for (int r = 0; r < m; ++r) epilogue(row + r, sums[tile].value[r]);
    });
    begin = end;
  } while (begin < segments.size());
}

}  // namespace fusegen::FUSEGEN_ISA_NS
