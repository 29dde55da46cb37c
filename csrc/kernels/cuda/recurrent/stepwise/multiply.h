// A block's tile of R h': its operands stream through a ring in shared memory, [chunk][row][64 bytes] of
// each, so that the 16-byte reads of 8 neighbouring rows meet no bank twice. One barrier a stage: behind it,
// the stage that was multiplied last is free to be filled.
//
// The loop's sums chain through their accumulators: eight and more independent ones a warp cover the latency
// of an MMA, so that nothing is gained by adding up in several turns.
#pragma once
#include <type_traits>

#include <device/copy.h>
#include <device/matrices.h>

#include "../../multiply.h"
#include "../../operand.h"
#include "tile.h"

namespace fusegen::cuda::stepwise {

template <class T>
constexpr int kOfWord = 16 / static_cast<int>(sizeof(T));
template <class T>
constexpr int kOfStage = kStageBytes / static_cast<int>(sizeof(T));

template <class T>
constexpr int kOfChunk = kChunk / static_cast<int>(sizeof(T));

// Where a word of a row of 64 bytes lies: eight rows, of which each has its word, then meet no bank twice.
constexpr int place_in_row(int row, int word) { return word ^ (row >> 1 & 3); }

template <class T, class Tile>
class FromRows;
template <class T, class Tile>
class FromColumns;

// The words that a lane copies of kRows rows. Eight lanes fetch 64 bytes of two rows, which lie side by side
// in a chunk (no bank twice); the four such groups of a warp fetch the four chunks of these rows, whole
// lines.
template <class T, int kRows>
class StageRows {
public:
  template <class Tile>
  using From = FromRows<T, Tile>;

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
    unsigned char* to =
        part + (chunk() * kRows + first_row()) * kChunk + 16 * place_in_row(first_row(), device::lane() % 4);
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

// Backward: the words that a lane copies of 64 columns of R [K][units], laid out as they come, [k][64 units];
// a row's words change places by its k, so that lanes which read across rows meet no bank twice.
template <class T>
class StageColumns {
public:
  template <class Tile>
  using From = FromColumns<T, Tile>;
  static constexpr int kUnits = units_of_tile(1), kRowBytes = kUnits * static_cast<int>(sizeof(T));
  // Where a word of row k lies.
  static constexpr int place(int k, int word) { return word ^ (sizeof(T) == 2 ? k & 7 : (k & 3) * 2); }

  FUSEGEN_DEVICE StageColumns(const T* R, int K, int units, int first_unit, bool aligned)
      : K_(K - row()), units_(units), left_(units - first_unit - word() * kOfWord<T>), aligned_(aligned) {
    from_ = R + static_cast<int64_t>(row()) * units + first_unit + word() * kOfWord<T>;
    elsewhere_ = R;
  }

  FUSEGEN_DEVICE void fill(unsigned char* part, int k0) const {
    unsigned char* to = part + row() * kRowBytes + 16 * place(row(), word());
    const T* from = from_ + static_cast<int64_t>(k0) * units_;
#pragma unroll
    for (int j = 0; j < kOfLane; ++j) {
      const bool there = left_ > 0 && k0 + j * kStep < K_;
      const T* at = there ? from + static_cast<int64_t>(j * kStep) * units_ : elsewhere_;
      if (aligned_) {
        device::copy16_or_zero_async(to + j * kStep * kRowBytes, at, there);
      } else {
        device::store16(to + j * kStep * kRowBytes, gather_word(at, there ? left_ : 0));
      }
    }
  }

private:
  static constexpr int kOfRow = kRowBytes / 16, kStep = device::kThreads / kOfRow,
                       kOfLane = kOfStage<T> / kStep;
  static_assert(kStep % 8 == 0);  // place() is the same for all j
  FUSEGEN_DEVICE static int row() { return device::thread() / kOfRow; }
  FUSEGEN_DEVICE static int word() { return device::thread() % kOfRow; }

