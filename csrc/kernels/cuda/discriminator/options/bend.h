// What a smooth activation's second derivative adds to the gradient of a weight: R' H over the penalised rows.
#pragma once
#include "../bulk.h"

namespace fusegen::cuda {

// H of the penalised rows, a row for each; through registers, since they need not lie on end.
template <class T, int kRows, int kChunks>
class Penalised : public TurnedStage<T, kRows, kChunks> {
public:
  // Columns `first` .. of g's h.
  FUSEGEN_DEVICE Penalised(const StepArguments& a, const WeightGradient& g, int first)
      : a_(a), h_(g.h), column_(Stage::column_of(first, g.N)), width_(g.N), row_(Stage::k_of(0)) {}

  FUSEGEN_DEVICE void begin(unsigned char*) {
#pragma unroll
    for (int j = 0; j < Stage::kWords; ++j, row_ += Stage::kStep) held_[j] = read(row_);
  }
  FUSEGEN_DEVICE void finish(unsigned char* slot) const {
#pragma unroll
    for (int j = 0; j < Stage::kWords; ++j) device::store16(Stage::place_of(slot, j), held_[j]);
  }

private:
  using Stage = TurnedStage<T, kRows, kChunks>;

  FUSEGEN_DEVICE device::Word4 read(int i) const {
    if (i >= a_.penalised.count) return {0, 0, 0, 0};
    const int row = a_.penalised(i);
    if (h_.data) return device::load16(row_of<const T>(h_, row) + column_);
    const T* from = row_of<T>(a_.samples, row) + column_;
    return a_.samples.aligned ? device::load16(from) : gather_word(from, width_ - column_);
  }

  const StepArguments& a_;
  const Scratch h_;
  const int column_, width_;
  int row_;  // of the next word
  device::Word4 held_[Stage::kWords];
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
  Penalised<T, Tile::kN, Tile::kChunks> right(a, g, corner.n);
  if constexpr (!Tile::kWarpgroups) {
    Across<T, Tile::kM, Tile::kChunks> left({g.r.data, g.r.stride, true}, corner.m, rows, g.r.stride);
    multiply_in_stages<T, Format, Tile, Early::left>(sums, left, right, rows, [] {});
  } else if constexpr (device::kHasWarpgroups) {
    Boxes<true> left(&a.right_maps[job], corner.m, g.M);
    multiply_in_boxes<Format, Tile, Early::left>(sums, left, right, rows, ring, [] {});
  }
}

}  // namespace fusegen::cuda
