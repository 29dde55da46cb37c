// How a step of a cell lies on a device: a pure function of both.
#include <algorithm>

#include "../layout.h"

namespace fusegen::cuda {

CellPlan choose_cell(const Device& device, Cell cell, Format format, int B, int I, int H) {
  // Every 32 rows read the weights again, so a large batch is better off with a plain GEMM's tiles.
  constexpr int kMostRows = 32;
  CellPlan plan{};
  plan.multiplies = B <= kMostRows;
  plan.why = plan.multiplies ? "few rows: products and cell in one launch"
                             : "many rows: torch's GEMMs, then the cell in one launch";
  if (!plan.multiplies) return plan;
  const int gates = gate_count(cell),
            chunks = ceil_div(static_cast<int64_t>(std::max(I, H)) * number_bytes(format), kChunk);
  plan.tiles = B <= 8 ? 1 : kMostRows / 8;
  plan.groups = std::max(1, ceil_div(B, 8 * plan.tiles));
  const auto blocks = [&](int k_splits) { return ceil_div(H, 8 / k_splits * units_of_warp(gates)); };
  for (plan.k_splits = 1; plan.k_splits < 8; plan.k_splits *= 2)
    if (blocks(plan.k_splits) * plan.groups >= device.sms || 2 * plan.k_splits > chunks) break;
  plan.blocks = blocks(plan.k_splits);
  plan.shared_bytes =
      (8 - 8 / plan.k_splits) * sums_of_cell(gates) * plan.tiles * 128 * static_cast<int>(sizeof(float));
  return plan;
}

}  // namespace fusegen::cuda
