// Which way a recurrence takes on a device: a pure function of both.
#include <algorithm>

#include "layout.h"
#include "workspace.h"

namespace fusegen::cuda {
namespace {

int ceil_div(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

// What a pass multiplies.
struct Product {
  int gates;     // of the rows: see row_gates
  int tiles;     // most of a slice
  int segments;  // of a row
  int number;    // bytes
  int units;
  bool split;  // true float32
  int B, D;
};

int units_of_block(const Product& p, int k_splits) { return 8 / k_splits * units_of_warp(p.gates); }
int chunks_of_row(const Product& p, int units) {
  return ceil_div(static_cast<int64_t>(p.segments) * units * p.number, kChunk);
}

int power_of_two(int n) {
  int p = 1;
  while (p < n) p *= 2;
  return p;
}

// Clusters of this size that are surely resident together: those of a GPC (16 usable SMs of about 18).
int clusters(const Device& device, int size) { return std::max(1, device.sms / 18) * (16 / size); }

// Shared memory of the plan; false where the device has less.
bool fits(Plan& plan, const Product& p, const Device& device) {
  const int units = units_of_block(p, plan.k_splits) * plan.blocks;
  const SharedParts parts =
      shared_parts(plan.transport, p.gates, p.segments, chunks_of_row(p, units) * kChunk, plan.k_splits,
                   plan.tiles, plan.slices, p.number);
  plan.shared_bytes = parts.total;
  return parts.total <= device.shared_bytes;
}

// Deals the batch over at most `most` groups.
void deal(Plan& plan, const Product& p, int most) {
  plan.tiles = ceil_div(p.B, 8) <= most ? 1 : p.tiles;
  const int all = std::max(1, ceil_div(p.B, 8 * plan.tiles));
  plan.slices = ceil_div(all, most);
  plan.groups = ceil_div(all, plan.slices);
}

// R in the registers of `blocks` blocks, by the fewest that hold it.
bool resident(Plan& plan, const Product& p, const Device& device, Transport transport) {
  const int kept = resident_chunks(p.gates, p.split);
  for (int k_splits = 1; k_splits <= 8; k_splits *= 2) {
    const int units = units_of_block(p, k_splits);
    int blocks = ceil_div(p.units, units);
    if (transport == Transport::cluster) blocks = power_of_two(blocks);
    if (ceil_div(chunks_of_row(p, blocks * units), k_splits) > kept) continue;
    if (transport == Transport::block && blocks > 1) return false;
    if (transport == Transport::cluster && (blocks == 1 || blocks > device.largest_cluster)) return false;
    const int most = (transport == Transport::cluster ? clusters(device, blocks) : device.sms / blocks) / p.D;
    if (most < 1) return false;
    plan.transport = transport;
    plan.blocks = blocks;
    plan.k_splits = k_splits;
    deal(plan, p, most);
    if (fits(plan, p, device)) return true;
    plan.tiles = 1;
    const int all = ceil_div(p.B, 8);
    plan.slices = ceil_div(all, most);
    plan.groups = ceil_div(all, plan.slices);
    return fits(plan, p, device);
  }
  return false;
}

// A launch a step, R read from L2 each time: as many blocks as give every SM work.
void stepwise(Plan& plan, const Product& p, const Device& device) {
  plan.transport = Transport::launch;
  plan.tiles = p.B > 8 ? p.tiles : 1;
  plan.slices = 1;
  plan.groups = std::max(1, ceil_div(p.B, 8 * plan.tiles));
  for (plan.k_splits = 1; plan.k_splits < 8; plan.k_splits *= 2) {
    plan.blocks = ceil_div(p.units, units_of_block(p, plan.k_splits));
    if (plan.blocks * plan.groups * p.D >= device.sms || 2 * plan.k_splits > chunks_of_row(p, p.units)) break;
  }
  plan.blocks = ceil_div(p.units, units_of_block(p, plan.k_splits));
  fits(plan, p, device);
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

Product product_of(Kind kind, Format format, bool backward, int units, int B, int D) {
  return {row_gates(kind, backward),
          most_tiles(kind, format),
          backward ? gates_of(kind) : 1,
          number_bytes(format),
          units,
          format == Format::f32,
          B,
          D};
}

}  // namespace

Plan choose_stepwise(const Device& device, Kind kind, Format format, bool backward, int B, int units, int D) {
  Plan plan{};
  stepwise(plan, product_of(kind, format, backward, units, B, D), device);
  plan.why = why(plan.transport);
  return plan;
}

Plan choose(const Device& device, Kind kind, Format format, bool backward, int B, int H, int P, int D,
            int transport) {
  const Product p = product_of(kind, format, backward, H, B, D);
  Plan plan{};
  bool found = false;
  if (P == H) {
    const Transport ways[] = {Transport::block, Transport::cluster, Transport::l2};
    for (Transport way : ways)
      if (!found && (transport < 0 || transport == static_cast<int>(way)))
        found = resident(plan, p, device, way);
  }
  if (!found) plan = choose_stepwise(device, kind, format, backward, B, H, D);
  plan.why = P != H ? "a projection follows each step: two launches a step" : why(plan.transport);
  plan.workspace_bytes = workspace(device, plan, kind, format, backward, B, H, P, D).bytes;
  return plan;
}

CellPlan choose_cell(const Device& device, Kind kind, Format format, int B, int I, int H) {
  // Every 32 rows read the weights again, so a large batch is better off with a plain GEMM's tiles.
  constexpr int kMostRows = 32;
  CellPlan plan{};
  plan.multiplies = B <= kMostRows;
  plan.why = plan.multiplies ? "few rows: products and cell in one launch"
                             : "many rows: torch's GEMMs, then the cell in one launch";
  if (!plan.multiplies) return plan;
  const int gates = gates_of(kind),
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
