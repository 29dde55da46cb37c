// R h', or R' times gradients, of one step: blocks of R, each with its units of every row of the batch, on
// tensor cores by the tiles of a launch a step (../stepwise/multiply.h). Sums go to memory as float32, for
// the rows' kernel, since a layer norm wants a whole row before the first gate of it.
#pragma once
#include "../stepwise/sums.h"
#include "arguments.h"

namespace fusegen::cuda::normalised {

template <class T, class Format, bool kTransposed>
FUSEGEN_KERNEL void block_product_kernel(FUSEGEN_ARGUMENT ProductArguments a) {
  using Of = ProductTile;
  const stepwise::Place place(a);
  const stepwise::Weight& w = a.weight;
  const int block = place.tile / a.pass.tiles_of_block,
            first_unit = (place.tile - block * a.pass.tiles_of_block) * Of::kUnits,
            first_row = place.group * Of::kN;
  const T* const R =
      static_cast<const T*>(w.data[place.direction]) + static_cast<int64_t>(block) * w.units * w.K;
  const T* const vectors = static_cast<const T*>(a.vectors.data[place.direction]) + block * w.K;
  const stepwise::StageRows<T, Of::kN> right(w.K, a.vectors.aligned, R, [&](int row) -> const T* {
    return first_row + row < a.pass.B ? vectors + (first_row + row) * a.vectors.stride : nullptr;
  });
  const int stages = (w.K + stepwise::kOfStage<T> - 1) / stepwise::kOfStage<T>,
            first = stages * place.split / a.splits, last = stages * (place.split + 1) / a.splits;
  stepwise::Sums<Format, Of> sums;
  if constexpr (kTransposed) {
    const stepwise::StageColumns<T> left(R, w.K, w.units, first_unit, w.aligned);
    stepwise::multiply<T, Format, Of>(sums, left, right, first, last);
  } else {
    const stepwise::StageRows<T, Of::kM> left(w.K, w.aligned, R, [&](int row) -> const T* {
      return first_unit + row < w.units ? R + static_cast<int64_t>(first_unit + row) * w.K : nullptr;
    });
    stepwise::multiply<T, Format, Of>(sums, left, right, first, last);
  }
  device::sync_block();  // the ring's memory holds sums from here on
  stepwise::lay_down<Format, Of>(sums);
  device::sync_block();
  const stepwise::SharedSums<Of> shared(a.partials, place, a.tiles, a.splits, a.groups);
  if (!shared.last()) return;

  const int unit = first_unit + device::thread() % Of::kUnits;
#pragma unroll
  for (int item = 0; item < Of::kItems; ++item) {
    float sum[1];
    shared.get(sum, item);
    const int b = first_row + device::thread() / Of::kUnits + item * Of::kRowStep;
    if (b < a.pass.B && unit < w.units)
      a.pass.out[(static_cast<int64_t>(place.direction) * a.pass.B + b) * a.pass.blocks * w.units +
                 block * w.units + unit] = sum[0];
  }
}

}  // namespace fusegen::cuda::normalised
