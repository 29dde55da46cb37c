// The tiles for each number of rows, once for all cells and storage types.
#include "tile.h"

namespace fusegen::FUSEGEN_ISA_NS {
namespace {

template <class F, int... m>
FUSEGEN_INLINE void with_rows(int rows, std::integer_sequence<int, m...>, F&& f) {
  (void)((rows == m + 1 && (f(std::integral_constant<int, m + 1>{}), true)) || ...);
}

}  // namespace

template <class C, int NW, Operand kind>
void tile_rows(int rows, const C* const* a, const C* w, int64_t K, const TileStart<C>& start, TileSums<C>& sums) {
  with_rows(rows, std::make_integer_sequence<int, kTileRows>{},
            [&](auto m) { tile_rows<C, NW, kind, decltype(m)::value>(a, w, K, start, sums); });
}

template <class C>
void tile_columns(int rows, const C* a, int64_t stride, const C* w, int64_t K, TileSums<C>& sums) {
  with_rows(rows, std::make_integer_sequence<int, kTileRows>{},
            [&](auto m) { tile_columns<C, decltype(m)::value>(a, stride, w, K, sums); });
}

#define FUSEGEN_TILE_ROWS(C, NW, kind) \
  template void tile_rows<C, NW, kind>(int, const C* const*, const C*, int64_t, const TileStart<C>&, TileSums<C>&);
FUSEGEN_TILE_ROWS(float, 4, Operand::input)
FUSEGEN_TILE_ROWS(float, 4, Operand::hidden)
FUSEGEN_TILE_ROWS(float, 3, Operand::input)
FUSEGEN_TILE_ROWS(float, 3, Operand::hidden)
FUSEGEN_TILE_ROWS(double, 4, Operand::input)
FUSEGEN_TILE_ROWS(double, 4, Operand::hidden)
FUSEGEN_TILE_ROWS(double, 3, Operand::input)
FUSEGEN_TILE_ROWS(double, 3, Operand::hidden)
template void tile_columns<float>(int, const float*, int64_t, const float*, int64_t, TileSums<float>&);
template void tile_columns<double>(int, const double*, int64_t, const double*, int64_t, TileSums<double>&);

}  // namespace fusegen::FUSEGEN_ISA_NS
