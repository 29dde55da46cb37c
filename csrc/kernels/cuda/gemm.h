// A product of two matrices on tensor cores, D[M,N] = A[M,K] B[N,K]', with what comes before and after it
// supplied by the kernel that uses it.
//
// A block of 8 warps owns a tile of D. Its operands stream through a ring of kRing stages in shared memory,
// each of Tile::kChunks chunks of 64 bytes along K, laid out [chunk][row][64 bytes]: lanes that read 16 bytes
// of 8 neighbouring rows then meet no bank twice. An operand whose rows run along K in memory is copied
// asynchronously (Along); one that runs across K is read into registers a stage ahead, worked on there, and
// stored transposed (Across). One barrier a stage: behind it, the stage that was multiplied last is free to
// be filled.
#pragma once
#include <device/copy.h>
#include <device/mma.h>
#include <device/number.h>

#include "mlp_arguments.h"

namespace fusegen::cuda {

constexpr int kRing = 3;

// Rows x columns of D that a block owns; its warps [kWarpsM][kWarpsN][kSplits], the last sharing the chunks
// of a stage.
template <int rows, int columns, int chunks, int warps_m, int warps_n, int splits>
struct Tile {
  static constexpr int kM = rows, kN = columns, kChunks = chunks, kWarpsM = warps_m, kWarpsN = warps_n,
                       kSplits = splits;
  static constexpr int kTilesM = kM / (16 * kWarpsM), kTilesN = kN / (8 * kWarpsN);  // of a warp
  static constexpr int kStageBytes = (kM + kN) * kChunks * kChunk;
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

template <class T>
constexpr int kOfWord = 16 / static_cast<int>(sizeof(T));
template <class T>
constexpr int kOfChunk = kChunk / static_cast<int>(sizeof(T));

// Up to a word of numbers, one by one; zero past `count`.
template <class T>
FUSEGEN_DEVICE device::Word4 gather_word(const T* from, int count) {
  uint32_t parts[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < kOfWord<T>; ++i) {
    if (i >= count) break;
    if constexpr (sizeof(T) == 4) {
      parts[i] = device::as_bits(from[i]);
    } else {
      parts[i / 2] |= static_cast<uint32_t>(from[i].bits) << (16 * (i % 2));
    }
  }
  return {parts[0], parts[1], parts[2], parts[3]};
}

// A word at number `at` of a row, of which `limit` are there.
template <class T>
FUSEGEN_DEVICE device::Word4 read_word(const T* row, int at, int limit, bool aligned) {
  if (at >= limit) return {0, 0, 0, 0};
  if (aligned) return device::load16(row + at);
  return gather_word(row + at, limit - at);
}

FUSEGEN_DEVICE uint32_t part(const device::Word4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// -- An operand whose rows run along K
// --------------------------------------------------------------------------------

template <class T, int kRows, int kChunks>
class Along {
public:
  // Rows map(first) .. of `sheet`, those below `count`; `limit` numbers of each.
  FUSEGEN_DEVICE Along(const Sheet& sheet, const RowMap& map, int first, int count, int limit)
      : limit_(limit), aligned_(sheet.aligned) {
#pragma unroll
    for (int j = 0; j < kWords; ++j) {
      const int row = first + row_of(j);
      from_[j] = row < count ? row_of_sheet<T>(sheet, map(row)) : nullptr;
    }
  }
  FUSEGEN_DEVICE void begin(unsigned char* slot, int k0) const {
#pragma unroll
    for (int j = 0; j < kWords; ++j) {
      const int index = device::thread() + j * device::kThreads, chunk = index / (4 * kRows),
                word = index % 4;
      unsigned char* to = slot + (chunk * kRows + row_of(j)) * kChunk + 16 * word;
      const int k = k0 + chunk * kOfChunk<T> + word * kOfWord<T>;
      if (from_[j] && k < limit_ && aligned_) {
        device::copy16_async(to, from_[j] + k);
      } else {
        device::store16(to, from_[j] ? read_word(from_[j], k, limit_, false) : device::Word4{0, 0, 0, 0});
      }
    }
  }
  FUSEGEN_DEVICE void finish(unsigned char*) const {}

private:
  static constexpr int kWords = kRows * kChunks * 4 / device::kThreads;  // of a lane
  static_assert(kWords * device::kThreads == kRows * kChunks * 4);
  FUSEGEN_DEVICE static int row_of(int j) { return (device::thread() + j * device::kThreads) / 4 % kRows; }

  const T* from_[kWords];
  int limit_;
  bool aligned_;
};

// -- An operand whose rows run across K
// -------------------------------------------------------------------------------

// The plain numbers of a sheet [K][limit].
template <class T>
struct Plain {
  struct Held {
    device::Word4 word;
  };
  const Sheet& sheet;
  RowMap map;
  int K, limit;

  FUSEGEN_DEVICE Held read(int k, int m) const {
    if (k >= K) return {{0, 0, 0, 0}};
    return {read_word(row_of_sheet<T>(sheet, map(k)), m, limit, sheet.aligned)};
  }
  FUSEGEN_DEVICE device::Word4 word(const Held& held) const { return held.word; }
};

template <class T, int kRows, int kChunks, class Reader>
class Across {
public:
  FUSEGEN_DEVICE Across(const Reader& reader, int first) : reader_(reader), first_(first) {}

  FUSEGEN_DEVICE void begin(unsigned char*, int k0) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u)
#pragma unroll
      for (int p = 0; p < kPairs; ++p)
        held_[u][p] =
            reader_.read(k0 + chunk(u) * kOfChunk<T> + device::thread() % 16 * kPairs + p, first_ + row(u));
  }
  FUSEGEN_DEVICE void finish(unsigned char* slot) const {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      device::Word4 words[kPairs];
#pragma unroll
      for (int p = 0; p < kPairs; ++p) words[p] = reader_.word(held_[u][p]);
      unsigned char* to = slot + (chunk(u) * kRows + row(u)) * kChunk + device::thread() % 16 * 4;
#pragma unroll
      for (int i = 0; i < kOfWord<T>; ++i) *reinterpret_cast<uint32_t*>(to + i * kChunk) = column(words, i);
    }
  }

private:
  // A unit is a word of a row, and as many rows as 4 bytes along K take.
  static constexpr int kPairs = 4 / static_cast<int>(sizeof(T)), kWordsOfRow = kRows / kOfWord<T>;
  static constexpr int kUnits = kWordsOfRow * 16 * kChunks / device::kThreads;  // of a lane
  static_assert(kUnits * device::kThreads == kWordsOfRow * 16 * kChunks);

