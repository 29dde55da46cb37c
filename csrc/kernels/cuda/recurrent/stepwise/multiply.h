// A block's tile of R h': its operands stream through a ring in shared memory, [chunk][row][64 bytes] of
// each, so that the 16-byte reads of 8 neighbouring rows meet no bank twice. One barrier a stage: behind it,
// the stage that was multiplied last is free to be filled.
//
// The loop's sums chain through their accumulators: eight and more independent ones a warp cover the latency
// of an MMA, so that nothing is gained by adding up in several turns.
#pragma once
#include <type_traits>

#include <device/copy.h>

#include "../../multiply.h"
#include "../../operand.h"
#include "tile.h"

namespace fusegen::cuda::stepwise {

template <class T>
constexpr int kOfWord = 16 / static_cast<int>(sizeof(T));
template <class T>
constexpr int kOfStage = kStageBytes / static_cast<int>(sizeof(T));

// The words that a lane copies of kRows rows. Eight lanes fetch 64 bytes of two rows, which lie side by side
// in a chunk (no bank twice); the four such groups of a warp fetch the four chunks of these rows, whole
// lines.
template <class T, int kRows>
class StageRows {
public:
  static constexpr int kBytes = kRows * kStageBytes;

  // row_at(row): where it begins, or null: zeros. `K` numbers of each.
  template <class RowAt>
  FUSEGEN_DEVICE StageRows(int K, bool aligned, const void* somewhere, const RowAt& row_at)
      : K_(K), aligned_(aligned) {
#pragma unroll
    for (int j = 0; j < kWords; ++j) {
      const T* row = row_at(first_row() + 16 * j);
      there_[j] = row != nullptr;
      from_[j] = (row ? row : static_cast<const T*>(somewhere)) + first_number();
    }
  }

  FUSEGEN_DEVICE void fill(unsigned char* part, int k0) const {
    unsigned char* to = part + (chunk() * kRows + first_row()) * kChunk + device::lane() % 4 * 16;
    const int left = K_ - k0 - first_number();
    if (aligned_) {
#pragma unroll
      for (int j = 0; j < kWords; ++j)
        device::copy16_or_zero_async(to + 16 * j * kChunk, from_[j] + k0, there_[j] && left > 0);
    } else {
#pragma unroll 1
      for (int j = 0; j < kWords; ++j) {
        const T* from = from_[0];
        bool there = there_[0];
#pragma unroll
        for (int i = 1; i < kWords; ++i)  // no index into registers
          if (i == j) from = from_[i], there = there_[i];
        device::store16(to + 16 * j * kChunk, there ? gather_word(from + k0, left) : device::Word4{});
      }
    }
  }

private:
  static constexpr int kWords = kRows / 16;
  static_assert(kRows % 16 == 0 && device::kThreads == 256 && kStageBytes == 4 * kChunk);
  FUSEGEN_DEVICE static int chunk() { return device::lane() / 8; }
  FUSEGEN_DEVICE static int first_row() { return 2 * device::warp() + device::lane() / 4 % 2; }
  FUSEGEN_DEVICE static int first_number() { return (4 * chunk() + device::lane() % 4) * kOfWord<T>; }

  const T* from_[kWords];
  bool there_[kWords];
  int K_;
  bool aligned_;
};

// Which part of the block's tile a warp multiplies.
template <class Tile>
struct WarpShare {
  int m, n, split;
  FUSEGEN_DEVICE WarpShare() {
    m = device::warp() / Tile::kWarpsN % Tile::kWarpsM * 16 * Tile::kTilesM;
    n = device::warp() % Tile::kWarpsN * 8 * Tile::kTilesN;
    split = device::warp() / (Tile::kWarpsM * Tile::kWarpsN);
  }
};

template <class Format, class Tile>
using Sums = Sum<Format, 1>[Tile::kTilesM][Tile::kTilesN];

template <class Format, class Tile>
FUSEGEN_DEVICE void multiply_chunk(Sums<Format, Tile>& sums, const unsigned char* a,
                                   const ColumnsOf<Format> (&columns)[Tile::kTilesN]) {
#pragma unroll
  for (int m = 0; m < Tile::kTilesM; ++m) {
    const unsigned char* row = a + 16 * m * kChunk;
    const RowsOf<Format> rows(fragment_of(Format{}, device::load16(row), device::load16(row + 8 * kChunk)));
#pragma unroll
    for (int n = 0; n < Tile::kTilesN; ++n) sums[m][n].add(0, rows, columns[n]);
  }
}

// sums += the warp's share of a stage, whose words of A and B for this lane begin at `a` and `b`.
template <class Format, class Tile>
FUSEGEN_DEVICE void multiply_stage(Sums<Format, Tile>& sums, const unsigned char* a, const unsigned char* b) {
  // GRU's three tiles of numbers taken as two: one chunk at a time, else sm_80 has not registers enough.
  [[maybe_unused]] constexpr int kAtOnce =
      std::is_same_v<Format, device::FormatF32> && Tile::kGates == 3 ? 1 : 4;
#pragma unroll kAtOnce
  for (int chunk = 0; chunk < 4; chunk += Tile::kSplits) {
    const auto columns = [&](int n) {
      return ColumnsOf<Format>(device::load16(b + (chunk * Tile::kN + 8 * n) * kChunk));
    };
    if constexpr (Tile::kTilesN == 2) {
      multiply_chunk<Format, Tile>(sums, a + chunk * Tile::kM * kChunk, {columns(0), columns(1)});
    } else {
      multiply_chunk<Format, Tile>(sums, a + chunk * Tile::kM * kChunk,
                                   {columns(0), columns(1), columns(2), columns(3)});
    }
  }
}

// Stages first .. last of K. A and B fill their parts of a stage: fill(part, k0). By all lanes; the ring is
// free behind the next block barrier.
template <class T, class Format, class Tile, class A, class B>
FUSEGEN_DEVICE void multiply(Sums<Format, Tile>& sums, const A& weights, const B& vectors, int first,
                             int last) {
  constexpr int kBytesA = Tile::kM * kStageBytes;
  const WarpShare<Tile> share;
  unsigned char* const ring = device::shared_memory();
  const auto fill = [&](unsigned char* slot, int stage) {
    if (stage < last) {
      weights.fill(slot, stage * kOfStage<T>);
      vectors.fill(slot + kBytesA, stage * kOfStage<T>);
    }
    device::end_copy_group();
  };
  const int word = device::lane() / 4 * kChunk + device::lane() % 4 * 16;
  const int a = (share.split * Tile::kM + share.m) * kChunk + word,
            b = (share.split * Tile::kN + share.n) * kChunk + word + kBytesA;
#pragma unroll
  for (int m = 0; m < Tile::kTilesM; ++m)
#pragma unroll
    for (int n = 0; n < Tile::kTilesN; ++n) sums[m][n].start();

#pragma unroll 1
  for (int i = 0; i < Tile::kRing - 1; ++i) fill(ring + i * Tile::kStage, first + i);
  int slot = 0, free = (Tile::kRing - 1) * Tile::kStage;  // bytes from the ring's begin
#pragma unroll 1
  for (int stage = first; stage < last; ++stage) {
    device::copy_groups_done<Tile::kRing - 2>();
    device::sync_block();
    fill(ring + free, stage + Tile::kRing - 1);
    multiply_stage<Format, Tile>(sums, ring + slot + a, ring + slot + b);
    free = slot;
    slot = slot == (Tile::kRing - 1) * Tile::kStage ? 0 : slot + Tile::kStage;
  }
}

}  // namespace fusegen::cuda::stepwise
