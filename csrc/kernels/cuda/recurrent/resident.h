// Rows of a matrix that a warp keeps in registers for many products, and who keeps which.
#pragma once
#include <device/shared.h>

#include "../multiply.h"
#include "arguments.h"

namespace fusegen::cuda {

// Whether products take the halves of split numbers.
template <class Format>
constexpr bool kSplit = false;
template <>
constexpr bool kSplit<device::FormatF32> = true;

// Over how many sums a tile's products are dealt: so that at most 8 instructions follow each other into one,
// and a warp has 4 or more under way. (An instruction takes 33 cycles on the H100; its pipe takes one every
// 3, from two warps, so 5 would hide it all, but registers beside R are few.)
constexpr int chains_of(int tiles, int chunks, bool split) {
  int chains = 1;
  while (2 * chunks / chains > 8 || tiles * chains * (split ? 2 : 1) < 4) chains *= 2;
  return chains;
}

// kTiles tiles of 16 rows and kChunks chunks of 64 bytes of each, 8 * kTiles * kChunks registers, in the
// order in which instructions take them.
template <int kTiles, int kChunks, class Format>
class Resident {
public:
  // Once per kernel. word(tile, row, chunk): the lane's 16 bytes (device/mma.h) of row 0..15 of a tile; zeros
  // where there is none. The lane asks for rows lane/4 and lane/4 + 8 of each tile, chunk after chunk.
  template <class WordOf>
  FUSEGEN_DEVICE void load(const WordOf& word) {
    const int g = device::lane() / 4;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk)
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const Word4 top = word(tile, g, chunk), bottom = word(tile, g + 8, chunk);
        rows_[tile][chunk] = device::settled(fragment_of(Format{}, top, bottom));
      }
  }

  // sums = the rows times 8*NT columns, over the first `chunks` chunks, an even number, or `all`: without a
  // branch, across which loads would not be asked for ahead. column(n, chunk): the lane's 16 bytes of column
  // 8n + lane/4. No barriers.
  template <int NT, bool all = false, class ColumnOf>
  FUSEGEN_DEVICE void product(float (&sums)[kTiles][NT][4], int chunks, const ColumnOf& column) const {
    constexpr int kChains = chains_of(kTiles * NT, kChunks, kSplit<Format>);
    Sum<Format, kChains> sum[kTiles][NT];
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int n = 0; n < NT; ++n) sum[tile][n].start();

    // The next pair of chunks is fetched while one is multiplied; of many products a chunk, those of the
    // other warp are enough for a fetch to pass unseen.
    constexpr bool kAhead = NT == 1 && !kSplit<Format>;
    Word4 words[4][NT];
    const auto fetch = [&](int chunk) {
      if (chunk >= kChunks) return;
#pragma unroll
      for (int n = 0; n < NT; ++n) words[chunk % 4][n] = column(n, chunk);
    };
    if (kAhead) fetch(0), fetch(1);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      if (!all && chunk > 0 && chunk % 2 == 0 && chunk >= chunks) break;
      if (!kAhead) fetch(chunk);
      if (kAhead && chunk % 2 == 0 && (all || chunk + 2 < chunks)) fetch(chunk + 2), fetch(chunk + 3);
      add<NT, kChains>(sum, chunk, words[chunk % 4]);
      if (chunk % 2 == 1 && chunk + 1 < kChunks) fold<NT, kChains>(sum);
    }
    for_each_sum<kTiles, NT>([&](int tile, int n, int v) { sums[tile][n][v] = sum[tile][n].total(v); });
  }

private:
  template <int NT, int kChains>
  FUSEGEN_DEVICE void add(Sum<Format, kChains> (&sum)[kTiles][NT], int chunk,
                          const Word4 (&words)[NT]) const {
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      const ColumnsOf<Format> columns(words[n]);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile)
        sum[tile][n].add(chunk, RowsOf<Format>(rows_[tile][chunk]), columns);
    }
  }

  template <int NT, int kChains>
  FUSEGEN_DEVICE void fold(Sum<Format, kChains> (&sum)[kTiles][NT]) const {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int n = 0; n < NT; ++n) sum[tile][n].fold();
  }

  Fragment rows_[kTiles][kChunks];
};

