// How blocks that share a sum find out which of them is the last: none waits for another.
#pragma once
#include <device/thread.h>

namespace fusegen::device {

// The arrivals before this one. What the whole block wrote before the block barrier that precedes this call
// is seen by the blocks that arrive later, behind a block barrier of theirs.
FUSEGEN_DEVICE uint32_t arrive(uint32_t* arrivals) {
  uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(arrivals) : "memory");
  return before;
}

}  // namespace fusegen::device
