// How backward's sequence kernels lie on a device: a pure function of both.
#include <algorithm>
#include <cstdint>

#include "../pass.h"
#include "arguments.h"

namespace fusegen::cuda {

bool plan_backward(Plan& plan, const LayerSizes& s, const Device& device, Transport transport) {
  const int gates = gate_count(s.cell), number = number_bytes(s.format);
  const bool clustered = transport == Transport::cluster;
  const auto blocks_of = [&](int shape) {
    const int blocks = ceil_div(s.H, shard_units(gates, number, shape));
    return clustered ? power_of_two(blocks) : blocks;
  };
  const auto holds = [&](int shape) {
    return blocks_of(shape) * shard_units(gates, number, shape) <= shard_reach(gates, shape);
  };
  // Lanes count the numbers of a time step in 32 bits.
  if (int64_t{4} * s.D * s.B * s.H > INT32_MAX) return false;
  // One block's own shape does not hand on (scatter.h).
  int shape = transport != Transport::block && shard_reach(gates, 0) == shard_units(gates, number, 0);
  shape = std::max(shape, first_shape(s.resets));
  while (shape < kShapes && !holds(shape)) ++shape;
  if (shape == kShapes) return false;
  // with no more blocks, fewer units that are not there
  while (shape + 1 < kShapes && blocks_of(shape + 1) == blocks_of(shape)) ++shape;
  const int blocks = blocks_of(shape);
  if (transport == Transport::block && blocks > 1) return false;
  if (clustered && (blocks == 1 || blocks > device.largest_cluster)) return false;
  const int most = (clustered ? clusters(device, blocks) : device.sms / blocks) / s.D;
  if (most < 1) return false;
  plan.transport = transport;
  plan.blocks = blocks;
  plan.k_splits = 1;
  plan.shape = shape;
  deal(plan, s.B, 1, most);
  plan.shared_bytes = backward_shared(plan, gates, number, s.resets).total;
  return plan.shared_bytes <= device.shared_bytes;
}

}  // namespace fusegen::cuda
