// A product of two matrices on tensor cores, D[M,N] = A[M,K] B[N,K]', with what comes before and after it
// supplied by the kernel that uses it.
//
// A block of 8 warps owns a tile of D. Its operands stream through a ring of kRing stages in shared memory,
// each of Tile::kChunks chunks of 64 bytes along K, laid out [chunk][row][64 bytes]: lanes that read 16 bytes
// of 8 neighbouring rows then meet no bank twice (operands.h fills them). One barrier a stage: behind it, the
// stage that was multiplied last is free to be filled.
#pragma once
#include "../multiply.h"
#include "operands.h"

namespace fusegen::cuda {

constexpr int kRing = 3;

// Rows x columns of D that a block owns; its warps [kWarpsM][kWarpsN][kSplits], the last sharing the chunks
// of a stage.
template <int rows, int columns, int chunks, int warps_m, int warps_n, int splits>
struct Tile {
  static constexpr int kM = rows, kN = columns, kChunks = chunks, kWarpsM = warps_m, kWarpsN = warps_n,
                       kSplits = splits;
  static constexpr int kTilesM = kM / (16 * kWarpsM), kTilesN = kN / (8 * kWarpsN);  // of a warp
  static constexpr int kBytesA = kM * kChunks * kChunk, kStageBytes = kBytesA + kN * kChunks * kChunk;
  static constexpr int kSharedBytes = kRing * kStageBytes;
  static_assert(kWarpsM * kWarpsN * kSplits == device::kWarps);
  static_assert((kSplits - 1) * kM * kN * 4 <= kSharedBytes, "partial sums take the ring's place");
};
// Large tiles fill the chip where there is much to do; true float32, whose products take more registers, has
// smaller ones. Where there is little to do, many small blocks whose warps share K.
template <class Format>
struct Large {
  using Of = Tile<128, 64, 2, 4, 2, 1>;
};
template <>
struct Large<device::FormatF32> {
  using Of = Tile<64, 64, 2, 2, 4, 1>;
};
template <class Format>
using LargeTile = typename Large<Format>::Of;
using SmallTile = Tile<32, 32, 4, 2, 1, 4>;

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
template <class T, class Format, class Tile>
FUSEGEN_DEVICE void multiply_stage(Sums<Tile>& sums, const WarpShare<Tile>& share, const unsigned char* slot,
                                   int k0, int K) {
  const unsigned char* from = slot + device::lane() / 4 * kChunk + device::lane() % 4 * 16;
#pragma unroll
  for (int c = 0; c < Tile::kChunks / Tile::kSplits; ++c) {
    const int chunk = c * Tile::kSplits + share.split;
    if (k0 + chunk * kOfChunk<T> >= K) break;
    const unsigned char* rows_a = from + (chunk * Tile::kM + share.m) * kChunk;
    const unsigned char* rows_b = from + Tile::kBytesA + (chunk * Tile::kN + share.n) * kChunk;
    device::Word4 top[Tile::kTilesM], bottom[Tile::kTilesM];
#pragma unroll
    for (int m = 0; m < Tile::kTilesM; ++m) {
      top[m] = device::load16(rows_a + 16 * m * kChunk);
      bottom[m] = device::load16(rows_a + (16 * m + 8) * kChunk);
    }
#pragma unroll
    for (int n = 0; n < Tile::kTilesN; ++n) {
      const device::Word4 column = device::load16(rows_b + 8 * n * kChunk);
#pragma unroll
      for (int m = 0; m < Tile::kTilesM; ++m) add_product(Format{}, sums[m][n], top[m], bottom[m], column);
    }
  }
}

// The block's tile of A B'; afterwards the sums are in the warps of split 0. By all lanes.
template <class T, class Format, class Tile, class A, class B>
FUSEGEN_DEVICE void multiply(Sums<Tile>& sums, A& a, B& b, int K) {
  constexpr int kOfStage = Tile::kChunks * kOfChunk<T>;
  const WarpShare<Tile> share;
  const int stages = (K + kOfStage - 1) / kOfStage;
  unsigned char* ring = device::shared_memory();
  const auto slot_of = [&](int stage) { return ring + stage % kRing * Tile::kStageBytes; };
  set_zero(sums);

#pragma unroll 1
  for (int stage = 0; stage < kRing - 1; ++stage) {
    if (stage < stages) {
      unsigned char* slot = slot_of(stage);
      a.begin(slot, stage * kOfStage);
      b.begin(slot + Tile::kBytesA, stage * kOfStage);
      a.finish(slot);
      b.finish(slot + Tile::kBytesA);
    }
    device::end_copy_group();
  }
#pragma unroll 1
  for (int stage = 0; stage < stages; ++stage) {
    device::copy_groups_done<kRing - 2>();
    device::sync_block();
    const int next = stage + kRing - 1;
    unsigned char* to = slot_of(next);
    if (next < stages) {
      a.begin(to, next * kOfStage);
      b.begin(to + Tile::kBytesA, next * kOfStage);
    }
    device::end_copy_group();
    multiply_stage<T, Format, Tile>(sums, share, slot_of(stage), stage * kOfStage, K);
    if (next < stages) {
      a.finish(to);
      b.finish(to + Tile::kBytesA);
    }
  }

  if constexpr (Tile::kSplits > 1) {
    device::sync_block();  // the ring's memory holds partial sums from here on
    add_up(sums, share.split, share.part, Tile::kSplits, reinterpret_cast<float*>(ring));
  }
}

// each(m, n, x, y) for the sums of row m, columns n and n + 1 of D, of a block whose tile starts at (first_m,
// first_n). Lanes of warps that have none do nothing.
template <class Tile, class Each>
FUSEGEN_DEVICE void for_each_pair(const Sums<Tile>& sums, int first_m, int first_n, const Each& each) {
  const WarpShare<Tile> share;
  if (share.split > 0) return;
  const int m0 = first_m + share.m + device::lane() / 4, n0 = first_n + share.n + device::lane() % 4 * 2;
#pragma unroll
  for (int m = 0; m < Tile::kTilesM; ++m)
#pragma unroll
    for (int n = 0; n < Tile::kTilesN; ++n) {
      each(m0 + 16 * m, n0 + 8 * n, sums[m][n][0], sums[m][n][1]);
      each(m0 + 16 * m + 8, n0 + 8 * n, sums[m][n][2], sums[m][n][3]);
    }
}

}  // namespace fusegen::cuda
