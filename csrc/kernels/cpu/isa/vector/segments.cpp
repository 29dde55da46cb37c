// The tiles for each number of rows and vectors.
#include "segments.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class C, int NW>
void tile_segments(int rows, const Segment<C>* segments, int64_t count, int64_t first, bool add,
                   TileSums<C, NW>& sums) {
  with_rows<NW>(rows,
                [&](auto m) { tile_segments<C, NW, decltype(m)::value>(segments, count, first, add, sums); });
}

#define FUSEGEN_TILE_SEGMENTS(C, NW) \
  template void tile_segments<C, NW>(int, const Segment<C>*, int64_t, int64_t, bool, TileSums<C, NW>&);
FUSEGEN_TILE_SEGMENTS(float, 1)
FUSEGEN_TILE_SEGMENTS(float, 2)
FUSEGEN_TILE_SEGMENTS(float, 3)
FUSEGEN_TILE_SEGMENTS(float, 4)
FUSEGEN_TILE_SEGMENTS(double, 1)
FUSEGEN_TILE_SEGMENTS(double, 2)
FUSEGEN_TILE_SEGMENTS(double, 3)
FUSEGEN_TILE_SEGMENTS(double, 4)
#undef FUSEGEN_TILE_SEGMENTS

}  // namespace fusegen::FUSEGEN_ISA_NS
