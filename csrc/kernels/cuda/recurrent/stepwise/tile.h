// What a launch of a step multiplies, and the tile of it that a block owns. No CUDA.
//
// D[rows of R, batch] = R h': rows of R are dealt to warps as layout.h says, so that all gates of a unit meet
// in a block. Large tiles read 64 + 64 rows (GRU 96 + 32) for 64 x 64 sums, so R is read once for 64 rows of
// the batch; of few rows the small one reads R alone at full rate. Every stage of the ring takes 256 bytes of
// each row: whole lines of memory, and four chunks for the warps that share K.
#pragma once
#include <algorithm>

#include "../../layout.h"

namespace fusegen::cuda::stepwise {

constexpr int kStageBytes = 256;       // of a row
constexpr int kRingBytes = 96 * 1024;  // what every device from sm_80 on gives a block
constexpr int kSmallRows = 16;         // of the batch, in a small tile
// Twice as many need more registers than a lane has where true float32 takes each number as two.
constexpr int large_rows(int gates, bool split) { return gates == 3 || split ? 32 : 64; }
constexpr int units_of_tile(int gates) { return gates == 4 ? 16 : gates == 3 ? 32 : 64; }

// kN: rows of the batch. Warps lie [kSplits][kWarpsM][kWarpsN], the first sharing the chunks of a stage.
template <int Gates, int N>
struct Tile {
  using Rows = WarpRows<Gates>;
  static constexpr int kGates = Gates, kN = N;
  static constexpr int kWarpsM = 2, kWarpsN = N == kSmallRows ? 1 : 2, kSplits = 8 / (kWarpsM * kWarpsN);
  static constexpr int kUnits = units_of_tile(Gates), kM = kUnits * Gates;
  static constexpr int kTilesM = kM / kWarpsM / 16, kTilesN = kN / kWarpsN / 8;  // of a warp
  static constexpr int kStage = (kM + kN) * kStageBytes;
  static constexpr int kRing = std::min(4, kRingBytes / kStage);
  // Sums on their way from the multipliers to the cell's maths: [kSplits][kN][kSumStride] floats.
  static constexpr int kSumStride = kM + 4;
  static constexpr int kShared = kRing * kStage;
  // (unit, row of the batch) of a lane: its unit is thread % kUnits, its rows kRowStep apart.
  static constexpr int kItems = kUnits * kN / 256, kRowStep = 256 / kUnits;
  static_assert(kSplits * kN * kSumStride * 4 + 4 <= kShared && kRing >= 3);
};

// [gates * units, K] times K numbers of each row of the batch.
struct Product {
  int gates, units, K;
  Format format;
  int B, D;
};

// The products of a step, one launch each. Forward, a projection follows the cell; backward it comes first,
// and `cell` is what follows: W_hr' dh.
struct Products {
  Product cell, projection;
  bool projected;
};
constexpr Products products_of(const LayerSizes& s) {
  const int G = gate_count(s.cell);
  const bool projected = s.P != s.H;
  const auto of = [&](int gates, int units, int K) { return Product{gates, units, K, s.format, s.B, s.D}; };
  if (!s.backward) return {of(G, s.H, s.P), of(1, s.P, s.H), projected};
  return {projected ? of(1, s.H, s.P) : of(1, s.H, G * s.H), of(1, s.P, G * s.H), projected};
}

}  // namespace fusegen::cuda::stepwise
