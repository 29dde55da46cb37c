// From a format to its kernels.
#include <device/launch.h>

#include "../format.h"
#include "pass.h"

namespace fusegen::cuda {

void cell_forward(const CellForwardPass& pass) {
  const device::DeviceGuard guard(pass.device);
  with_format(pass.format, [&]<class T, class Fmt>(T, Fmt) {
    if (pass.plan.multiplies) {
      run_cell<T, Fmt>(pass);
    } else {
      run_cell_step<T>(pass);
    }
  });
}

void cell_backward(const CellBackwardPass& pass) {
  const device::DeviceGuard guard(pass.device);
  with_format(pass.format, [&]<class T, class Fmt>(T, Fmt) { run_cell_backward<T>(pass); });
}

}  // namespace fusegen::cuda
