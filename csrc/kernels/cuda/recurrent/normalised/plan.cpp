// How a step of normalised cells lies on a device, and what it keeps in global memory.
#include "pass.h"

namespace fusegen::cuda {
namespace {

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

int64_t tiles_of(const NormalisedPlan& p, int D) { return static_cast<int64_t>(D) * p.tiles * p.groups; }

}  // namespace

namespace normalised {

Workspace workspace(const NormalisedPlan& plan, const LayerSizes& s, Norm norm) {
  const int64_t rows = static_cast<int64_t>(s.D) * s.B, state = rows * s.H;
  const int64_t gates = rows * (s.backward ? 4 : gate_count(s.cell)) * s.H;
  const int64_t partials =
      plan.splits == 1 ? 0 : tiles_of(plan, s.D) * plan.splits * ProductTile::kM * kRows * 4;
  Workspace w{};
  w.sums = aligned(4 * tiles_of(plan, s.D));
  w.gates = w.sums + (s.backward ? aligned(4 * rows * vector_sums(norm, s.cell, s.H).all) : 0);
  w.read = w.gates + aligned(4 * gates);
  w.c = w.read + (s.backward ? 0 : aligned(number_bytes(s.format) * state));
  w.dh = w.c + aligned(4 * state);
  w.partials = w.dh + (s.backward ? aligned(4 * state) : 0);
  w.bytes = w.partials + partials;
  return w;
}

}  // namespace normalised

NormalisedPlan choose_normalised(const Device& device, const LayerSizes& s, Norm norm, int blocks) {
  constexpr int kMostSplits = 8;  // as of stepwise's
  const stepwise::Product p = normalised::product_of(s, blocks);
  NormalisedPlan plan{};
  plan.tiles = blocks * ceil_div(p.units, normalised::ProductTile::kUnits);
  plan.groups = std::max(1, ceil_div(s.B, normalised::kRows));
  const int stages = ceil_div(static_cast<int64_t>(p.K) * number_bytes(s.format), stepwise::kStageBytes);
  plan.splits = static_cast<int>(
      std::clamp<int64_t>(device.sms / tiles_of(plan, s.D), 1, std::clamp(stages / 2, 1, kMostSplits)));
  plan.log_lanes = normalised::log_lanes_of_row(s.H);
  plan.workspace_bytes = normalised::workspace(plan, s, norm).bytes;
  return plan;
}

}  // namespace fusegen::cuda
