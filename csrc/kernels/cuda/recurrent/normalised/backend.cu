// From a format to its kernels.
#include <device/launch.h>

#include "../../format.h"
#include "../boundaries.h"
#include "pass.h"

namespace fusegen::cuda {

void normalised_forward(const NormalisedForwardPass& pass) {
  const device::DeviceGuard guard(pass.device);
  if (pass.boundaries.at) find_boundaries(pass);
  with_format(pass.format, [&]<class T, class Fmt>(T, Fmt) { normalised::run_forward<T, Fmt>(pass); });
}

void normalised_backward(const NormalisedBackwardPass& pass) {
  const device::DeviceGuard guard(pass.device);
  if (pass.boundaries.at) find_boundaries(pass);
  with_format(pass.format, [&]<class T, class Fmt>(T, Fmt) { normalised::run_backward<T, Fmt>(pass); });
}

}  // namespace fusegen::cuda
