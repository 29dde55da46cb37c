// The host's side of csrc/kernels/cuda/device/counter.h.
#pragma once
#include <device/thread.h>

#include "../memory.h"

namespace fusegen::device {

inline uint32_t arrive(uint32_t* arrivals) {
  simt::memory::exchanged(arrivals, 4);
  const uint32_t before = simt::word(arrivals);
  simt::set_word(arrivals, before + 1);
  return before;
}

}  // namespace fusegen::device
