// How the wide kernels deal a layer over blocks, warpgroups, warps and lanes. All constexpr, tested as
// bijections.
//
// A warpgroup multiplies one tile of 64 rows of R, a warp 16 of them, with `N` rows of the batch at a time,
// and keeps kSteps times 16 columns of it in registers: 128 of a lane's 255. A tile is all gates of 16 units
// (GRU's last 16 rows stand for none) or, of RNN's one gate, 64 units. A block's two warpgroups have a tile
// each, or half of the columns of one: `k_splits`.
#pragma once
#include "../../layout.h"

namespace fusegen::cuda::wide {

constexpr int kSteps = 32;                     // of 16 numbers along K that a lane keeps
constexpr int kStage = 128;                    // numbers of a row that are asked for and multiplied together
constexpr int kStages = kSteps * 16 / kStage;  // of a warpgroup, at most
constexpr int kRowsOfTile = 64;

constexpr int units_of_tile(int gates) { return gates == 1 ? 64 : 16; }
constexpr int units_of_block(int gates, int k_splits) { return units_of_tile(gates) * 2 / k_splits; }

template <int Gates, int KSplits, int N>
struct Shard {
  static constexpr int kUnits = units_of_block(Gates, KSplits), kTiles = 2 / KSplits;

  // -- Rows 0..63 of a tile. Of 16 units, four rows apart are neighbours: of a bank's width in the sums, so
  // that lanes of neighbouring units and rows of the batch read them at once --

  static constexpr int row_gate(int row) { return Gates == 1 ? 0 : row / 16; }  // 3: of GRU, none
  static constexpr int row_unit(int row) {
    return (Gates == 1 ? row / 16 * 16 : 0) + row % 4 * 4 + row % 16 / 4;
  }

  // -- The block's sums in shared memory, a copy of each warpgroup: float32 [warpgroup][row][N] --

  static constexpr int kSumStride = N + 8;  // floats: what four warps' rows write falls on different banks

  // -- What a lane finishes: kItems times kPer neighbouring units in a row of the batch --

  static constexpr int kQuads = kUnits * N / 4, kPer = kQuads < 256 ? 2 : 4, kItems = kUnits * N / kPer / 256;
  static constexpr int kLanesOf16 = N * 16 / kPer, k16AtOnce = 256 / kLanesOf16;

  static constexpr int row(int thread) { return thread % kLanesOf16 / (16 / kPer); }
  static constexpr int unit(int thread, int item) {
    return (item * k16AtOnce + thread / kLanesOf16) * 16 + thread % (16 / kPer) * kPer;
  }
  // Where the sums of unit(thread, item) + i lie, of the first warpgroup that has some, in floats.
  static constexpr int sum_at(int thread, int item, int gate, int i) {
    const int first = thread % (16 / kPer) * kPer, block16 = item * k16AtOnce + thread / kLanesOf16;
    const int tile_row =
        block16 * (Gates == 1 ? 16 : kRowsOfTile) + gate * 16 + (first % 4 + i) * 4 + first / 4;
    return tile_row * kSumStride + row(thread);
  }
};

}  // namespace fusegen::cuda::wide
