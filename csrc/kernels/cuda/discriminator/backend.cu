// From a format to its kernels, and what a step needs of memory.
#include <device/launch.h>

#include "../format.h"
#include "pass.h"
#include "saved.h"

namespace fusegen::cuda {

int64_t mlp_saved_bytes(const MlpStep& p) {
  Parts measure(nullptr);
  const Saved saved(p, measure);
  return measure.used();
}

int64_t mlp_workspace_bytes(const MlpStep& p) {
  Parts measure(nullptr);
  const Workspace workspace(p, measure);
  return measure.used();
}

MlpRun mlp_forward(const MlpForwardPass& p) {
  const device::DeviceGuard guard(p.device);
  return with_format(p.format, [&]<class T, class Fmt>(T, Fmt) {
    return plain(p) ? run_mlp_forward<T, Fmt, true>(p) : run_mlp_forward<T, Fmt, false>(p);
  });
}

MlpRun mlp_backward(const MlpBackwardPass& p) {
  const device::DeviceGuard guard(p.device);
  return with_format(p.format, [&]<class T, class Fmt>(T, Fmt) {
    return plain(p) ? run_mlp_backward<T, Fmt, true>(p) : run_mlp_backward<T, Fmt, false>(p);
  });
}

}  // namespace fusegen::cuda
