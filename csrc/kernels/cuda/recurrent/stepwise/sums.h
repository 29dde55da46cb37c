// From the multipliers' sums to those of a unit in a row: a lane of the cell's maths has one unit of
// neighbouring ones (so that what it reads and writes lies side by side) and all gates of it, in kItems rows.
#pragma once
#include <device/counter.h>

#include "arguments.h"
#include "multiply.h"

namespace fusegen::cuda::stepwise {

// Who this block is.
struct Place {
  int direction, tile, split, group;
  template <class Pass>
  FUSEGEN_DEVICE explicit Place(const Arguments<Pass>& a) {
    // Blocks that read the same rows of R run side by side.
    int block = device::block();
    group = block % a.groups;
    block /= a.groups;
    split = block % a.splits;
    block /= a.splits;
    tile = block % a.tiles;
    direction = block / a.tiles;
  }
};

// Lays a warp's sums down in shared memory, [split][row of the batch][gate][unit]; 4 floats between rows put
// the 32 lanes of a store on 32 banks.
template <class Format, class Tile>
FUSEGEN_DEVICE void lay_down(const Sums<Format, Tile>& sums) {
  using Rows = typename Tile::Rows;
  const WarpShare<Tile> share;
  const int g = device::lane() / 4, t = device::lane() % 4;
  const int first_unit = share.m / (16 * Rows::kTiles) * Rows::kUnits;
  float* to = reinterpret_cast<float*>(device::shared_memory()) +
              (share.split * Tile::kN + share.n + 2 * t) * Tile::kSumStride + first_unit + g;
  for_each_sum<Tile::kTilesM, Tile::kTilesN>([&](int m, int n, int i) {
    const int tile = m % Rows::kTiles, row = 8 * (i / 2);  // and g
    const int unit = m / Rows::kTiles * Rows::kUnits + Rows::unit(tile, row);
    to[(8 * n + i % 2) * Tile::kSumStride + Rows::gate(tile, row) * Tile::kUnits + unit] =
        sums[m][n].total(i);
  });
}

// The sums of a lane's item of its block. Warps are added in their order.
template <class Tile>
FUSEGEN_DEVICE void pick_up(float (&sum)[Tile::kGates], int item) {
  const int unit = device::thread() % Tile::kUnits,
            row = device::thread() / Tile::kUnits + item * Tile::kRowStep;
  const float* from = reinterpret_cast<const float*>(device::shared_memory()) + row * Tile::kSumStride + unit;
#pragma unroll
  for (int gate = 0; gate < Tile::kGates; ++gate) {
    sum[gate] = from[gate * Tile::kUnits];
#pragma unroll
    for (int split = 1; split < Tile::kSplits; ++split)
      sum[gate] += from[split * Tile::kN * Tile::kSumStride + gate * Tile::kUnits];
  }
}

// Where blocks share K, the sums of all of them.
template <class Tile>
class SharedSums {
public:
  FUSEGEN_DEVICE SharedSums(const Partials& partials, const Place& at, int tiles, int splits, int groups)
      : splits_(splits), rank_(at.split) {
    const int64_t place = (static_cast<int64_t>(at.direction) * tiles + at.tile) * groups + at.group;
    sums_ = partials.sums + place * splits * kFloats + device::thread();
    arrivals_ = partials.arrivals + place;
  }

  // By all lanes, when the sums lie in shared memory. False: another block comes later, and goes on.
  FUSEGEN_DEVICE bool last() const {
    if (splits_ == 1) return true;
    float* to = sums_ + static_cast<int64_t>(rank_) * kFloats;
#pragma unroll
    for (int item = 0; item < Tile::kItems; ++item) {
      float sum[Tile::kGates];
      pick_up<Tile>(sum, item);
#pragma unroll
      for (int gate = 0; gate < Tile::kGates; ++gate) to[(item * Tile::kGates + gate) * 256] = sum[gate];
    }
    device::sync_block();  // behind every lane's stores, and the sums in shared memory are read
    auto* came = reinterpret_cast<volatile int*>(device::shared_memory());
    if (device::thread() == 0) {
      const bool all = device::arrive(arrivals_) == static_cast<uint32_t>(splits_ - 1);
      if (all) *arrivals_ = 0;  // for the next launch
      *came = all;
    }
    device::sync_block();
    return *came != 0;
  }

  FUSEGEN_DEVICE void get(float (&sum)[Tile::kGates], int item) const {
    if (splits_ == 1) return pick_up<Tile>(sum, item);
#pragma unroll
    for (int gate = 0; gate < Tile::kGates; ++gate) sum[gate] = 0;
#pragma unroll 4
    for (int split = 0; split < splits_; ++split) {
      const float* from = sums_ + static_cast<int64_t>(split) * kFloats + item * Tile::kGates * 256;
#pragma unroll
      for (int gate = 0; gate < Tile::kGates; ++gate) sum[gate] += from[gate * 256];
    }
  }

private:
  static constexpr int kFloats = Tile::kItems * Tile::kGates * 256;
  float* sums_;
  uint32_t* arrivals_;
  int splits_, rank_;
};

}  // namespace fusegen::cuda::stepwise
