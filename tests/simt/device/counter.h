// The host's side of csrc/kernels/cuda/device/counter.h.
#pragma once
#include <device/thread.h>

namespace fusegen::device {

inline uint32_t arrive(uint32_t* arrivals) { return (*arrivals)++; }

}  // namespace fusegen::device
