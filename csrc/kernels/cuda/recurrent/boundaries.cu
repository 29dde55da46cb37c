// The bits of boundaries.h.
#include <device/launch.h>

#include "../layout.h"
#include "boundaries.h"

namespace fusegen::cuda {
namespace {

struct BoundaryArguments {
  const bool* at;
  const int64_t* lengths;
  uint32_t* bits;
  int64_t T, words;  // of a step
  int B, D;
};

// A lane for each word.
FUSEGEN_KERNEL void boundary_kernel(FUSEGEN_ARGUMENT BoundaryArguments a) {
  const int64_t i = static_cast<int64_t>(device::block()) * device::kThreads + device::thread();
  if (i >= a.D * (a.T + 1) * a.words) return;
  const int64_t step = i / a.words % (a.T + 1), first = i % a.words * 32;
  // In reverse the boundary behind the step of time T-1-s, which is later in time.
  const bool reverse = i / a.words / (a.T + 1) == 1;
  const int64_t t = reverse ? a.T - step : step;
  uint32_t bits = 0;
  if (t < a.T && step < a.T) {
    for (int n = 0; n < 32 && first + n < a.B; ++n) {
      const int64_t b = first + n;
      const bool there = !a.lengths || (t < a.lengths[b] && a.lengths[b] <= a.T);
      if (there && a.at[t * a.B + b]) bits |= uint32_t{1} << n;
    }
  }
  a.bits[i] = bits;
}

}  // namespace

void find_boundaries(const Recurrence& pass) {
  BoundaryArguments a{};
  a.at = pass.boundaries.at;
  a.lengths = pass.lengths;
  a.bits = pass.boundaries.bits;
  a.T = pass.T;
  a.words = boundary_words(pass.B);
  a.B = pass.B;
  a.D = pass.D;
  const int64_t words = a.D * (a.T + 1) * a.words;
  device::launch(boundary_kernel, {.blocks = ceil_div(words, device::kThreads), .stream = pass.stream}, a);
}

}  // namespace fusegen::cuda
