#include "workspace.h"

#include <algorithm>

namespace fusegen::cuda {
namespace {

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

int64_t copies_of_rows(const Plan& plan, int D) {
  return 2ll * D * plan.groups * plan.slices * 8 * plan.tiles;
}

}  // namespace

int64_t padded_units(const Plan& plan, Kind kind, bool backward) {
  return static_cast<int64_t>(plan.blocks) * (8 / plan.k_splits) * units_of_warp(row_gates(kind, backward));
}

int64_t row_bytes(const Plan& plan, Kind kind, Format format, bool backward) {
  const int64_t bytes =
      padded_units(plan, kind, backward) * (backward ? gates_of(kind) : 1) * number_bytes(format);
  return (bytes + kChunk - 1) / kChunk * kChunk;
}

Workspace workspace(const Device& device, const Plan& plan, Kind kind, Format format, bool backward, int B,
                    int H, int P, int D) {
  const Plan step = choose_stepwise(device, kind, format, backward, B, H, D);
  const auto rows = [&](const Plan& p, Kind k) {
    return copies_of_rows(p, D) * row_bytes(p, k, format, backward);
  };
  int64_t exchange = std::max(rows(plan, kind), rows(step, kind)), inner = 0;
  if (P != H) {
    inner = exchange;
    exchange = rows(choose_stepwise(device, Kind::identity, format, backward, B, P, D), Kind::identity);
    if (backward) std::swap(inner, exchange);
  }
  Workspace w{};
  w.inner = aligned(exchange);
  w.flags = w.inner + aligned(inner);
  w.zeroed = w.flags + aligned(4ll * D * plan.groups * plan.slices * plan.blocks);
  w.carry = w.zeroed;
  w.inner_carry = w.carry + aligned(8ll * D * B * H);
  w.bytes = w.inner_carry + (P != H ? aligned(8ll * D * B * P) : 0);
  return w;
}

}  // namespace fusegen::cuda
