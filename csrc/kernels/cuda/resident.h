// The rows of R that a warp owns, and their product with what the group has exchanged.
#pragma once
#include <device/mma.h>
#include <device/number.h>

#include "arguments.h"

namespace fusegen::cuda {

// Whether products take the halves of split numbers.
template <class Format>
constexpr bool kSplit = false;
template <>
constexpr bool kSplit<device::FormatF32> = true;

// Who this block and this warp are.
struct Self {
  int rank, group, direction;  // block `rank` of a group
  int unit_group, k_split;     // of the warp
  int first_unit;              // of the warp
  int first_chunk, chunks;     // of the warp's share of the rows
};

template <int Gates>
FUSEGEN_DEVICE Self self(const Place& place, int all_chunks) {
  Self s;
  const int block = device::block(), unit_groups = device::kWarps / place.k_splits;
  s.rank = block % place.blocks;
  s.group = block / place.blocks % place.groups;
  s.direction = block / (place.blocks * place.groups);
  s.unit_group = device::warp() % unit_groups;
  s.k_split = device::warp() / unit_groups;
  s.first_unit = (s.rank * unit_groups + s.unit_group) * Rows<Gates>::kUnits;
  const int share = (all_chunks + place.k_splits - 1) / place.k_splits;
  s.first_chunk = s.k_split * share;
  s.chunks = s.first_chunk + share <= all_chunks ? share
             : all_chunks > s.first_chunk        ? all_chunks - s.first_chunk
                                                 : 0;
  return s;
}

// 16 bytes of a row from number `k` of the exchanged vector on; zero where the row has none.
template <class T>
FUSEGEN_DEVICE device::Word4 load_numbers(const Operand& a, int direction, int row, int k) {
  constexpr int n = 16 / static_cast<int>(sizeof(T));
  device::Word4 word{0, 0, 0, 0};
  const int segment = k / a.padded, at = k % a.padded;
  if (row < 0 || segment >= a.segments || at >= a.valid) return word;
  const T* from = static_cast<const T*>(a.data[direction]) + static_cast<int64_t>(row) * a.stride +
                  segment * a.valid + at;
  if (a.aligned && at + n <= a.valid) return device::load16(from);
  uint32_t parts[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < n; ++i) {
    if (at + i >= a.valid) break;
    if constexpr (sizeof(T) == 4) {
      parts[i] = *reinterpret_cast<const uint32_t*>(from + i);
    } else {
      parts[i / 2] |= static_cast<uint32_t>(from[i].bits) << (16 * (i % 2));
    }
  }
  word = {parts[0], parts[1], parts[2], parts[3]};
  return word;
}

// A stretch of a warp's rows in registers, kTiles * kChunks * 8 of them.
template <int Gates, class T, class Format>
class Weights {
public:
  static constexpr int kTiles = Rows<Gates>::kTiles, kChunks = resident_chunks(Gates, kSplit<Format>);

  // Chunks first .. first+count of the warp's rows.
  FUSEGEN_DEVICE void load(const Operand& a, const Self& me, int first, int count) {
    const int g = device::lane() / 4, t = device::lane() % 4;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const int k =
          (first + chunk) * (kChunk / static_cast<int>(sizeof(T))) + t * (16 / static_cast<int>(sizeof(T)));
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        top_[tile][chunk] = load_numbers<T>(a, me.direction, chunk < count ? row(a, me, tile, g) : -1, k);
        bottom_[tile][chunk] =
            load_numbers<T>(a, me.direction, chunk < count ? row(a, me, tile, g + 8) : -1, k);
      }
    }
  }

  // sums += the loaded chunks times chunks first .. first+count of 8*NT gathered rows, `stride` bytes apart.
  template <int NT>
  FUSEGEN_DEVICE void multiply(float (&sums)[kTiles][NT][4], const unsigned char* gathered, int stride,
                               int first, int count) const {
    const unsigned char* from =
        gathered + device::lane() / 4 * stride + first * kChunk + device::lane() % 4 * 16;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      if (chunk >= count) break;
#pragma unroll
      for (int n = 0; n < NT; ++n) {
        const device::Word4 b = device::load16(from + n * 8 * stride + chunk * kChunk);
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile)
          device::product(Format{}, sums[tile][n], top_[tile][chunk], bottom_[tile][chunk], b);
      }
    }
  }

private:
  FUSEGEN_DEVICE static int row(const Operand& a, const Self& me, int tile, int r) {
    const int unit = me.first_unit + Rows<Gates>::unit(tile, r);
    return unit < a.units ? Rows<Gates>::gate(tile, r) * a.units + unit : -1;
  }

  device::Word4 top_[kTiles][kChunks], bottom_[kTiles][kChunks];
};

// Adds the sums of warps that share rows up into those with k_split 0; `partial` is (8 - unit groups) *
// kTiles * NT * 128 floats of shared memory. One block barrier.
template <int kTiles, int NT>
FUSEGEN_DEVICE void add_up(float (&sums)[kTiles][NT][4], int k_split, int unit_group, int k_splits,
                           float* partial) {
  const int unit_groups = device::kWarps / k_splits, lane = device::lane();
  const auto at = [&](int split, int tile, int n, int i) -> float& {
    return partial[((((split - 1) * unit_groups + unit_group) * kTiles + tile) * NT + n) * 128 + i * 32 +
                   lane];
  };
  if (k_split > 0) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int n = 0; n < NT; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) at(k_split, tile, n, i) = sums[tile][n][i];
  }
  device::sync_block();
  if (k_split > 0) return;
#pragma unroll 1
  for (int split = 1; split < k_splits; ++split)
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int n = 0; n < NT; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[tile][n][i] += at(split, tile, n, i);
}

// The whole product of a slice, whose gathered rows are `stride` bytes apart; in the lanes of the warps with
// k_split 0 afterwards. One block barrier: after it, nobody reads `gathered` any more.
template <int Gates, class T, class Format, int NT>
FUSEGEN_DEVICE void product_of_slice(float (&sums)[Rows<Gates>::kTiles][NT][4],
                                     Weights<Gates, T, Format>& weights, const Operand& a, const Place& place,
                                     const Self& me, const unsigned char* gathered, int stride,
                                     unsigned char* shared) {
  constexpr int kTiles = Rows<Gates>::kTiles, kChunks = resident_chunks(Gates, kSplit<Format>);
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
    for (int n = 0; n < NT; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[tile][n][i] = 0;

  if (place.resident) {
    weights.template multiply<NT>(sums, gathered, stride, me.first_chunk, me.chunks);
  } else {
#pragma unroll 1
    for (int done = 0; done < me.chunks; done += kChunks) {
      const int count = me.chunks - done < kChunks ? me.chunks - done : kChunks;
      weights.load(a, me, me.first_chunk + done, count);
      weights.template multiply<NT>(sums, gathered, stride, me.first_chunk + done, count);
    }
  }
  add_up(sums, me.k_split, me.unit_group, place.k_splits,
         reinterpret_cast<float*>(shared + place.shared.partial));
}

}  // namespace fusegen::cuda
