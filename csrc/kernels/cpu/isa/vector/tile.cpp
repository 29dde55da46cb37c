// The tiles for each number of rows, once for all cells and storage types.
#include "tile.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class C, int V, Step step>
void tile_rows(int rows, const C* const* a, int64_t k0, const C* w, int64_t K, const TileAddend<C>& addend,
               const TileFetch<C>& fetch, C* sums, int64_t ld) {
  with_rows<V>(
      rows, [&](auto m) { tile_rows<C, V, step, decltype(m)::value>(a, k0, w, K, addend, fetch, sums, ld); });
}

template <class C>
void tile_columns(int rows, const C* a, int64_t stride, const C* w, int64_t K, bool add,
                  TileSums<C, kTileVectors>& sums) {
  with_rows<kTileVectors>(rows,
                          [&](auto m) { tile_columns<C, decltype(m)::value>(a, stride, w, K, add, sums); });
}

// Panels of the widths that there are: plain ones (LSTM's passes have the same) and GRU's three gates.
#define FUSEGEN_TILE_ROWS(C, V, step)                                                   \
  template void tile_rows<C, V, step>(int, const C* const*, int64_t, const C*, int64_t, \
                                      const TileAddend<C>&, const TileFetch<C>&, C*, int64_t);
FUSEGEN_TILE_ROWS(float, kTileVectors, Step::one)
FUSEGEN_TILE_ROWS(float, 3, Step::one)
#if defined(__AVX512BF16__)
FUSEGEN_TILE_ROWS(float, kTileVectors, Step::pair)
FUSEGEN_TILE_ROWS(float, 3, Step::pair)
#endif
FUSEGEN_TILE_ROWS(double, kTileVectors, Step::one)
FUSEGEN_TILE_ROWS(double, 3, Step::one)
#undef FUSEGEN_TILE_ROWS
template void tile_columns<float>(int, const float*, int64_t, const float*, int64_t, bool,
                                  TileSums<float, kTileVectors>&);
template void tile_columns<double>(int, const double*, int64_t, const double*, int64_t, bool,
                                   TileSums<double, kTileVectors>&);

}  // namespace fusegen::FUSEGEN_ISA_NS
