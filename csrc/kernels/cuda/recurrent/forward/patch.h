// What of a step a warp finishes. All constexpr, tested as bijections.
//
// k_splits warps share units and have a part of each sum. They deal out the lane's pairs, (unit, row of the
// batch) in layout.h: each warp finishes `count` of every lane's, from pair k_split*count on, in all lanes at
// once; where there are more warps than pairs the last ones finish none. What a warp finishes is a patch of 8
// or 16 neighbouring units in 4, 8 or 16 rows, which lies in shared memory row by row: `words` words of 16
// bytes, the same for h, for a gate's inputs and for what is saved of a gate. So a lane has two parts to
// play: for its pairs it does the cell's maths, and word lane % words of the patch it moves between shared
// memory, global memory and the other blocks.
#pragma once
#include "../../layout.h"

namespace fusegen::cuda {

// Pairs of a lane that each of the warps finishes, of `all` it has a part of.
constexpr int pairs_finished(int all, int k_splits) { return k_splits < all ? all / k_splits : 1; }

// A patch by its count and by the pairs that a lane has of 8 rows: 2 of 8 units, 4 of 16.
struct Patch {
  int tile_pairs, count;

  constexpr int units() const { return tile_pairs == 4 && count >= 4 ? 16 : 8; }
  constexpr int rows() const { return 32 * count / units(); }
  constexpr int words(int number) const { return 2 * count * number; }

  // Of pair `i` of those that a lane finishes, within the patch.
  constexpr int unit(int lane, int i) const { return lane / 4 + (units() == 16 ? 8 * (i / 2 % 2) : 0); }
  constexpr int row(int lane, int i) const {
    return count == 1 ? lane % 4 : i / tile_pairs * 8 + 2 * (lane % 4) + i % 2;
  }

  // Where it begins in the warp's units and the slice's rows, where `first` is its first pair; its rows are
  // every row_step()-th.
  constexpr int first_unit(int first) const { return first % tile_pairs / 2 * 8; }
  constexpr int first_row(int first) const { return first / tile_pairs * 8 + first % 2; }
  constexpr int row_step() const { return count == 1 ? 2 : 1; }
};

}  // namespace fusegen::cuda
