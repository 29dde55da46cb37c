// Which row of R, which unit and which row of the batch a lane works on. All constexpr, tested as bijections.
//
// A warp multiplies `kTiles` tiles of 16 rows. The rows are dealt so that one lane gets all gates of a unit:
// LSTM takes 8 units, tile 0 being i and f, tile 1 g and o; the others take 16 units, a tile a gate. Lane
// 4g+t gets, of every 8 rows of the batch, rows 2t and 2t+1 for unit g (and g+8).
#pragma once
#include "../backend.h"

namespace fusegen::cuda {

constexpr int units_of_warp(int gates) { return gates == 4 ? 8 : 16; }
constexpr int tiles_of_warp(int gates) { return gates == 4 ? 2 : gates; }
// Tiles of sums of a single step: GRU's n has x's part and h's apart.
constexpr int sums_of_cell(int gates) { return tiles_of_warp(gates) + (gates == 3); }

// The rows of R that a warp multiplies, and the sums that a lane gets of them.
template <int Gates>
struct WarpRows {
  static constexpr bool kFour = Gates == 4;
  static constexpr int kTiles = tiles_of_warp(Gates);
  static constexpr int kUnits = units_of_warp(Gates);
  static constexpr int kPairs = kFour ? 2 : 4;  // (unit, row of the batch) of a lane in 8 rows

  static constexpr int gate(int tile, int row) { return kFour ? 2 * tile + row / 8 : tile; }
  static constexpr int unit(int, int row) { return kFour ? row % 8 : row; }

  static constexpr int pair_unit(int lane, int pair) { return lane / 4 + 8 * (pair / 2); }
  static constexpr int pair_row(int lane, int pair) { return 2 * (lane % 4) + pair % 2; }
  // Where a pair's gate lies in the lane's sums [tile][4].
  static constexpr int sum_tile(int gate) { return kFour ? gate / 2 : gate; }
  static constexpr int sum_place(int gate, int pair) { return kFour ? 2 * (gate % 2) + pair : pair; }
};

constexpr int kChunk = 64;  // bytes of a row that one product takes

// A vector that rows are multiplied with: `valid` numbers, padded to chunks.
struct PaddedVector {
  int valid;
  int64_t bytes;
  int number;  // bytes of one
};

constexpr int number_bytes(Format f) { return f == Format::bf16 || f == Format::f16 ? 2 : 4; }
constexpr int ceil_div(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

}  // namespace fusegen::cuda
