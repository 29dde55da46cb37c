// The tiles for each number of rows, once for all cells and storage types.
#include "tile.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class C, int NW, Step step>
void tile_rows(int rows, const C* const* a, int64_t k0, const C* w, int64_t K, const TileAddend<C>& addend, const C* next,
               const C* const* ahead, TileSums<C, NW>& sums) {
  with_rows<NW>(rows, [&](auto m) { tile_rows<C, NW, step, decltype(m)::value>(a, k0, w, K, addend, next, ahead, sums); });
}

template <class C>
void tile_columns(int rows, const C* a, int64_t stride, const C* w, int64_t K, bool add,
                  TileSums<C, kTileVectors>& sums) {
  with_rows<kTileVectors>(rows, [&](auto m) { tile_columns<C, decltype(m)::value>(a, stride, w, K, add, sums); });
}

#define FUSEGEN_TILE_ROWS(C, NW, step)                                                                                 \
  template void tile_rows<C, NW, step>(int, const C* const*, int64_t, const C*, int64_t, const TileAddend<C>&, const C*, \
                                       const C* const*, TileSums<C, NW>&);
FUSEGEN_TILE_ROWS(float, 3, Step::one)
FUSEGEN_TILE_ROWS(float, 4, Step::one)
FUSEGEN_TILE_ROWS(float, 3, Step::pair)
FUSEGEN_TILE_ROWS(float, 4, Step::pair)
FUSEGEN_TILE_ROWS(double, 3, Step::one)
FUSEGEN_TILE_ROWS(double, 4, Step::one)
#undef FUSEGEN_TILE_ROWS
template void tile_columns<float>(int, const float*, int64_t, const float*, int64_t, bool, TileSums<float, kTileVectors>&);
template void tile_columns<double>(int, const double*, int64_t, const double*, int64_t, bool, TileSums<double, kTileVectors>&);

}  // namespace fusegen::FUSEGEN_ISA_NS
