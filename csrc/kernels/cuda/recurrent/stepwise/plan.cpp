// How the products of a step lie on a device, and what they keep in global memory.
#include <algorithm>

#include "pass.h"

namespace fusegen::cuda::stepwise {
namespace {

constexpr int kMostSplits = 8;  // blocks that share K: the last of them adds all their sums up

template <int Gates>
int shared_of(int rows) {
  return rows == kSmallRows ? Tile<Gates, kSmallRows>::kShared
         : rows == 32       ? Tile<Gates, 32>::kShared
                            : Tile<Gates, large_rows(Gates, false)>::kShared;
}

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

int64_t tiles_of(const Plan& plan, const Product& p) {
  return static_cast<int64_t>(p.D) * plan.blocks * plan.groups;
}

int64_t partial_bytes(const Plan& plan, const Product& p) {
  if (plan.k_splits == 1) return 0;
  return tiles_of(plan, p) * plan.k_splits * units_of_tile(p.gates) * p.gates * 8 * plan.tiles * 4;
}

}  // namespace

Plan choose(const Device& device, const Product& p) {
  Plan plan{};
  plan.transport = Transport::launch;
  const int rows = p.B <= kSmallRows ? kSmallRows : large_rows(p.gates, p.format == Format::f32);
  plan.tiles = rows / 8;
  plan.slices = 1;
  plan.groups = std::max(1, ceil_div(p.B, rows));
  plan.blocks = ceil_div(p.units, units_of_tile(p.gates));
  const int stages = ceil_div(static_cast<int64_t>(p.K) * number_bytes(p.format), kStageBytes);
  const int64_t alone = tiles_of(plan, p);
  plan.k_splits =
      static_cast<int>(std::clamp<int64_t>(device.sms / alone, 1, std::clamp(stages / 2, 1, kMostSplits)));
  plan.shared_bytes = p.gates == 4   ? shared_of<4>(rows)
                      : p.gates == 3 ? shared_of<3>(rows)
                                     : shared_of<1>(rows);
  return plan;
}

Workspace workspace(const Device& device, const LayerSizes& s) {
  const Products products = products_of(s);
  const Plan cell = choose(device, products.cell), projection = choose(device, products.projection);
  const auto most = [&](auto of) {
    const int64_t one = of(cell, products.cell);
    return products.projected ? std::max(one, of(projection, products.projection)) : one;
  };
  Workspace w{};
  w.carry = aligned(4 * most(tiles_of));
  w.between = w.carry + aligned(4ll * s.D * s.B * s.H);
  w.masked = w.between + (products.projected && !s.backward
                              ? aligned(static_cast<int64_t>(number_bytes(s.format)) * s.D * s.B * s.H)
                              : 0);
  // Forward two copies of h as R reads it, backward what zoneout hands past the cell.
  const int64_t state = static_cast<int64_t>(s.D) * s.B * s.P;
  w.partials =
      w.masked + (s.masked ? aligned(s.backward ? 4 * state : 2 * number_bytes(s.format) * state) : 0);
  w.bytes = w.partials + aligned(most(partial_bytes));
  return w;
}

}  // namespace fusegen::cuda::stepwise
