// What a pass keeps in global memory while it runs, and where.
#include "pass.h"

#include <algorithm>

#include "stepwise/pass.h"

namespace fusegen::cuda {
namespace {

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// Two copies of what the plan's blocks publish of all rows.
int64_t exchanged(const Plan& plan, const Product& product) {
  return 2ll * product.D * plan.groups * plan.slices * 8 * plan.tiles * vector_of(plan, product).bytes;
}

}  // namespace

Workspace workspace(const Device& device, const Plan& plan, const LayerSizes& s) {
  const int64_t stepwise = stepwise::workspace(device, s).bytes;
  Workspace w{};
  if (plan.transport != Transport::launch) {
    w.flags = aligned(exchanged(plan, product_of(s)));
    w.zeroed = w.flags + aligned(4ll * s.D * plan.groups * plan.slices * flag_stride(plan.blocks));
    w.carry = w.zeroed;
    w.bytes = w.carry + aligned(8ll * s.D * s.B * s.H);
  }
  w.bytes = std::max(w.bytes, stepwise);
  return w;
}

}  // namespace fusegen::cuda
