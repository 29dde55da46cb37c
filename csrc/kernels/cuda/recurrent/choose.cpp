// Which transport a recurrence takes on a device, and how it lies there: a pure function of both.
#include <algorithm>

#include "pass.h"
#include "stepwise/pass.h"
#include "wide/pass.h"

namespace fusegen::cuda {
namespace {

int chunks_of_row(const Product& p, int units) {
  return ceil_div(static_cast<int64_t>(units) * number_bytes(p.format), kChunk);
}

// Shared memory of the plan; false where the device has less.
bool fits(Plan& plan, const Product& p, const Device& device) {
  plan.shared_bytes = shared_parts(plan, p, static_cast<int>(vector_of(plan, p).bytes)).total;
  return plan.shared_bytes <= device.shared_bytes;
}

// R in the registers of `blocks` blocks, by the fewest that hold it.
bool resident(Plan& plan, const Product& p, const Device& device, Transport transport) {
  const int kept = resident_chunks(p.gates);
  for (int k_splits = 1; k_splits <= 8; k_splits *= 2) {
    const int units = units_of_block(p, k_splits);
    int blocks = ceil_div(p.units, units);
    if (transport == Transport::cluster) blocks = power_of_two(blocks);
    if (ceil_div(chunks_of_row(p, blocks * units), k_splits) > kept) continue;  // and so an even number
    if (transport == Transport::block && blocks > 1) return false;
    if (transport == Transport::cluster && (blocks == 1 || blocks > device.largest_cluster)) return false;
    const int most = (transport == Transport::cluster ? clusters(device, blocks) : device.sms / blocks) / p.D;
    if (most < 1) return false;
    plan.transport = transport;
    plan.blocks = blocks;
    plan.k_splits = k_splits;
    deal(plan, p.B, ceil_div(p.B, 8) <= most ? 1 : p.most_tiles, most);
    if (fits(plan, p, device)) return true;
    deal(plan, p.B, 1, most);
    return fits(plan, p, device);
  }
  return false;
}

// Forward, in 16-bit numbers: whether wide kernels, which multiply 32 or 64 rows at a time, take less than
// `plan` is modelled to (benchmarks/gpu/model.py, LSTM): where a group has more than 16 rows and hands h on.
// At H 1024 6.5 us for 17.9 at B 256 and 2.7 for 5.9 at B 64, at H 512 3.1 for 3.2 and, at B 128, 4.3.
bool take_wide(Plan& plan, const LayerSizes& s, const Device& device) {
  const bool slow = plan.transport == Transport::launch ||
                    (plan.transport != Transport::block && plan.slices * plan.tiles > 2);
  Plan by_warpgroups{};
  if (s.backward || !slow || !wide::plan_forward(by_warpgroups, s, device)) return false;
  plan = by_warpgroups;
  return true;
}

const char* why(Transport t) {
  switch (t) {
    case Transport::block: return "R fits the registers of one block";
    case Transport::cluster: return "R fits the registers of a cluster, which hands h on inside itself";
    case Transport::l2: return "R fits the registers of resident blocks, which hand h on through L2";
    case Transport::launch: break;
  }
  return "R does not fit on the chip: a launch a step";
}

}  // namespace

int power_of_two(int n) {
  int p = 1;
  while (p < n) p *= 2;
  return p;
}

// Those of a GPC: 16 usable SMs of about 18.
int clusters(const Device& device, int size) { return std::max(1, device.sms / 18) * (16 / size); }

void deal(Plan& plan, int B, int tiles, int most) {
  plan.tiles = tiles;
  const int all = std::max(1, ceil_div(B, 8 * tiles));
  plan.slices = ceil_div(all, most);
  plan.groups = ceil_div(all, plan.slices);
}

Plan choose_stepwise(const Device& device, const LayerSizes& sizes) {
  Plan plan = stepwise::choose(device, stepwise::products_of(sizes).cell);
  plan.why = why(plan.transport);
  return plan;
}

Plan choose(const Device& device, const LayerSizes& sizes, int transport) {
  const Product p = product_of(sizes);
  Plan plan{};
  bool found = false;
  const bool whole = sizes.P == sizes.H && !sizes.masked;  // of a kernel of all steps
  if (whole)
    for (Transport t : {Transport::block, Transport::cluster, Transport::l2})
      if (!found && (transport < 0 || transport == static_cast<int>(t)))
        found = sizes.backward ? plan_backward(plan, sizes, device, t) : resident(plan, p, device, t);
  if (!found) plan = choose_stepwise(device, sizes);
  const bool free = transport < 0 || transport == static_cast<int>(Transport::l2);
  const bool by_warpgroups = whole && free && take_wide(plan, sizes, device);
  plan.why = by_warpgroups
                 ? "R fits the registers of resident blocks, whose warpgroups multiply many rows at a time"
             : sizes.P != sizes.H ? "a projection follows each step: two launches a step"
             : sizes.masked       ? "dropout and zoneout inside the recurrence are made by a launch a step"
                                  : why(plan.transport);
  plan.workspace_bytes = workspace(device, plan, sizes).bytes;
  if (plan.transport == Transport::cluster)  // which may have to go through L2: run.h
    plan.workspace_bytes = std::max(plan.workspace_bytes,
                                    choose(device, sizes, static_cast<int>(Transport::l2)).workspace_bytes);
  return plan;
}

}  // namespace fusegen::cuda