  FUSEGEN_DEVICE static int unit(int u) { return (device::thread() + u * device::kThreads) / 16; }
  FUSEGEN_DEVICE static int row(int u) { return unit(u) % kWordsOfRow * kOfWord<T>; }
  FUSEGEN_DEVICE static int chunk(int u) { return unit(u) / kWordsOfRow; }
  // Number i of each word, side by side.
  FUSEGEN_DEVICE static uint32_t column(const device::Word4 (&words)[kPairs], int i) {
    if constexpr (kPairs == 1) {
      return part(words[0], i);
    } else {
      const int shift = 16 * (i % 2);
      return ((part(words[0], i / 2) >> shift) & 0xffffu) | (part(words[1], i / 2) >> shift) << 16;
    }
  }

  const Reader reader_;
  const int first_;
  typename Reader::Held held_[kUnits][kPairs];
};

// -- The product
// ------------------------------------------------------------------------------------------------------

template <class Tile>
using Sums = float[Tile::kTilesM][Tile::kTilesN][4];

// Where the calling warp's share of the tile lies.
template <class Tile>
struct WarpPlace {
  int m, n, split;
  FUSEGEN_DEVICE WarpPlace() {
    const int warp = device::warp(), of_d = warp % (Tile::kWarpsM * Tile::kWarpsN);
    m = of_d / Tile::kWarpsN * 16 * Tile::kTilesM;
    n = of_d % Tile::kWarpsN * 8 * Tile::kTilesN;
    split = warp / (Tile::kWarpsM * Tile::kWarpsN);
  }
};

