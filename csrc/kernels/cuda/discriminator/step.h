// The kernel of a discriminator step. Forward or backward is one launch: a list of jobs (a layer, the logits,
// a weight gradient, ...), each of many units that the blocks share out, and a barrier of the whole grid
// before a job that reads what others have written. Such a barrier takes about 1.3 us (an atomic and a look
// at L2 each way), where the end of one launch and the start of the next take 2 to 3, and jobs that do not
// need each other fill the chip together.
//
// Blocks keep to the order of the list, so all meet at the same barriers: each once a job that waits, the
// products as late as they can, when their weights are on the way. Unit i of a job goes to block
// (first + i) modulo the grid: those of jobs between two barriers are dealt on end.
//
// There are two kernels of each format and tile: of plain() steps, and of those with options, whose machine
// code has the masks, the smooth activations and a second product of weight gradients in it. The loops that
// multiply are the same in both; what is done with their sums is not.
#pragma once
#include <device/grid.h>

#include "gradient.h"
#include "options/finish.h"
#include "totals.h"

namespace fusegen::cuda {

// Where a job's reading of what other blocks have written begins.
template <class Tile>
struct Gate {
  bool waits;
  FUSEGEN_DEVICE void operator()() const {
    if (!waits) return;
    Bulk<Tile>::begin_phase();
    device::sync_grid();
  }
};

template <class T, class Format, class Tile, bool plain, class Ready>
FUSEGEN_DEVICE void layer_tile(const typename Bulk<Tile>::Arguments& step, int job, int unit,
                               Bulk<Tile>& ring, const Ready& ready) {
  const LayerArguments& a = step.job[job].layer;
  const Corner corner = corner_of<Tile>(a.rows.count, unit);
  Sums<Tile> sums;
  bool done = false;
  if constexpr (Tile::kWarpgroups) done = layer_by_bulk<Format>(sums, step, job, corner, ring, ready);
  if (!done) layer_by_lanes<T, Format, Tile>(sums, step, a, corner, ready);
  if constexpr (plain) {
    for_each_pair<Tile>(sums, corner, [&](int m, int n, float x, float y) {
      if (m < a.rows.count && n < a.out.stride) finish_pair<T>(a, a.rows(m), n, {x, y});
    });
  } else {
    finish_tile<T, Tile>(step, a, sums, corner);
  }
}

template <class T, bool plain>
FUSEGEN_DEVICE void logits(const StepArguments& a, int unit) {
  logits_of_rows<T>(a, unit, [&](T v, int row, int n) {
    if constexpr (plain) return v;
    const Kept kept = kept_pair(a.logits.dropped, a.inputs, row, n & ~1);
    return device::narrow<T>(n < a.counted ? device::widen(v) * (n & 1 ? kept.y : kept.x) : 0.0f);
  });
}

template <class T, class Format, class Tile, bool plain>
FUSEGEN_DEVICE void do_unit(const typename Bulk<Tile>::Arguments& a, int i, int unit, Bulk<Tile>& ring,
                            const Gate<Tile>& gate) {
  const Job& job = a.job[i];
  if (job.part == Part::layer) return layer_tile<T, Format, Tile, plain>(a, i, unit, ring, gate);
  if (job.part == Part::product) return weight_gradient<T, Format, Tile, plain>(a, i, unit, ring, gate);
  gate();
  if constexpr (!plain) {
    if (job.part == Part::masks) return masks_of_rows<T>(a, job.mask, unit);
  }
  switch (job.part) {
    case Part::sum: return column_sum<T, plain>(a, job.sum, unit);
    case Part::logits: return logits<T, plain>(a, unit);
    case Part::norms: return norms_of_rows<T>(a, unit);
    case Part::totals: return add_up_totals<plain>(a);
    default: return input_gradients_of_rows<T>(a, unit);
  }
}

template <class T, class Format, class Tile, bool plain>
FUSEGEN_KERNEL void step_kernel(FUSEGEN_ARGUMENT typename Bulk<Tile>::Arguments a) {
  Bulk<Tile> ring;
  ring.start();
#pragma unroll 1
  for (int i = 0; i < a.jobs; ++i) {
    const Job& job = a.job[i];
    bool waits = job.waits;
    const int from_first = device::block() - job.first;
#pragma unroll 1
    for (int unit = from_first < 0 ? from_first + a.blocks : from_first; unit < job.units; unit += a.blocks) {
      ring.begin_unit();
      device::sync_block();  // the shared memory of the unit before is free
      do_unit<T, Format, Tile, plain>(a, i, unit, ring, {waits});
      waits = false;
    }
    Gate<Tile>{waits}();  // a block without a unit
  }
}

}  // namespace fusegen::cuda
