// What a pass keeps in global memory while it runs, and where.
#include <algorithm>

#include "backward/arguments.h"
#include "pass.h"

namespace fusegen::cuda {
namespace {

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// Two copies of what the plan's blocks publish of all rows.
int64_t exchanged(const Plan& plan, const Product& product) {
  return 2ll * product.D * plan.groups * plan.slices * 8 * plan.tiles * vector_of(plan, product).bytes;
}

// Of what a plan of that transport hands on through memory.
int64_t exchanged(const Plan& plan, const LayerSizes& s) {
  if (!s.backward || plan.transport == Transport::launch) return exchanged(plan, product_of(s));
  return plan.transport == Transport::l2 ? 2 * backward_turn_bytes(plan, s) : 0;
}

}  // namespace

Workspace workspace(const Device& device, const Plan& plan, const LayerSizes& s) {
  const Product cell = product_of(s), projection = projection_of(s);
  const bool projected = s.P != s.H;
  int64_t exchange = std::max(exchanged(plan, s), exchanged(choose_stepwise(device, cell), cell)), inner = 0;
  if (projected) {
    inner = exchange;
    exchange = exchanged(choose_stepwise(device, projection), projection);
    if (s.backward) std::swap(inner, exchange);
  }
  Workspace w{};
  w.inner = aligned(exchange);
  w.flags = w.inner + aligned(inner);
  w.zeroed = w.flags + aligned(4ll * s.D * plan.groups * plan.slices * flag_stride(plan.blocks));
  w.carry = w.zeroed;
  w.inner_carry = w.carry + aligned(8ll * s.D * s.B * s.H);
  w.bytes = w.inner_carry + (projected ? aligned(8ll * s.D * s.B * s.P) : 0);
  return w;
}

}  // namespace fusegen::cuda
