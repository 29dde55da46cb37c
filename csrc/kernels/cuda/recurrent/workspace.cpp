// What a pass keeps in global memory while it runs, and where.
#include <algorithm>

#include "backward/arguments.h"
#include "pass.h"
#include "stepwise/pass.h"
#include "wide/pass.h"

namespace fusegen::cuda {
namespace {

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// Two copies of what the plan's blocks publish of all rows.
int64_t exchanged(const Plan& plan, const Product& product) {
  return 2ll * product.D * plan.groups * plan.slices * 8 * plan.tiles * vector_of(plan, product).bytes;
}

// Of what a plan of that transport hands on through memory.
int64_t exchanged(const Plan& plan, const LayerSizes& s) {
  if (wide::is_wide(plan) && !s.backward)
    return 2 * wide::exchanged_rows(plan, s) * s.H * number_bytes(s.format);
  if (!s.backward) return exchanged(plan, product_of(s));
  return plan.transport == Transport::l2 ? 2 * backward_turn_bytes(plan, s) : 0;
}

}  // namespace

Workspace workspace(const Device& device, const Plan& plan, const LayerSizes& s) {
  Workspace w{};
  if (plan.transport != Transport::launch) {
    w.flags = aligned(exchanged(plan, s));
    w.zeroed = w.flags + aligned(4ll * s.D * plan.groups * plan.slices * flag_stride(plan.blocks));
  }
  w.bytes = std::max(w.zeroed, stepwise::workspace(device, s).bytes);
  return w;
}

}  // namespace fusegen::cuda
