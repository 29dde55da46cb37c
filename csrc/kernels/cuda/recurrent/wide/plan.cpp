// Whether a forward pass runs by wide kernels, and how: a pure function of both.
#include "pass.h"
#include "shared.h"

namespace fusegen::cuda::wide {
namespace {

bool fits(Plan& plan, const Product& p, const Device& device) {
  plan.shared_bytes = shared_parts(plan, p).total;
  return plan.shared_bytes <= device.shared_bytes;
}

}  // namespace

bool plan_forward(Plan& plan, const LayerSizes& s, const Device& device) {
  const Product p = product_of(s);
  // Products of warpgroups are machine code of 9.0 alone. They take rows that begin on 16 bytes.
  if (device.major != 9 || device.code < 90 || number_bytes(s.format) != 2 || s.H % 8 != 0) return false;
  const int k_splits = stages(s.H, 1) > kStages ? 2 : 1;
  if (stages(s.H, k_splits) > kStages) return false;
  const int blocks = ceil_div(s.H, units_of_block(p.gates, k_splits)), most = device.sms / blocks / s.D;
  if (most < 1) return false;
  plan.transport = Transport::l2;
  plan.blocks = blocks;
  plan.k_splits = k_splits;
  // Several slices hide each other's way through L2: as modelled, four of 32 rows take less than two of 64,
  // eight more than four.
  deal(plan, s.B, ceil_div(s.B, most) <= 128 ? 4 : 8, most);
  return fits(plan, p, device);
}

}  // namespace fusegen::cuda::wide
