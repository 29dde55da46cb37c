// From a format to its kernels.
#include <device/launch.h>

#include "../format.h"
#include "boundaries.h"
#include "pass.h"

namespace fusegen::cuda {

Transport forward(const ForwardPass& pass) {
  const device::DeviceGuard guard(pass.device);
  if (pass.boundaries.at) find_boundaries(pass);
  return with_format(pass.format, [&]<class T, class Fmt>(T, Fmt) { return run<T, Fmt>(pass); });
}

Transport backward(const BackwardPass& pass) {
  const device::DeviceGuard guard(pass.device);
  if (pass.boundaries.at) find_boundaries(pass);
  return with_format(pass.format, [&]<class T, class Fmt>(T, Fmt) { return run<T, Fmt>(pass); });
}

}  // namespace fusegen::cuda
