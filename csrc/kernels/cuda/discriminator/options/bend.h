// What a smooth activation's second derivative adds to the gradient of a weight: R' H over the penalised
// rows.
#pragma once
#include "../bulk.h"

namespace fusegen::cuda {

// H of the penalised rows, a row for each, which need not lie on end. Copied asynchronously, but where bulk
// copies bring the other operand, whose barriers count bytes alone: there through registers.
template <class T, int kRows, int kChunks, bool held>
class Penalised : public TurnedStage<T, kRows, kChunks> {
public:
  // Columns `first` .. of g's h.
  FUSEGEN_DEVICE Penalised(const StepArguments& a, const WeightGradient& g, int first)
      : a_(a), h_(g.h), column_(Stage::column_of(first, g.N)), width_(g.N), i_(Stage::k_of(0)) {}

  FUSEGEN_DEVICE void begin(unsigned char* slot) {
    const bool whole = h_.data || a_.samples.aligned;  // words
#pragma unroll(held ? Stage::kWords : 1)  // addresses of all words at once would not fit into registers
    for (int j = 0; j < Stage::kWords; ++j, i_ += Stage::kStep) {
      const bool there = i_ < a_.penalised.count;
      const int row = a_.penalised(there ? i_ : 0);
      const T* from = (h_.data ? row_of<const T>(h_, row) : row_of<T>(a_.samples, row)) + column_;
      if constexpr (held) {
        held_[j] = !there  ? device::Word4{0, 0, 0, 0}
                   : whole ? device::load16(from)
                           : gather_word(from, width_ - column_);
      } else if (whole) {
        device::copy16_or_zero_async(Stage::place_of(slot, j), from, there);
      } else {
        gather(Stage::place_of(slot, j), from, there ? width_ - column_ : 0);
      }
    }
  }
  FUSEGEN_DEVICE void finish(unsigned char* slot) const {
    if constexpr (held) {
#pragma unroll
      for (int j = 0; j < Stage::kWords; ++j) device::store16(Stage::place_of(slot, j), held_[j]);
    }
  }

private:
  using Stage = TurnedStage<T, kRows, kChunks>;

  const StepArguments& a_;
  const Scratch h_;
  const int column_, width_;
  int i_;  // the number of the next word's row among the penalised ones
  device::Word4 held_[held ? Stage::kWords : 1];
};

// sums += the tile of R' H, behind that of U' (s H + c T). By all lanes.
template <class T, class Format, class Tile>
FUSEGEN_DEVICE void add_bend(Sums<Tile>& sums, const typename Bulk<Tile>::Arguments& a, int job,
                             const Corner& corner, Bulk<Tile>& ring) {
  const WeightGradient& g = a.job[job].product;
  const int rows = a.penalised.count;
  if (Tile::kSplits > 1 && WarpShare<Tile>().split > 0) set_zero(sums);  // they are in those of split 0
  ring.begin_unit();
  device::sync_block();  // the shared memory of the product before is free
  Penalised<T, Tile::kN, Tile::kChunks, Tile::kWarpgroups> right(a, g, corner.n);
  if constexpr (!Tile::kWarpgroups) {
    Across<T, Tile::kM, Tile::kChunks> left({g.r.data, g.r.stride, true}, corner.m, rows, g.r.stride);
    multiply_in_stages<T, Format, Tile, Early::left>(sums, left, right, rows, [] {});
  } else if constexpr (device::kHasWarpgroups) {
    Boxes<true> left(&a.right_maps[job], corner.m, g.M);
    multiply_in_boxes<Format, Tile, Early::left>(sums, left, right, rows, ring, [] {});
  }
}

}  // namespace fusegen::cuda
