// The kernel of a discriminator step. Forward or backward is one launch: a list of jobs (a layer, the logits,
// a weight gradient, ...), each of many units that the blocks share out, and a barrier of the whole grid
// before a job that reads what others have written. Such a barrier takes about 1.3 us (an atomic and a look
// at L2 each way), where the end of one launch and the start of the next take 2 to 3, and jobs that do not
// need each other fill the chip together.
//
// Blocks keep to the order of the list, so all meet at the same barriers: each once a job that waits, the
// products as late as they can, when their weights are on the way. Unit i of a job goes to block
// (first + i) modulo the grid: those of jobs between two barriers are dealt on end.
#pragma once
#include <device/grid.h>

#include "gradient.h"
#include "layer.h"
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

template <class T, class Format, class Tile>
FUSEGEN_DEVICE void do_unit(const typename Bulk<Tile>::Arguments& a, int i, int unit, Bulk<Tile>& ring,
                            const Gate<Tile>& gate) {
  const Job& job = a.job[i];
  if (job.part == Part::layer) return layer_tile<T, Format, Tile>(a, i, unit, ring, gate);
  if (job.part == Part::product) return weight_gradient<T, Format, Tile>(a, i, unit, ring, gate);
  gate();
  switch (job.part) {
    case Part::sum: return column_sum<T>(a, job.sum, unit);
    case Part::logits: return logits_of_rows<T>(a, unit);
    case Part::norms: return norms_of_rows<T>(a, unit);
    case Part::totals: return add_up_totals(a);
    default: return input_gradients_of_rows<T>(a, unit);
  }
}

template <class T, class Format, class Tile>
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
      do_unit<T, Format, Tile>(a, i, unit, ring, {waits});
      waits = false;
    }
    Gate<Tile>{waits}();  // a block without a unit
  }
}

}  // namespace fusegen::cuda
