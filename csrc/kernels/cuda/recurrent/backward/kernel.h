// All steps of a layer, backward. A block owns some units: it makes their gates' gradients, multiplies these
// by the units' rows of R, which gives a part of dh of step t-1 for every unit of the layer, and hands the
// parts to the units' owners in the group, who add them up (scatter.h). dh and dc stay in float32.
//
// A turn: what does not depend on dh is worked out while the parts arrive; each lane adds up its pairs' and
// makes their gradients; one block barrier; what forward saved is asked for, for the next turn; tensor cores
// take the gradients from shared memory; a lane sends its sums as they are, a word of 16 bytes a tile; and
// only then do the gradients go out to memory. A block moves 32 H bytes of parts in and out (8 rows), and
// reads G times 8 U gradients from shared memory in each of its 8 warps.
#pragma once
#include "../resident.h"
#include "lane.h"

namespace fusegen::cuda {

// Fills registers with the block's rows of R, transposed, for the warp's tiles `first`..: rows of a tile are
// units that R leads to, and a word is neighbours in the gates' rows of the units that the block owns, which
// lie a row of R apart, so numbers are read one by one. A few fragments at a time, by way of a lane's own
// places in shared memory: unrolled, as registers must be, the loads and their addresses would take more of
// those than there are.
template <class S, class T, int kTiles, class Format>
FUSEGEN_DEVICE void load_shard(Resident<kTiles, S::kChunks, Format>& shard, int first,
                               const BackwardPass& pass, const BlockPlace& me) {
  constexpr int kLoaded = most_of(kTiles * S::kChunks, kLoadedFragments);
  static_assert(kTiles * S::kChunks % kLoaded == 0);
  const auto place = [](int i, int half) {
    return device::shared_memory() + ((i % kLoaded * 2 + half) * device::kThreads + device::thread()) * 16;
  };
  const auto gather = [&](int i) {
    const int word = i / kTiles * 4 + device::lane() % 4, unit = me.rank * S::kUnits + S::word_unit(word),
              count = S::word_unit(word) < S::kUnits ? pass.H - unit : 0,
              to = (device::warp() * S::kTiles + first + i % kTiles) * 16 + S::tile_unit(device::lane() / 4);
    const T* from = static_cast<const T*>(pass.R[me.direction]) +
                    (static_cast<int64_t>(S::word_gate(word)) * pass.H + unit) * pass.H + to;
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // rows lane / 4 and lane / 4 + 8: neighbours, by S::tile_unit
      uint32_t parts[4] = {0, 0, 0, 0};
#pragma unroll
      for (int n = 0; n < S::kWord; ++n) {
        const T number = to + half < pass.H && n < count ? from[n * pass.H + half] : T{};
        if constexpr (sizeof(T) == 4) {
          parts[n] = device::as_bits(number);
        } else {
          parts[n / 2] |= static_cast<uint32_t>(number.bits) << (16 * (n % 2));
        }
      }
      device::store16(place(i, half), {parts[0], parts[1], parts[2], parts[3]});
    }
  };
  shard.load([&](int tile, int row, int chunk) {
    const int at = chunk * kTiles + tile;
    if (row < 8 && at % kLoaded == 0) {
#pragma unroll 2
      for (int i = 0; i < kLoaded; ++i) gather(at + i);
    }
    return device::load16(place(at, row / 8));
  });
}

template <class C, class T, class Format, int NT, int kShape, bool kAnew>
FUSEGEN_KERNEL void backward_kernel(FUSEGEN_ARGUMENT BackwardArguments a) {
  using S = Shard<C::kGates, sizeof(T), kShape>;
  using Lane = GradientLane<C, T, S, NT, kAnew>;
  // So many tiles' sums are in registers at a time; true float32 has three for each.
  constexpr int kTiles = most_of(S::kTiles, kSplit<Format> ? 4 : 8), kParts = S::kTiles / kTiles,
                kStage = Lane::kRows * S::kStageStride;
  const BlockPlace me = block_place(a.blocks, a.groups);
  Resident<kTiles, S::kChunks, Format> shard[kParts];
#pragma unroll
  for (int i = 0; i < kParts; ++i)  // first, while nothing else takes registers
    load_shard<S, T>(shard[i], i * kTiles, a.pass, me);
  device::sync_block();  // what it went through is others' now
  Scatter<S, NT> scatter(a, me);
  Lane lane(a, me);
  lane.read_lengths();
  scatter.begin();
  lane.begin();
  const bool owner = lane.owner();
  if (owner) lane.fetch(0, 0);
  bool stopped = false;
  // Two stages, so that one barrier a turn is enough: who writes one again has passed the barrier of the turn
  // between, and so has everybody who read it.
  int parity = 0;
  for (int step = 0, slice = 0; step < lane.steps();) {
    if (owner) lane.prepare(slice, step);
    if (step > 0) {
      const float* parts = scatter.wait(slice, step - 1);
      if (owner) lane.add(parts);
      if constexpr (kAnew)
        if (owner) lane.stop(slice);
    }
    typename Lane::Outputs out;
    const int stage = a.shared.stage + parity * kStage;
    if (owner) lane.compute(out, device::shared_memory() + stage, slice);
    device::sync_block();
    stopped = scatter.stopped(slice, step - 1);
    if (stopped) break;

    const int next_slice = slice + 1 < a.slices ? slice + 1 : 0, next_step = step + (next_slice == 0);
    if (owner) lane.fetch(next_slice, next_step);
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      float sums[kTiles][NT][4];
      shard[i].product(sums, S::kChunks, SharedColumns(stage, S::kStageStride));
      scatter.send(sums, i * kTiles, slice, step);
    }
    scatter.all_sent(slice, step);
    if (owner) lane.store(out, slice, step);
    parity ^= 1;
    slice = next_slice;
    step = next_step;
  }
  for (int slice = 0; slice < a.slices && !stopped; ++slice) {
    const float* parts = scatter.wait(slice, lane.steps() - 1);
    if (owner) lane.add_last(parts, slice);
    device::sync_block();
    stopped = scatter.stopped(slice, lane.steps() - 1);
  }
  scatter.end();
  lane.end(stopped);
}

}  // namespace fusegen::cuda
