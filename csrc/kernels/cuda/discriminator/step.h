// The kernel of a discriminator step. Forward or backward is one launch: a list of jobs (a layer, the logits,
// a weight gradient, ...), each of many units that the blocks share out, and a barrier of the whole grid
// before a job that reads what others have written. Such a barrier takes about 1.3 us (an atomic and a look
// at L2 each way), where the end of one launch and the start of the next take 2 to 3, and jobs that do not
// need each other fill the chip together.
//
// Blocks keep to the order of the list, so all meet at the same barriers. Unit i of a job goes to block
// (first + i) modulo the grid: those of jobs between two barriers are dealt on end.
#pragma once
#include <device/grid.h>

#include "gradient.h"
#include "layer.h"
#include "totals.h"

namespace fusegen::cuda {

template <class T, class Format, class Tile>
FUSEGEN_DEVICE void do_unit(const StepArguments& a, const Job& job, int unit) {
  switch (job.part) {
    case Part::layer: layer_tile<T, Format, Tile>(a, job.layer, unit); break;
    case Part::product: weight_gradient<T, Format, Tile>(a, job.product, unit); break;
    case Part::sum: column_sum<T>(a, job.sum, unit); break;
    case Part::logits: logits_of_rows<T>(a, unit); break;
    case Part::norms: norms_of_rows<T>(a, unit); break;
    case Part::totals: add_up_totals(a); break;
    case Part::input_gradients: input_gradients_of_rows<T>(a, unit); break;
  }
}

template <class T, class Format, class Tile>
FUSEGEN_KERNEL void step_kernel(FUSEGEN_ARGUMENT StepArguments a) {
#pragma unroll 1
  for (int i = 0; i < a.jobs; ++i) {
    const Job& job = a.job[i];
    if (job.waits) device::sync_grid();
    const int from_first = device::block() - job.first;
#pragma unroll 1
    for (int unit = from_first < 0 ? from_first + a.blocks : from_first; unit < job.units; unit += a.blocks) {
      device::sync_block();  // the shared memory of the unit before is free
      do_unit<T, Format, Tile>(a, job, unit);
    }
  }
}

}  // namespace fusegen::cuda