// The block's tile of A B'; afterwards the sums are in the warps of split 0. By all lanes.
template <class T, class Format, class Tile, class A, class B>
FUSEGEN_DEVICE void multiply(Sums<Tile>& sums, A& a, B& b, int K) {
  constexpr int kOfStage = Tile::kChunks * kOfChunk<T>, kBytesA = Tile::kM * Tile::kChunks * kChunk;
  const WarpPlace<Tile> place;
  const int stages = (K + kOfStage - 1) / kOfStage, lane = device::lane();
  unsigned char* ring = device::shared_memory();
  const auto slot_of = [&](int stage) { return ring + stage % kRing * Tile::kStageBytes; };
#pragma unroll
  for (int m = 0; m < Tile::kTilesM; ++m)
#pragma unroll
    for (int n = 0; n < Tile::kTilesN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[m][n][i] = 0;

#pragma unroll 1
  for (int stage = 0; stage < kRing - 1; ++stage) {
    if (stage < stages) {
      unsigned char* slot = slot_of(stage);
      a.begin(slot, stage * kOfStage);
      b.begin(slot + kBytesA, stage * kOfStage);
      a.finish(slot);
      b.finish(slot + kBytesA);
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
      b.begin(to + kBytesA, next * kOfStage);
    }
    device::end_copy_group();
    const unsigned char* from = slot_of(stage) + lane / 4 * kChunk + lane % 4 * 16;
#pragma unroll
    for (int c = 0; c < Tile::kChunks / Tile::kSplits; ++c) {
      const int chunk = c * Tile::kSplits + place.split;
      if (stage * kOfStage + chunk * kOfChunk<T> >= K) break;
      const unsigned char* rows_a = from + (chunk * Tile::kM + place.m) * kChunk;
      const unsigned char* rows_b = from + kBytesA + (chunk * Tile::kN + place.n) * kChunk;
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
        for (int m = 0; m < Tile::kTilesM; ++m)
          device::product(Format{}, sums[m][n], top[m], bottom[m], column);
      }
    }
    if (next < stages) {
      a.finish(to);
      b.finish(to + kBytesA);
    }
  }

  if constexpr (Tile::kSplits > 1) {
    float* partial = reinterpret_cast<float*>(ring);
    const auto at = [&](int split, int m, int n, int i) -> float& {
      const int of_d = device::warp() % (Tile::kWarpsM * Tile::kWarpsN);
      return partial
          [((((split - 1) * Tile::kWarpsM * Tile::kWarpsN + of_d) * Tile::kTilesM + m) * Tile::kTilesN + n) *
               128 +
           i * 32 + lane];
    };
    device::sync_block();
    if (place.split > 0) {
#pragma unroll
      for (int m = 0; m < Tile::kTilesM; ++m)
#pragma unroll
        for (int n = 0; n < Tile::kTilesN; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) at(place.split, m, n, i) = sums[m][n][i];
    }
    device::sync_block();
    if (place.split > 0) return;
#pragma unroll 1
    for (int split = 1; split < Tile::kSplits; ++split)
#pragma unroll
      for (int m = 0; m < Tile::kTilesM; ++m)
#pragma unroll
        for (int n = 0; n < Tile::kTilesN; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[m][n][i] += at(split, m, n, i);
  }
}

// each(m, n, x, y) for the sums of row m, columns n and n + 1 of D, of a block whose tile starts at (first_m,
// first_n). Lanes of warps that have none do nothing.
template <class Tile, class Each>
FUSEGEN_DEVICE void for_each_pair(const Sums<Tile>& sums, int first_m, int first_n, const Each& each) {
  const WarpPlace<Tile> place;
  if (place.split > 0) return;
  const int m0 = first_m + place.m + device::lane() / 4, n0 = first_n + place.n + device::lane() % 4 * 2;
#pragma unroll
  for (int m = 0; m < Tile::kTilesM; ++m)
#pragma unroll
    for (int n = 0; n < Tile::kTilesN; ++n) {
      each(m0 + 16 * m, n0 + 8 * n, sums[m][n][0], sums[m][n][1]);
      each(m0 + 16 * m + 8, n0 + 8 * n, sums[m][n][2], sums[m][n][3]);
    }
}

}  // namespace fusegen::cuda
