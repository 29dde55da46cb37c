// Parts of a block's shared memory, as its plan and its kernel see it. No CUDA.
#pragma once
#include "../product.h"
#include "shard.h"

namespace fusegen::cuda::wide {

// In bytes from its start.
struct SharedParts {
  int gathered;  // h of a slice: [K / 32][N rows] of 64 bytes, as device/warpgroup.h has it
  int sums, state, lengths, stop;
  int resets;  // what states become where sequences start anew, numbers as they come; 0: of no call's
  int total;
};

// Floats of a pair that are carried from step to step: h, and LSTM's c.
constexpr int carried(int gates) { return gates == 4 ? 2 : 1; }

// Of a warpgroup's columns.
constexpr int stages(int H, int k_splits) { return ceil_div(H, kStage * k_splits); }

constexpr SharedParts shared_parts(const Plan& plan, const Product& product) {
  const int rows = 8 * plan.tiles, pairs = rows * units_of_block(product.gates, plan.k_splits);
  SharedParts p{};
  p.sums = p.gathered + plan.k_splits * stages(product.units, plan.k_splits) * kStage * 2 * rows;
  p.state = p.sums + 2 * kRowsOfTile * (rows + 8) * 4;
  p.lengths = p.state + plan.slices * pairs * carried(product.gates) * 4;
  p.stop = p.lengths + plan.slices * rows * 4;
  p.total = p.stop + 16;
  if (product.resets) {
    p.resets = p.total;
    p.total += plan.slices * pairs * carried(product.gates) * number_bytes(product.format);
  }
  return p;
}

}  // namespace fusegen::cuda::wide
