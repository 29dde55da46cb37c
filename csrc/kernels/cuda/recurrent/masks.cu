// A mask alone, as a tensor: what torch needs of those that the kernels make for themselves.
#include <device/launch.h>
#include <device/thread.h>

#include "../../philox.h"
#include "../layout.h"

namespace fusegen::cuda {
namespace {

// A lane for each element.
FUSEGEN_KERNEL void mask_kernel(FUSEGEN_ARGUMENT MaskPass a) {
  const int64_t i = static_cast<int64_t>(device::block()) * device::kThreads + device::thread();
  if (i >= a.rows * a.n) return;
  const auto mask = static_cast<philox::Mask>(a.mask);
  a.dropped[i] = philox::word(a.key, mask, a.place, i / a.n, a.n, i % a.n) < philox::threshold(a.rate);
}

}  // namespace

void make_mask(const MaskPass& pass) {
  const device::DeviceGuard guard(pass.device);
  if (pass.rows * pass.n == 0) return;
  device::launch(mask_kernel,
                 {.blocks = ceil_div(pass.rows * pass.n, device::kThreads), .stream = pass.stream}, pass);
}

}  // namespace fusegen::cuda
