// The maps of the shards of backward (recurrent/backward/shard.h) and of the wide kernels
// (recurrent/wide/shard.h) are bijections, at compile time.
#include "kernels/cuda/recurrent/backward/shard.h"
#include "kernels/cuda/recurrent/wide/shard.h"

namespace {

using fusegen::cuda::Shard;

// Every gate of every unit has a place of its own in the stage, and the words say whose it is.
template <class S, int Number>
constexpr bool stage_holds_each_once() {
  bool seen[S::kChunks * 64 / Number] = {};
  for (int unit = 0; unit < S::kUnits; ++unit)
    for (int gate = 0; gate < S::kGates; ++gate) {
      const int at = S::stage_at(unit, gate), word = at / 16;
      if (at % Number || at >= S::kChunks * 64 || seen[at / Number]) return false;
      if (S::word_gate(word) != gate || S::word_unit(word) + at % 16 / Number != unit) return false;
      seen[at / Number] = true;
    }
  return true;
}

// A lane's four sums of a tile, by the tensor core's rule for D, lie in the owner's part where the owner
// takes them to be of that unit and row; nothing else lies there.
template <class S, int NT>
constexpr bool parts_hold_sums() {
  const int owners = S::kUnits < 16 ? 16 / S::kUnits : 1;
  for (int owner = 0; owner < owners; ++owner) {
    bool seen[S::part_floats(NT)] = {};
    for (int n = 0; n < NT; ++n)
      for (int tile = 0; tile < S::kOwnTiles; ++tile)
        for (int lane = owner * 32 / owners; lane < (owner + 1) * 32 / owners; ++lane)
          for (int i = 0; i < 4; ++i) {
            const int at = S::word_at(n, tile, lane) / 4 + i,
                      unit = tile * 16 + S::tile_unit(lane / 4 + i / 2 * 8) - owner * S::kUnits,
                      row = n * 8 + lane % 4 * 2 + i % 2;
            if (at >= S::part_floats(NT) || seen[at]) return false;
            if (S::float_unit(at) != unit || S::float_row(at) != row) return false;
            seen[at] = true;
          }
    for (bool s : seen)
      if (!s) return false;
  }
  return true;
}

// A lane finds its further pairs by addition.
template <class S, int NT>
constexpr bool pairs_add_up() {
  for (int i = 0; i < S::part_floats(NT); ++i) {
    const int lane = i % 256, rest = i - lane;
    if (S::float_unit(i) != S::float_unit(lane) + S::float_unit(rest)) return false;
    if (S::float_row(i) != S::float_row(lane) + S::float_row(rest)) return false;
  }
  return true;
}

template <int Gates, int Number, int Shape>
constexpr bool holds() {
  using S = Shard<Gates, Number, Shape>;
  return stage_holds_each_once<S, Number>() && parts_hold_sums<S, 1>() && parts_hold_sums<S, 2>() &&
         pairs_add_up<S, 1>() && pairs_add_up<S, 2>() && S::kTiles * S::kChunks <= 16;
}

template <int Gates, int Number>
constexpr bool all_hold() {
  return holds<Gates, Number, 0>() && holds<Gates, Number, 1>() && holds<Gates, Number, 2>() &&
         holds<Gates, Number, 3>();
}

static_assert(all_hold<1, 2>() && all_hold<3, 2>() && all_hold<4, 2>());
static_assert(all_hold<1, 4>() && all_hold<3, 4>() && all_hold<4, 4>());

// Every pair of a block has one lane, and that lane finds each gate's sum where the row of R is multiplied.
template <int Gates, int KSplits, int N>
constexpr bool wide_holds() {
  using S = fusegen::cuda::wide::Shard<Gates, KSplits, N>;
  constexpr int kTileUnits = S::kUnits / S::kTiles;
  bool seen[S::kUnits][N] = {};
  for (int thread = 0; thread < 256; ++thread)
    for (int item = 0; item < S::kItems; ++item)
      for (int i = 0; i < S::kPer; ++i) {
        const int unit = S::unit(thread, item) + i, row = S::row(thread);
        if (unit >= S::kUnits || row >= N || seen[unit][row]) return false;
        seen[unit][row] = true;
        if (S::unit(thread, item) != S::unit(thread, 0) + S::unit(0, item)) return false;
        for (int gate = 0; gate < Gates; ++gate) {
          const int at = S::sum_at(thread, item, gate, i), tile_row = at / S::kSumStride % 64;
          if (at % S::kSumStride != row || at / S::kSumStride / 64 != unit / kTileUnits) return false;
          if (S::row_gate(tile_row) != gate || S::row_unit(tile_row) != unit % kTileUnits) return false;
          if (at != S::sum_at(thread, 0, 0, 0) + S::sum_at(0, item, gate, i)) return false;
        }
      }
  for (const auto& of_unit : seen)
    for (bool s : of_unit)
      if (!s) return false;
  return true;
}

template <int Gates>
constexpr bool all_wide_hold() {
  return wide_holds<Gates, 1, 32>() && wide_holds<Gates, 1, 64>() && wide_holds<Gates, 2, 32>() &&
         wide_holds<Gates, 2, 64>();
}
static_assert(all_wide_hold<1>() && all_wide_hold<3>() && all_wide_hold<4>());

}  // namespace