  const T *from_, *elsewhere_;
  int K_, units_, left_;
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

// A lane's words of 16 rows of R, of the warp's tile m, in a stage whose part begins at `part`: registers of
// one load are those of one instruction, so that nothing has to be moved. Word w of a chunk holds the k that
// it holds in vectors.
template <class T, class Tile>
class FromRows {
public:
  explicit FUSEGEN_DEVICE FromRows(const WarpShare<Tile>& share) {
    const int matrix = device::lane() / 8, row = 8 * (matrix % 2) + device::lane() % 8;
#pragma unroll
    for (int half = 0; half < 2; ++half)
      at_[half] =
          (share.split * Tile::kM + share.m + row) * kChunk + 16 * place_in_row(row, 2 * half + matrix / 2);
  }
  FUSEGEN_DEVICE Fragment load(const unsigned char* part, int chunk, int m) const {
    const unsigned char* from = part + (chunk * Tile::kM + 16 * m) * kChunk;
    const Word4 first = device::load_matrices(from + at_[0]), second = device::load_matrices(from + at_[1]);
    return {{first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w}};
  }

private:
  int at_[2];
};

template <class T, class Tile>
class FromColumns {
public:
  explicit FUSEGEN_DEVICE FromColumns(const WarpShare<Tile>& share) {
    const int lane = device::lane(), matrix = lane / 8;
    const int k = kHalves ? 8 * (matrix / 2) + lane % 8 : lane % 4;
    const int unit = share.m + (kHalves ? 8 * (matrix % 2) : lane / 4);
    const int row = share.split * kOfChunk<T> + k;
#pragma unroll
    for (int i = 0; i < kPlaces; ++i) {
      const int at = unit + 16 / kOfTile * i;
      at_[i] = row * kRowBytes + 16 * StageColumns<T>::place(row, at / kOfWord<T>) +
               at % kOfWord<T> * static_cast<int>(sizeof(T));
    }
  }
  FUSEGEN_DEVICE Fragment load(const unsigned char* part, int chunk, int m) const {
    const unsigned char* from = part + chunk * kOfChunk<T> * kRowBytes;
    Fragment f;
    if constexpr (kHalves) {
      const Word4 first = device::load_transposed(from + at_[m]),
                  second = device::load_transposed(from + at_[m] + 16 * kRowBytes);
      f = {{first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w}};
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i)
        f.a[i] = *reinterpret_cast<const uint32_t*>(from + at_[2 * m + i % 2] + i / 2 * 4 * kRowBytes);
    }
    return f;
  }

private:
  static constexpr bool kHalves = sizeof(T) == 2;
  static constexpr int kOfTile = kHalves ? 1 : 2, kPlaces = kOfTile * Tile::kTilesM;
  static constexpr int kRowBytes = StageColumns<T>::kRowBytes;

  int at_[kPlaces];
};

// As multiply.h keeps it.
template <class Format>
FUSEGEN_DEVICE Fragment rounded(Format format, const Fragment& f) {
  return fragment_of(format, {f.a[0], f.a[2], f.a[4], f.a[6]}, {f.a[1], f.a[3], f.a[5], f.a[7]});
}

// sums += the warp's share of a stage that begins at `slot`.
template <class Format, class Tile, class From>
FUSEGEN_DEVICE void multiply_stage(Sums<Format, Tile>& sums, const From& from, const unsigned char* slot,
                                   int b) {
  // GRU's three tiles of numbers taken as two: one chunk at a time, else sm_80 has not registers enough.
  [[maybe_unused]] constexpr int kAtOnce =
      std::is_same_v<Format, device::FormatF32> && Tile::kGates == 3 ? 1 : 4;
#pragma unroll kAtOnce
  for (int chunk = 0; chunk < 4; chunk += Tile::kSplits) {
    const auto columns = [&](int n) {
      return ColumnsOf<Format>(device::load_matrices(slot + b + (chunk * Tile::kN + 8 * n) * kChunk));
    };
    const auto multiply_all = [&](const ColumnsOf<Format>(&column)[Tile::kTilesN]) {
#pragma unroll
      for (int m = 0; m < Tile::kTilesM; ++m) {
        const RowsOf<Format> rows(rounded(Format{}, from.load(slot, chunk, m)));
#pragma unroll
        for (int n = 0; n < Tile::kTilesN; ++n) sums[m][n].add(0, rows, column[n]);
      }
    };
    if constexpr (Tile::kTilesN == 2) {
      multiply_all({columns(0), columns(1)});
    } else {
      multiply_all({columns(0), columns(1), columns(2), columns(3)});
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
  const typename A::template From<Tile> from(share);
  const int b = kBytesA + (share.split * Tile::kN + share.n + device::lane() % 8) * kChunk +
                16 * place_in_row(device::lane() % 8, device::lane() / 8);
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
    multiply_stage<Format, Tile>(sums, from, ring + slot, b);
    free = slot;
    slot = slot == (Tile::kRing - 1) * Tile::kStage ? 0 : slot + Tile::kStage;
  }
}

}  // namespace fusegen::cuda::stepwise
