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

void cell_forward(const CellForwardPass& pass) {
  const DeviceGuard guard(pass.device);
  if (!pass.plan.multiplies) {
    switch (pass.format) {
      case Format::bf16: return run_cell_step<Bf16>(pass);
      case Format::f16: return run_cell_step<F16>(pass);
      default: return run_cell_step<float>(pass);
    }
  }
  switch (pass.format) {
    case Format::bf16: return run_cell<Bf16, FormatBf16>(pass);
    case Format::f16: return run_cell<F16, FormatF16>(pass);
    case Format::f32: return run_cell<float, FormatF32>(pass);
    case Format::tf32: break;
  }
  run_cell<float, FormatTf32>(pass);
}

void cell_backward(const CellBackwardPass& pass) {
  const DeviceGuard guard(pass.device);
  switch (pass.format) {
    case Format::bf16: return run_cell_backward<Bf16>(pass);
    case Format::f16: return run_cell_backward<F16>(pass);
    default: return run_cell_backward<float>(pass);
  }
}

}  // namespace fusegen::cuda
