// What forward multiplies at every step, and how a block's registers and shared memory are dealt for it.
#pragma once
#include "../layout.h"
#include "forward/patch.h"

namespace fusegen::cuda {

// Rows of R.
struct Product {
  int gates;       // rows of a unit
  int most_tiles;  // of 8 rows of the batch, in a slice
  Format format;
  int units, B, D;
  int ring;  // stretches of gate inputs and saved gates that go through shared memory
  bool resets;
};

// Tiles of a slice: as many as fit in a lane's registers beside R, on every GPU generation. Of calls in which
// sequences start anew one, which is half as many kernels.
constexpr int most_tiles(Format format, bool resets) { return number_bytes(format) == 2 && !resets ? 2 : 1; }

constexpr Product product_of(const LayerSizes& s) {
  const int gates = gate_count(s.cell);
  const int ring = gates == 1 ? 1 : 4;  // GRU saves four numbers of three gates
  return {gates, most_tiles(s.format, s.resets), s.format, s.H, s.B, s.D, ring, s.resets};
}

constexpr int units_of_block(const Product& p, int k_splits) { return 8 / k_splits * units_of_warp(p.gates); }

// What the blocks of the plan publish together: of one copy of a row of the batch. The warps that share it
// get an even number of chunks each.
constexpr PaddedVector vector_of(const Plan& plan, const Product& p) {
  const int number = number_bytes(p.format);
  const int64_t bytes = static_cast<int64_t>(plan.blocks) * units_of_block(p, plan.k_splits) * number;
  const int64_t whole = 2 * kChunk * plan.k_splits;
  return {p.units, (bytes + whole - 1) / whole * whole, number};
}

// A warp keeps this many chunks of its rows of R in registers, an even number: with 8 * tiles registers a
// chunk, 96 or 128 of the 255 that a lane may have.
constexpr int resident_chunks(int gates) { return gates == 4 ? 8 : gates == 3 ? 4 : 16; }

// A row of gathered numbers in shared memory: its length is 64 more than a multiple of 128, so that 8 rows of
// 16-byte reads fall on different banks.
constexpr int gathered_stride(int row_bytes) { return row_bytes + kChunk; }

// Steps whose gate inputs are on the way at once, and the one that is worked on.
constexpr int kRingSlots = 4;

// Of the boundaries of a step (boundaries.h), 128 rows.
constexpr int kBoundaryWord = 16;

// A group's flags in global memory start on 16 bytes, since four are looked at together.
constexpr int flag_stride(int blocks) { return (blocks + 3) / 4 * 4; }

// Parts of a block's shared memory, in bytes from its start.
struct SharedParts {
  int gathered, gathered_size;  // of one buffer
  int partial, stage, ring, ring_slot, state, lengths, barriers;
  int resets, reset_size;  // of a slice: what states become, as the stage has them; 0: of no call's
  int total;
};

// Values of float that a lane carries from step to step, for each pair: c and h.
constexpr int kCarried = 2;

// `row_bytes`: of the vector that is gathered.
constexpr SharedParts shared_parts(const Plan& plan, const Product& product, int row_bytes) {
  const int rows = 8 * plan.tiles, unit_groups = 8 / plan.k_splits;
  const int pairs = (product.gates == 4 ? 2 : 4) * plan.tiles;
  const int buffers = plan.transport == Transport::l2 ? 1 : 2 * plan.slices;
  SharedParts p{};
  p.gathered_size = rows * gathered_stride(row_bytes);
  p.partial = p.gathered + buffers * p.gathered_size;
  p.stage = p.partial + (plan.k_splits > 1) * 8 * tiles_of_warp(product.gates) * plan.tiles * 4 * 32 * 4;
  const int number = number_bytes(product.format),
            published = rows * units_of_block(product, plan.k_splits) * number;
  p.ring = p.stage + published;
  p.ring_slot = product.ring * published;
  if (product.units * number % 16 != 0) {  // rows do not start on whole words: a word more of each
    const int tile_pairs = pairs / plan.tiles;
    const int row = number * Patch{tile_pairs, pairs_finished(pairs, plan.k_splits)}.units();
    p.ring_slot = p.ring_slot / row * (row + 16);
  }
  if (product.resets) p.ring_slot += 8 * kBoundaryWord;  // a warp's copy of the boundaries behind its beat
  p.state = p.ring + kRingSlots * p.ring_slot;
  p.lengths = p.state + plan.slices * pairs * kCarried * unit_groups * 32 * 4;
  p.barriers = p.lengths + plan.slices * rows * 4;
  p.total = p.barriers + 8 * (buffers + 1);
  if (product.resets) {
    p.resets = (p.total + 15) / 16 * 16;
    p.reset_size = published;
    p.total = p.resets + plan.slices * (product.gates == 4 ? 2 : 1) * published;
  }
  return p;
}

}  // namespace fusegen::cuda
