// The host's side of csrc/kernels/cuda/device/grid.h.
#pragma once
#include <device/thread.h>

namespace fusegen::device {

inline void sync_grid() { simt::sync_grid(); }

}  // namespace fusegen::device
