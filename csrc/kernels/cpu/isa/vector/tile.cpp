// The tiles for each number of rows, once for all cells and storage types.
#include "tile.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class C, int V, Step step>
void tile_rows(const TileProduct<C>& product, const TileAddend<C>& addend, const TileFetch<C>& fetch, C* sums,
               int64_t ld) {
  with_rows<V>(product.rows,
               [&](auto m) { tile_rows<C, V, step, decltype(m)::value>(product, addend, fetch, sums, ld); });
}

template <class C, Step step>
void tile_columns(int rows, const TileColumns<C>& product, TileSums<C, kTileVectors>& sums) {
  with_rows<kTileVectors>(rows, [&](auto m) { tile_columns<C, step, decltype(m)::value>(product, sums); });
}

// Panels of the widths that there are: plain ones (LSTM's passes have the same) and GRU's three gates.
#define FUSEGEN_TILE_ROWS(C, V, step)                                                                       \
  template void tile_rows<C, V, step>(const TileProduct<C>&, const TileAddend<C>&, const TileFetch<C>&, C*, \
                                      int64_t);
FUSEGEN_TILE_ROWS(float, kTileVectors, Step::one)
FUSEGEN_TILE_ROWS(float, 3, Step::one)
#if defined(__AVX512BF16__)
FUSEGEN_TILE_ROWS(float, kTileVectors, Step::pair)
FUSEGEN_TILE_ROWS(float, 3, Step::pair)
#endif
FUSEGEN_TILE_ROWS(double, kTileVectors, Step::one)
FUSEGEN_TILE_ROWS(double, 3, Step::one)
#undef FUSEGEN_TILE_ROWS
#define FUSEGEN_TILE_COLUMNS(C, step) \
  template void tile_columns<C, step>(int, const TileColumns<C>&, TileSums<C, kTileVectors>&);
FUSEGEN_TILE_COLUMNS(float, Step::one)
#if defined(__AVX512BF16__)
FUSEGEN_TILE_COLUMNS(float, Step::pair)
#endif
FUSEGEN_TILE_COLUMNS(double, Step::one)
#undef FUSEGEN_TILE_COLUMNS

}  // namespace fusegen::FUSEGEN_ISA_NS
