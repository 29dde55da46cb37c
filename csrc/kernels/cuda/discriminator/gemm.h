// A product of two matrices on tensor cores, D[M,N] = A[M,K] B[N,K]', with what comes before and after it
// supplied by the kernel that uses it.
//
// A block of 8 warps owns a tile of D. Its operands stream through a ring of stages in shared memory, each of
// Tile::kChunks chunks of 64 bytes along K (operands.h fills and reads them). One barrier a stage: behind it,
// the stage that was multiplied last is free to be filled. The ring takes 96 KB, which every GPU has: with
// one block an SM, what is on its way must make up for the latency of L2.
#pragma once
#include <type_traits>

#include "../multiply.h"
#include "operands.h"
#include "tiles.h"

namespace fusegen::cuda {

// How the warps of a block share its tile, [kWarpsM][kWarpsN][kSplits], the last sharing the chunks of a
// stage.
template <class Size, int chunks, int warps_m, int warps_n, int splits, bool warpgroups = false>
struct Tile {
  static constexpr bool kWarpgroups = warpgroups;
  static constexpr int kM = Size::kM, kN = Size::kN, kChunks = chunks, kWarpsM = warps_m, kWarpsN = warps_n,
                       kSplits = splits;
  static constexpr int kTilesM = kM / (16 * kWarpsM), kTilesN = kN / (8 * kWarpsN);  // of a warp
  static constexpr int kBytesA = kM * kChunks * kChunk, kStageBytes = kBytesA + kN * kChunks * kChunk;
  static constexpr int kRing = ring_bytes(warpgroups) / kStageBytes;
  // Stages on their way. Products of a warpgroup still read the last stage when the next one is asked for.
  static constexpr int kAhead = kRing - (warpgroups ? 2 : 1);
  static_assert(kRing >= 3 && kWarpsM * kWarpsN * kSplits == device::kWarps);
  static_assert((kSplits - 1) * kM * kN * 4 <= ring_bytes(warpgroups), "partial sums take the ring's place");
};
// Of 32-bit numbers, half as many chunks are a stage of the larger tiles: those on their way through
// registers (Weighted) and the rounded or split ones would not fit beside the sums.
using SmallTile = Tile<TileSize<32, 32>, 4, 2, 1, 4>;
template <class T>
using MediumTile = std::conditional_t<sizeof(T) == 2, Tile<TileSize<64, 64>, 4, 2, 2, 2>,
                                      Tile<TileSize<64, 64>, 2, 2, 4, 1>>;
template <class T>
using LargeTile = Tile<TileSize<128, 128>, sizeof(T) == 2 ? 2 : 1, 2, 4, 1>;

// Two warpgroups, each 64 rows.
using WarpgroupTile = Tile<TileSize<128, 128>, 2, 8, 1, 1, true>;

template <class Tile>
using Sums = float[Tile::kTilesM][Tile::kTilesN][4];

// Which part of the block's tile a warp multiplies.
template <class Tile>
struct WarpShare {
  int m, n;         // where it begins
  int part, split;  // of the tile's parts, and of K
  FUSEGEN_DEVICE WarpShare() {
    part = device::warp() % (Tile::kWarpsM * Tile::kWarpsN);
    m = part / Tile::kWarpsN * 16 * Tile::kTilesM;
    n = part % Tile::kWarpsN * 8 * Tile::kTilesN;
    split = device::warp() / (Tile::kWarpsM * Tile::kWarpsN);
  }
};

// sums += the warp's share of a stage that begins at k0 of K.
template <class T, class Format, class Tile, class A, class B>
FUSEGEN_DEVICE void multiply_stage(Sums<Tile>& sums, const WarpShare<Tile>& share, const unsigned char* slot,
                                   int k0, int K) {
#pragma unroll
  for (int c = 0; c < Tile::kChunks / Tile::kSplits; ++c) {
    const int chunk = c * Tile::kSplits + share.split;
    if (k0 + chunk * kOfChunk<T> >= K) break;
    Left rows[Tile::kTilesM];
#pragma unroll
    for (int m = 0; m < Tile::kTilesM; ++m) rows[m] = A::left(slot, chunk, share.m + 16 * m);
#pragma unroll
    for (int n = 0; n < Tile::kTilesN; ++n) {
      const device::Word4 column = B::right(slot + Tile::kBytesA, chunk, share.n + 8 * n);
#pragma unroll
      for (int m = 0; m < Tile::kTilesM; ++m)
        add_product(Format{}, sums[m][n], rows[m].top, rows[m].bottom, column);
    }
  }
}

// The same by warpgroups: all of the stage, whose numbers past K are zero. Afterwards those of the stage
// before are done, these may still be under way.
template <class Format, class Tile, class A, class B>
FUSEGEN_DEVICE void multiply_stage_in_warpgroups(Sums<Tile>& sums, const unsigned char* slot) {
  device::begin_products();
#pragma unroll
  for (int chunk = 0; chunk < Tile::kChunks; ++chunk)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      device::warpgroup_product<A::kAcross, B::kAcross>(Format{}, sums[0],
                                                        A::matrix(slot, chunk, half, device::warp() / 4 * 64),
                                                        B::matrix(slot + Tile::kBytesA, chunk, half, 0));
  device::end_product_group();
  device::product_groups_done<1>();
}

// Which operand can be asked for before ready(): it was there before the launch.
enum class Early { left, right };

// sums += the block's tile of A B'; afterwards they are in the warps of split 0. By all lanes, behind a block
// barrier after the last use of shared memory; ready() once, by all lanes, before anything of the other
// operand is read. So half of the first stages, mostly weights, travels while the grid waits.
template <class T, class Format, class Tile, Early early, class A, class B, class Ready>
FUSEGEN_DEVICE void multiply_in_stages(Sums<Tile>& sums, A& a, B& b, int K, const Ready& ready) {
  constexpr int kOfStage = Tile::kChunks * kOfChunk<T>;
  const WarpShare<Tile> share;
  const int stages = (K + kOfStage - 1) / kOfStage, first = stages < Tile::kAhead ? stages : Tile::kAhead;
  unsigned char* ring = device::shared_memory();
  const auto slot_of = [&](int stage) { return ring + stage % Tile::kRing * Tile::kStageBytes; };

#pragma unroll 1
  for (int stage = 0; stage < first; ++stage) {
    if constexpr (early == Early::left) {
      a.begin(slot_of(stage));
    } else {
      b.begin(slot_of(stage) + Tile::kBytesA);
    }
  }
  ready();
#pragma unroll 1
  for (int stage = 0; stage < Tile::kAhead; ++stage) {
    if (stage < first) {
      unsigned char* slot = slot_of(stage);
      if constexpr (early == Early::left) {
        b.begin(slot + Tile::kBytesA);
      } else {
        a.begin(slot);
      }
      a.finish(slot);
      b.finish(slot + Tile::kBytesA);
    }
    device::end_copy_group();
  }
#pragma unroll 1
  for (int stage = 0; stage < stages; ++stage) {
    device::copy_groups_done<Tile::kAhead - 1>();
    if constexpr (Tile::kWarpgroups) device::fence_for_products();
    device::sync_block();
    const int next = stage + Tile::kAhead;
    unsigned char* to = slot_of(next);
    if (next < stages) {
      a.begin(to);
      b.begin(to + Tile::kBytesA);
    }
    device::end_copy_group();
    if constexpr (Tile::kWarpgroups) {
      multiply_stage_in_warpgroups<Format, Tile, A, B>(sums, slot_of(stage));
    } else {
      multiply_stage<T, Format, Tile, A, B>(sums, share, slot_of(stage), stage * kOfStage, K);
    }
    if (next < stages) {
      a.finish(to);
      b.finish(to + Tile::kBytesA);
    }
  }

  if constexpr (Tile::kWarpgroups) device::product_groups_done<0>();
  if constexpr (Tile::kSplits > 1) {
    device::sync_block();  // the ring's memory holds partial sums from here on
    add_up(sums, share.split, share.part, Tile::kSplits, reinterpret_cast<float*>(ring));
  }
}

// The block's tile of A B', as above.
template <class T, class Format, class Tile, Early early, class A, class B, class Ready>
FUSEGEN_DEVICE void multiply(Sums<Tile>& sums, A& a, B& b, int K, const Ready& ready) {
  if constexpr (Tile::kWarpgroups && !device::kHasWarpgroups) {  // no plan takes these tiles on such a GPU
    for_each_sum<Tile::kTilesM, Tile::kTilesN>(
        [&](int m, int n, int i) { sums[m][n][i] = device::not_a_number(); });
    ready();
  } else {
    set_zero(sums);
    multiply_in_stages<T, Format, Tile, early>(sums, a, b, K, ready);
  }
}

// Where the tile begins that is number `unit` of [M, ...]. Tiles lie along M first, so that blocks that run
// together share those of B.
struct Corner {
  int m, n;
};
template <class Tile>
FUSEGEN_DEVICE Corner corner_of(int M, int unit) {
  const int tiles_m = (M + Tile::kM - 1) / Tile::kM;
  return {unit % tiles_m * Tile::kM, unit / tiles_m * Tile::kN};
}

// each(m, n, x, y) for the sums of row m, columns n and n + 1 of D, of a tile that begins at `corner`.
// Lanes of warps that have none do nothing.
template <class Tile, class Each>
FUSEGEN_DEVICE void for_each_pair(const Sums<Tile>& sums, const Corner& corner, const Each& each) {
  const WarpShare<Tile> share;
  if (share.split > 0) return;
  const int m0 = corner.m + share.m + device::lane() / 4, n0 = corner.n + share.n + device::lane() % 4 * 2;
#pragma unroll
  for (int m = 0; m < Tile::kTilesM; ++m)
#pragma unroll
    for (int n = 0; n < Tile::kTilesN; ++n) {
      each(m0 + 16 * m, n0 + 8 * n, sums[m][n][0], sums[m][n][1]);
      each(m0 + 16 * m + 8, n0 + 8 * n, sums[m][n][2], sums[m][n][3]);
    }
}

}  // namespace fusegen::cuda
