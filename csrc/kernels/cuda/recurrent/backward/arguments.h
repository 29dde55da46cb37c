// What backward's sequence kernels are launched with, and how they lie on the device.
#pragma once
#include "../../../backend.h"
#include "../product.h"
#include "shard.h"

namespace fusegen::cuda {

// Parts of a block's shared memory, in bytes from its start.
struct BackwardShared {
  int partials, buffer;  // parts of all ranks, of one turn
  int stage, state, lengths, barriers;
  // Where sequences start anew, 0: of no call's. As `state` has them: what reached the states that came
  // before, and what they are; and each warp's two copies of boundaries.
  int resets, boundaries;
  int total;
};

// Floats that a lane carries from step to step for each pair: the gradient of h, and where the cell has them
// what it starts from (h0, of LSTM c0) and the gradient of c.
constexpr int backward_carried(int gates) { return gates == 4 ? 3 : gates == 3 ? 2 : 1; }

// A lane adds up parts so many ranks at a time; buffers have room for a multiple of it.
constexpr int rank_step(int most_blocks) { return most_of(most_blocks, 8); }

// Fragments of R that a lane reads at a time, each of 32 bytes, before the parts are anything.
constexpr int kLoadedFragments = 4;

constexpr BackwardShared backward_shared(const Plan& plan, int gates, int number, bool resets) {
  const int units = shard_units(gates, number, plan.shape),
            step = rank_step(shard_reach(gates, plan.shape) / units), rows = 8 * plan.tiles,
            part = 4 * units * rows, buffers = 2 * plan.slices;
  // In one block the parts of a slice lie where they were sent until its next step adds them up.
  const int kept = plan.transport == Transport::cluster ? buffers
                   : plan.transport == Transport::block ? plan.slices
                                                        : 1;
  BackwardShared p{};
  p.buffer = ceil_div(plan.blocks, step) * step * part;
  p.stage = p.partials + kept * p.buffer;
  p.state = p.stage + 2 * rows * stage_stride(shard_chunks(gates, number, plan.shape));
  p.lengths = p.state + plan.slices * backward_carried(gates) * ceil_div(part, 1024) * 1024;
  p.barriers = p.lengths + plan.slices * rows * 4;
  const int loaded = 32 * 256 * kLoadedFragments;
  int rest = p.barriers + 8 * (buffers + 1);
  if (resets) {
    p.resets = (rest + 15) / 16 * 16;
    p.boundaries = p.resets + p.lengths - p.state;
    rest = p.boundaries + 8 * 2 * kBoundaryWord;
  }
  p.total = rest > loaded ? rest : loaded;
  return p;
}

// Of what all blocks send in a turn.
constexpr int64_t backward_turn_bytes(const Plan& plan, const LayerSizes& s) {
  return static_cast<int64_t>(s.D) * plan.groups * plan.slices * plan.blocks * plan.blocks * 8 * plan.tiles *
         4 * shard_units(gate_count(s.cell), number_bytes(s.format), plan.shape);
}

struct BackwardArguments {
  BackwardPass pass;
  const void* dy;  // the pass's or, where it has none, something as large
  Transport transport;
  int blocks, slices, groups;
  BackwardShared shared;
  // Through L2: [2][D*groups*slices][owner][rank] parts, and [D*groups*slices][flag_stride(blocks)] flags.
  unsigned char* partials;
  int64_t parity;  // bytes from the even turns' copy to the odd ones'
  uint32_t* flags;
};

}  // namespace fusegen::cuda
