// The rows of R that a warp owns, and their product with what the group has exchanged.
#pragma once
#include "../sums.h"
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
  const int share = (all_chunks + geometry.k_splits - 1) / geometry.k_splits;
  s.first_chunk = s.k_split * share;
  s.chunks = s.first_chunk + share <= all_chunks ? share
             : all_chunks > s.first_chunk        ? all_chunks - s.first_chunk
                                                 : 0;
  return s;
}

// A warp's rows: in registers for the whole sequence where the plan says so, kTiles * kChunks * 8 of them;
// else a stretch at a time.
template <int Gates, class T, class Format>
class Weights {
public:
  using Rows = WarpRows<Gates>;
  static constexpr int kTiles = Rows::kTiles, kChunks = resident_chunks(Gates, kSplit<Format>);

  FUSEGEN_DEVICE Weights(const Operand& operand, const Geometry& geometry, const Self& me)
      : operand_(operand), geometry_(geometry), me_(me) {
    if (geometry_.resident) load(me_.first_chunk, me_.chunks);
  }

  // The whole product of a slice with 8*NT gathered rows, `stride` bytes apart; in the lanes of the warps
  // with k_split 0 afterwards. One block barrier: after it, nobody reads `gathered` any more.
  template <int NT>
  FUSEGEN_DEVICE void product(float (&sums)[kTiles][NT][4], const unsigned char* gathered, int stride) {
    set_zero(sums);
    if (geometry_.resident) {
      multiply(sums, gathered, stride, me_.first_chunk, me_.chunks);
    } else {
#pragma unroll 1
      for (int done = 0; done < me_.chunks; done += kChunks) {
        const int count = me_.chunks - done < kChunks ? me_.chunks - done : kChunks;
        load(me_.first_chunk + done, count);
        multiply(sums, gathered, stride, me_.first_chunk + done, count);
      }
    }
    add_up(sums, me_.k_split, me_.unit_group, geometry_.k_splits,
           reinterpret_cast<float*>(device::shared_memory() + geometry_.shared.partial));
  }

  // The warp's part of a product with the 8*NT rows that lie in shared memory from byte `first` on. No
  // barrier.
  template <int NT>
  FUSEGEN_DEVICE void partial_sums(float (&sums)[kTiles][NT][4], int first, int stride) const {
    set_zero(sums);
    multiply(sums, device::shared_memory() + first, stride, me_.first_chunk, me_.chunks);
  }

private:
  // Chunks first .. first+count of the warp's rows.
  FUSEGEN_DEVICE void load(int first, int count) {
    const int g = device::lane() / 4, t = device::lane() % 4;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const int k =
          (first + chunk) * (kChunk / static_cast<int>(sizeof(T))) + t * (16 / static_cast<int>(sizeof(T)));
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        top_[tile][chunk] = load_numbers<T>(operand_, me_.direction, chunk < count ? row(tile, g) : -1, k);
        bottom_[tile][chunk] =
            load_numbers<T>(operand_, me_.direction, chunk < count ? row(tile, g + 8) : -1, k);
      }
    }
  }

  // sums += the loaded chunks times chunks first .. first+count of the gathered rows.
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

  FUSEGEN_DEVICE int row(int tile, int r) const {
    const int unit = me_.first_unit + Rows::unit(tile, r);
    return unit < operand_.units ? Rows::gate(tile, r) * operand_.units + unit : -1;
  }

  const Operand& operand_;
  const Geometry& geometry_;
  const Self& me_;
  device::Word4 top_[kTiles][kChunks], bottom_[kTiles][kChunks];
};

}  // namespace fusegen::cuda
