// Where sequences start anew inside a call, as the kernels of a recurrence read it: a bit for each row of the
// batch, set where its state is replaced before a direction's s-th step (counted as forward runs them)
// reads it. [D][T+1][boundary_words(B)]; no bit is set of step T, nor where a sequence has no step s.
#pragma once
#include <device/thread.h>

#include "../../backend.h"

namespace fusegen::cuda {

// Writes the bits of a pass that has boundaries; ahead of its kernels, on its stream. Host.
void find_boundaries(const Recurrence& pass);

// The words of a step, of all rows.
FUSEGEN_DEVICE const uint32_t* boundaries_before(const Recurrence& pass, int direction, int step) {
  return pass.boundaries.bits +
         (static_cast<int64_t>(direction) * (pass.T + 1) + step) * boundary_words(pass.B);
}
// Whether row b starts anew before a step; there must be boundaries.
FUSEGEN_DEVICE bool starts_anew(const Recurrence& pass, int direction, int step, int b) {
  return boundaries_before(pass, direction, step)[b / 32] >> (b % 32) & 1;
}

}  // namespace fusegen::cuda
