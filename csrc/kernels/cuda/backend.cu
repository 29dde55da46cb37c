// From a format to its kernels.
#include <device/mma.h>

#include "run.h"

namespace fusegen::cuda {

using namespace device;  // the formats

Transport forward(const ForwardPass& pass) {
  const DeviceGuard guard(pass.device);
  switch (pass.format) {
    case Format::bf16: return run_forward<Bf16, FormatBf16>(pass);
    case Format::f16: return run_forward<F16, FormatF16>(pass);
    case Format::f32: return run_forward<float, FormatF32>(pass);
    case Format::tf32: break;
  }
  return run_forward<float, FormatTf32>(pass);
}

Transport backward(const BackwardPass& pass) {
  const DeviceGuard guard(pass.device);
  switch (pass.format) {
    case Format::bf16: return run_backward<Bf16, FormatBf16>(pass);
    case Format::f16: return run_backward<F16, FormatF16>(pass);
    case Format::f32: return run_backward<float, FormatF32>(pass);
    case Format::tf32: break;
  }
  return run_backward<float, FormatTf32>(pass);
}

}  // namespace fusegen::cuda