// 8*NT rows of columns for a product, `stride` bytes apart: in the block's shared memory from byte `first`
// on. The compiler must see whose memory it is, so there is no pointer in between.
class SharedColumns {
public:
  FUSEGEN_DEVICE SharedColumns(int first, int stride)
      : at_(first + device::lane() / 4 * stride + device::lane() % 4 * 16), tile_(8 * stride) {}
  FUSEGEN_DEVICE Word4 operator()(int n, int chunk) const {
    return device::load16(device::shared_memory() + at_ + n * tile_ + chunk * kChunk);
  }

private:
  int at_, tile_;
};

// Who this block and this warp are.
struct Self {
  int rank, group, direction;  // block `rank` of a group
  int unit_group, k_split;     // of the warp
  int first_unit;              // of the warp
  int first_chunk, chunks;     // of the warp's share of the rows
};

template <class Rows>
FUSEGEN_DEVICE Self self(const Geometry& geometry, int all_chunks) {
  Self s;
  const int block = device::block(), unit_groups = device::kWarps / geometry.k_splits;
  s.rank = block % geometry.blocks;
  s.group = block / geometry.blocks % geometry.groups;
  s.direction = block / (geometry.blocks * geometry.groups);
  s.unit_group = device::warp() % unit_groups;
  s.k_split = device::warp() / unit_groups;
  s.first_unit = (s.rank * unit_groups + s.unit_group) * Rows::kUnits;
  s.chunks = all_chunks / geometry.k_splits;  // an even number: PaddedVector
  s.first_chunk = s.k_split * s.chunks;
  return s;
}

// A warp's rows of R, in registers for the whole sequence.
template <int Gates, class T, class Format>
class Weights {
public:
  using Map = WarpRows<Gates>;
  static constexpr int kTiles = Map::kTiles, kChunks = resident_chunks(Gates);

  FUSEGEN_DEVICE Weights(const Operand& operand, const Self& me) : operand_(operand), me_(me) { load(); }

  // The lane's first word of rows in shared memory, `stride` bytes apart.
  FUSEGEN_DEVICE device::Shared first_column(device::Shared rows, int stride) const {
    return rows + (device::lane() / 4 * stride + me_.first_chunk * kChunk + device::lane() % 4 * 16);
  }
  // The warp's part of a product with 8*NT rows, from that word on. No barrier.
  template <int NT>
  FUSEGEN_DEVICE void partial_sums(float (&sums)[kTiles][NT][4], device::Shared from, int stride) const {
    const auto column = [&](int n, int chunk) {
      return device::load16(from + (n * 8 * stride + chunk * kChunk));
    };
    if constexpr (NT == 1 && !kSplit<Format>) {  // the others have no registers for loads further ahead
      if (me_.chunks == kChunks) return rows_.template product<NT, true>(sums, kChunks, column);
    }
    rows_.template product<NT>(sums, me_.chunks, column);
  }

private:
  // Zeros past the warp's share.
  FUSEGEN_DEVICE void load() {
    constexpr int n = 16 / static_cast<int>(sizeof(T));
    rows_.load([&](int tile, int r, int chunk) {
      const int k = (me_.first_chunk + chunk) * 4 * n + device::lane() % 4 * n;
      return load_numbers<T>(operand_, me_.direction, chunk < me_.chunks ? row(tile, r) : -1, k);
    });
  }

  FUSEGEN_DEVICE int row(int tile, int r) const {
    const int unit = me_.first_unit + Map::unit(tile, r);
    return unit < operand_.units ? Map::gate(tile, r) * operand_.units + unit : -1;
  }

  const Operand& operand_;
  const Self& me_;
  Resident<kTiles, kChunks, Format> rows_;
};

}  // namespace fusegen::cuda
